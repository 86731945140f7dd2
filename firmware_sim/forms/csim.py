"""C simulation: an HLS project compiled with g++, and run on integer codes."""

import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.compiler import require_compiler
from braggnn_edge.core.errors import UserError
from firmware_sim.forms.chunks import Arrays, Progress, map_chunks
from firmware_sim.forms.compiled import built, digest_of
from hls.project.layered import CXX_FLAGS, OPTIMIZATION, Project, load_project
from quant.contract.arithmetic import Codes
from quant.contract.emulate import checked_codes

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Executable:
    """A compiled project: ``path`` runs the network, ``normalizer`` the normalizer, ``circuit`` a project's circuit.

    ``key`` is the hash of every source, of the drivers, of the flags and of the compiler's version.
    """

    path: Path
    normalizer: Path
    project: Project
    key: str
    circuit: Path | None = None


def build(project_dir: Path, build_dir: Path, compiler: str = "g++", optimization: str = OPTIMIZATION) -> Executable:
    """Compile the generated sources as they are in ``project_dir`` into ``build_dir/<key>/``.

    Sources that were compiled before are not compiled again. Raises UserError when the compiler is missing or
    fails; then the message ends with the compiler's first errors and names the log.
    """
    project = load_project(project_dir)
    require_compiler(compiler)
    flags = (optimization, *CXX_FLAGS)
    key = _key(project_dir, compiler, flags)
    programs = {
        "csim": ("network.o", "driver.o"),
        "normalizer": ("normalizer.o",),
        "circuit": ("network.o", "circuit.o"),
    }
    # Parsing the types is most of the work: what needs all of them is one unit.
    units = {
        "network.o": ["-include", f"firmware/{project.name}.cpp", f"{project.name}_bridge.cpp"],
        "driver.o": [f"-DTOP={project.name}_double", str(_HERE / "csim_batch.cpp")],
        "normalizer.o": ["-I.", str(_HERE / "csim_normalize.cpp")],
        "circuit.o": ["-I.", "-include", f"firmware/{project.top}.cpp", str(_HERE / "csim_circuit.cpp")],
    }
    if not project.circuit:
        del programs["circuit"], units["circuit.o"]

    def make(aside: Path) -> None:
        log = build_dir / "compile.log"
        log.write_text("")
        compile_ = partial(_compile, compiler, project_dir, log)
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(compile_, [*flags, "-c", *arguments, "-o", str(aside / target)])
                for target, arguments in units.items()
            ]
            for job in jobs:
                job.result()
        for program, objects in programs.items():
            compile_([*(str(aside / name) for name in objects), "-o", str(aside / program)])

    final = built(build_dir, key, tuple(programs), make)
    return Executable(
        final / "csim", final / "normalizer", project, key, final / "circuit" if project.circuit else None
    )


def run(
    executable: Executable, codes: NDArray[np.integer], *,
    workers: int, chunk: int, out_dir: Path, progress: Progress | None = None,
) -> Codes:  # fmt: skip
    """Output codes (n, 2 or 4) of input codes (n, *project.shape), in ``workers`` processes, ``chunk`` at a time.

    Killed at any moment and started again it ends with the same result, and computes only the missing chunks.
    """
    checked = _checked(executable, codes)

    def work(_: int, some: NDArray[np.integer]) -> Arrays:
        return {"outputs": _execute(executable, some, [])[0]}

    results = map_chunks(
        work, checked, key=f"run {executable.key}", chunk=chunk, workers=workers, out_dir=out_dir, progress=progress
    )
    none = np.zeros((0, executable.project.outputs), np.int64)
    return np.concatenate([none, *(result["outputs"] for result in results)])


def trace(executable: Executable, codes: NDArray[np.integer]) -> list[Codes]:
    """Codes after each layer of ``executable.project.layers``, channels first: (n, channels, rows, cols) or (n, k).

    All patches at once: meant for one chunk.
    """
    checked = _checked(executable, codes)
    layers = executable.project.layers
    sizes = [int(np.prod(layer.shape)) for layer in layers]
    arguments = [
        text for layer, size in zip(layers, sizes, strict=True) for text in (layer.hls, str(size), str(layer.frac))
    ]
    _, found = _execute(executable, checked, arguments)
    traces = []
    for layer, values in zip(layers, np.split(found, np.cumsum(sizes)[:-1], axis=1), strict=True):
        shaped = values.reshape(len(checked), *layer.shape)
        traces.append(np.ascontiguousarray(shaped.transpose(0, 3, 1, 2)) if shaped.ndim == 4 else shaped)
    return traces


def normalize(executable: Executable, counts: NDArray[np.integer]) -> Codes:
    """Codes (n, size, size) that the compiled normalizer makes of whole, saturated counts (n, size, size)."""
    with tempfile.TemporaryDirectory() as name:
        source, result = Path(name, "counts"), Path(name, "codes")
        np.ascontiguousarray(counts, np.int32).tofile(source)
        call([str(executable.normalizer), str(source), str(result)])
        return np.fromfile(result, np.int32).astype(np.int64).reshape(counts.shape)


def _key(project_dir: Path, compiler: str, flags: tuple[str, ...]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    sources = [*project_dir.glob("*.cpp"), *project_dir.glob("firmware/**/*"), *_HERE.glob("*.cpp")]
    files = sorted(path for path in sources if path.is_file())
    return digest_of([*files, project_dir / "project.json"], version, " ".join(flags))


def _compile(compiler: str, project_dir: Path, log: Path, arguments: list[str]) -> None:
    found = subprocess.run(
        [compiler, *arguments], cwd=project_dir, capture_output=True, text=True, check=False, errors="replace"
    )
    if found.returncode:
        text = f"{compiler} {' '.join(arguments)}\n{found.stdout}{found.stderr}"
        with log.open("a") as file:
            file.write(text)
        lines = found.stderr.strip().splitlines()
        last = "\n".join([line for line in lines if "error" in line][:3] or lines[-3:])
        raise UserError(f"{project_dir}: {compiler} failed (all of it in {log}); generate the project again:\n{last}")


def _checked(executable: Executable, codes: NDArray[np.integer]) -> NDArray[np.int32]:
    project = executable.project
    found = checked_codes(codes, project.shape, project.input)
    return np.ascontiguousarray(found.reshape(-1, *project.shape), np.int32)


def _execute(executable: Executable, codes: NDArray[np.integer], layers: list[str]) -> tuple[Codes, Codes]:
    """Outputs (n, 2 or 4) and, if layers are named, all their codes side by side (n, sum of sizes)."""
    project = executable.project
    outputs = project.outputs
    with tempfile.TemporaryDirectory() as name:
        source, result, traced = Path(name, "codes"), Path(name, "outputs"), Path(name, "trace")
        np.ascontiguousarray(codes, np.int32).tofile(source)
        arguments = [str(n) for n in (int(np.prod(project.shape)), project.input.frac, outputs, project.output.frac)]
        tail = [str(traced), *layers] if layers else []
        call([str(executable.path), str(source), str(result), *arguments, *tail])
        found = np.fromfile(result, np.int64).reshape(-1, outputs)
        if len(found) != len(codes):
            raise UserError(f"{executable.path} made {len(found)} results of {len(codes)} patches; build it again")
        trace_codes = np.fromfile(traced, np.int64) if layers else np.zeros(0, np.int64)
        return found, trace_codes.reshape(len(codes), -1 if len(codes) and layers else 0)


def call(command: list[str]) -> None:
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run ({error}); build the C simulation again") from error
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{command[0]} ended with status {found.returncode}: {last}")
