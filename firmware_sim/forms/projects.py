"""The C simulation of every HLS project of a run, those for further boards left out."""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import csim, csim_circuit
from firmware_sim.forms.compare import compare_normalizer, compare_step, simulate
from firmware_sim.forms.form import Answer, Setting, progress, spread
from hls.project.layered import load_project

#: Patches of a circuit on which every step and every layer is compared.
_EVERY_STEP = 1000


def answers(setting: Setting) -> Iterator[Answer]:
    """One answer a project; its own test bench must pass first."""
    for project in sorted(path.parent for path in (setting.run / "hls").glob("*/project.json")):
        described = load_project(project)
        name = f"csim:{described.io_type}"
        with ThreadPoolExecutor(1) as pool:  # both compile, the test bench all of it in one process
            bench = pool.submit(self_check, project, setting.scratch / "bench" / project.name)
            executable = csim.build(project, setting.scratch / "build" / project.name)
            bench.result()
        setting.say(f"  {name}: compiled; its own test bench passes")
        yield (_layers if setting.locator.is_bare else _circuit)(setting, executable, project.name, name)


def _layers(setting: Setting, executable: csim.Executable, project: str, name: str) -> Answer:
    """Layers take codes; the compiled normalizer is compared beside them. Every code of every layer is.

    Where the project's top begins at counts, it is compared as well, on all of them.
    """
    locator = setting.locator
    outputs, comparison = simulate(
        executable, locator.network, setting.codes, workers=setting.workers, chunk=setting.chunk,
        out_dir=setting.scratch / "chunks" / project, progress=progress(name, setting.say),
    )  # fmt: skip
    steps = {name.replace("csim", "normalizer"): compare_normalizer(executable, locator.normalizer, setting.counts)}
    if executable.project.circuit:
        whole = csim_circuit.run(
            executable, locator, setting.counts, workers=setting.workers, chunk=setting.chunk,
            out_dir=setting.scratch / "chunks" / f"{project}-top",
        )  # fmt: skip
        expected = locator.run(locator.inputs(setting.counts))
        steps[name.replace("csim", "top")] = compare_step("top", expected, whole)
    return Answer(name, np.arange(len(outputs)), outputs, comparison.wrong, comparison, steps, shown=name)


def _circuit(setting: Setting, executable: csim.Executable, project: str, name: str) -> Answer:
    """A circuit takes counts; its steps and layers are compared on some of them."""
    counts, workers, chunk = setting.counts, setting.workers, setting.chunk
    outputs = csim_circuit.run(
        executable, setting.locator, counts, workers=workers, chunk=chunk,
        out_dir=setting.scratch / "chunks" / project, progress=progress(name, setting.say),
    )  # fmt: skip
    _, comparison = csim_circuit.simulate(
        executable, setting.locator, counts[spread(len(counts), _EVERY_STEP)], workers=workers, chunk=chunk,
        out_dir=setting.scratch / "chunks" / f"{project}-steps",
    )  # fmt: skip
    return Answer(name, np.arange(len(counts)), outputs, comparison.wrong, comparison, shown=name)


def self_check(project: Path, copy: Path) -> None:
    """Run the project's own test bench with g++, as an engineer would; it compares the golden vectors itself."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project, copy)  # the finished project stays as it was written
    if shutil.which("make") is None:
        raise UserError("make is not on the PATH; the test bench needs it (Debian, Ubuntu: apt install make)")
    command = ["make", "-s", "-C", str(copy), "test"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if found.returncode:
        last = (found.stdout + found.stderr).strip().splitlines()[-3:]
        raise UserError(f"the test bench of {project.name} fails: {' / '.join(last)}")
