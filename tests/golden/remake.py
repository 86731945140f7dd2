"""Golden digests: what every form of two trained networks computes and what is written for them, as SHA-256.

``layered`` is the network of ``configs/smoke.toml`` with seed 2 (layered.json is the integer.json of that time,
layered.onnx the model.onnx), ``circuit`` that of ``configs/smoke_circuit.toml``. Both were trained once; nothing is
trained here.

``python tests/golden/remake.py`` writes digests.json again and says what changed. Do so on purpose alone:

- ``inputs``: changes with the patches of the vector functions or with numpy's generator. All codes change with it.
- ``normalizer``, ``emulator``, ``qonnx``, ``csim``, ``rtlsim``, the codes of ``qdq``: the integer contract itself. No
  rearrangement of the sources and no new version of a package may change them.
- ``hls_sources``: may change with hls4ml's version, with a template of ours or a comment in one, and with the layout
  that hls4ml chooses. The codes of ``csim`` must stay.
- ``rtl_sources``: may change with da4ml's version, the search for shared sums, the place of registers, a template. The
  codes of ``rtlsim`` must stay.
- the bytes of ``qdq``: may change with onnx's version and with the graph that we write. Its codes must stay.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.locate.onnx_session import session
from firmware_sim.forms.csim import build as build_csim
from firmware_sim.forms.csim import normalize as csim_normalize
from firmware_sim.forms.csim import run as run_csim
from firmware_sim.forms.csim_circuit import steps as run_csim_circuit
from firmware_sim.forms.rtlsim import build as build_rtlsim
from firmware_sim.forms.rtlsim import run as run_rtlsim
from firmware_sim.verification.vectors import corner_case_counts as corner_counts
from hls.project.circuit import write_circuit_project
from hls.project.layered import write_project
from hls.rtl.project import write_rtl
from quant.contract.arithmetic import Format
from quant.contract.emulate import run as emulate
from quant.contract.locator import load
from quant.contract.network import IntegerNetwork
from quant.contract.vectors import corner_case_codes as corner_codes
from quant.contract.vectors import random_codes
from quant.exchange.execute import run_qonnx
from quant.exchange.qdq import TARGETS, qdq_model

HERE = Path(__file__).parent
DIGESTS = HERE / "digests.json"

#: Packages whose version shows in sources and bytes; written beside the digests, for whoever sees them change.
PACKAGES = ("da4ml", "hls4ml", "numpy", "onnx", "onnxruntime", "qonnx")

_RANDOM = 300  # patches beside the corner cases
_LIBRARY = ("ap_types", "nnet_utils")  # what hls4ml copies, the same for every network


def digest(codes: NDArray[np.integer]) -> str:
    """SHA-256 of the shape and of the codes as int64, C order, little endian; floats are refused by a TypeError."""
    found = np.asarray(codes)
    if found.dtype.kind not in "iu":
        raise TypeError(f"codes are {found.dtype}, expected integers")
    shape = ",".join(map(str, found.shape))
    return hashlib.sha256(f"{shape}\n".encode() + np.ascontiguousarray(found, "<i8").tobytes()).hexdigest()


def files_digest(root: Path, paths: list[Path]) -> str:
    """SHA-256 of the names below ``root`` and of the bytes of files, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(paths):
        data = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    return found.hexdigest()


class Golden:
    """Networks from the files in ``source``, fixed inputs for them, and a folder ``work`` for projects and programs.

    codes (n, size, size) are inputs of the layered network, its counts those of its normalizer, patches
    (n, size, size) and counts (n, window, window) those of the circuit.
    """

    def __init__(self, work: Path, source: Path = HERE) -> None:
        self.work, self.source = work, source
        layered, self.circuit = load(source / "layered.json"), load(source / "circuit.json")
        self.layered, self.normalizer = layered.network, layered.normalizer
        size, window = self.layered.size, self.circuit.window
        self.codes = _some_codes(size, self.layered.input)
        self.layered_counts = self.normalizer.counts(corner_counts(size, np.random.default_rng(1)))[0]
        whole = Format(self.circuit.normalizer.count_bits, 0, signed=False)
        self.patches = np.concatenate(
            [corner_counts(self.circuit.size, np.random.default_rng(2)), _some_codes(self.circuit.size, whole)]
        )
        self.counts = self.circuit.counts(self.patches)
        self.window_codes = _some_codes(window, self.circuit.network.input)

    def inputs(self) -> dict[str, str]:
        """The inputs themselves: where they change, every other digest does."""
        return {
            "layered.counts": digest(self.layered_counts),
            "layered.codes": digest(self.codes),
            "circuit.counts": digest(self.counts),
            "circuit.codes": digest(self.window_codes),
        }

    def normalizers(self) -> dict[str, str]:
        """Counts to codes."""
        return {
            "layered.normalizer": digest(self.normalizer.codes(self.layered_counts)),
            "circuit.normalizer": digest(self.circuit.codes(self.patches)),
        }

    def emulator(self) -> dict[str, str]:
        """Codes after every layer, and the circuit from patches to offsets."""
        offsets = self.circuit.run(self.circuit.codes(self.patches))
        return {
            **_layers("layered", self.layered, self.codes),
            **_layers("circuit", self.circuit.network, self.window_codes),
            "circuit.offsets": digest(offsets),
        }

    def qonnx(self) -> dict[str, str]:
        """The QONNX files, executed on the emulator's inputs."""
        return {
            "layered.outputs": digest(run_qonnx(self.source / "layered.onnx", self.codes)),
            "circuit.outputs": digest(run_qonnx(self.source / "circuit.onnx", self.window_codes)),
        }

    def qdq(self) -> dict[str, str]:
        """The layered network as int8 QDQ: the bytes of the model, and its codes executed as it is written."""
        found = {}
        for target in TARGETS:
            model = qdq_model(self.layered, target)
            found[f"layered.{target}.bytes"] = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
            opened = session(model, "cpu", fused=False)
            values = opened.run(None, {"codes": self.codes[:, None].astype(np.uint8)})[0]
            codes = np.ldexp(values.astype(np.float64), self.layered.output.frac)
            found[f"layered.{target}.outputs"] = digest(codes.astype(np.int64))
        return found

    def hls_sources(self) -> dict[str, str]:
        """What is compiled for the networks: the sources of each, and the library that hls4ml copies beside them."""
        found = {}
        for name in ("layered-io_parallel", "layered-io_stream", "circuit-io_parallel"):
            firmware = self._project(name) / "firmware"
            for path in sorted(firmware.glob("*.*")):
                found[f"{name}.{path.name}"] = files_digest(firmware, [path])
            for part in ("weights", *_LIBRARY):
                paths = [path for path in (firmware / part).rglob("*") if path.is_file()]
                found[f"{name}.{part}"] = files_digest(firmware, paths)
        return found

    def csim(self) -> dict[str, str]:
        """C simulation of the projects, whole circuit included."""
        found = {}
        for io_type in ("io_parallel", "io_stream"):
            program = build_csim(self._project(f"layered-{io_type}"), self.work / "csim", optimization="-O0")
            outputs = run_csim(program, self.codes, workers=1, chunk=1000, out_dir=self.work / io_type)
            found[f"layered.{io_type}.outputs"] = digest(outputs)
            found[f"layered.{io_type}.normalizer"] = digest(csim_normalize(program, self.layered_counts))
        program = build_csim(self._project("circuit-io_parallel"), self.work / "csim", optimization="-O0")
        whole = run_csim_circuit(program, self.circuit, self.counts)
        found["circuit.normalizer"] = digest(whole.inputs)
        found["circuit.offsets"] = digest(whole.outputs)
        return found

    def rtl_sources(self) -> dict[str, str]:
        """Every source of the circuit's RTL project in Verilog."""
        root = self._rtl() / "src"
        return {f"circuit.{path.name}": files_digest(root, [path]) for path in sorted(root.iterdir())}

    def rtlsim(self) -> dict[str, str]:
        """The Verilog simulated by Verilator with gaps and back-pressure."""
        program = build_rtlsim(self._rtl(), self.work / "rtlsim")
        return {"circuit.offsets": digest(run_rtlsim(program, self.counts, seed=0).outputs)}

    def _project(self, name: str) -> Path:
        """An HLS project, written once: the network's name, a hyphen, the io type."""
        directory = self.work / name
        network, _, io_type = name.partition("-")
        if directory.exists():
            return directory
        if network == "layered":
            write_project(
                self.source / "layered.onnx", self.layered, self.normalizer, directory,
                counts=self.layered_counts[:20], io_type=io_type,
            )  # fmt: skip
        else:
            write_circuit_project(
                self.source / "circuit.onnx", self.circuit, directory, patches=self.patches[:20], io_type=io_type
            )
        return directory

    def _rtl(self) -> Path:
        """The RTL project, written once."""
        directory = self.work / "rtl"
        if not directory.exists():
            write_rtl(self.circuit, directory, counts=self.patches[:20])
        return directory


#: What digests.json holds, by group.
GROUPS: dict[str, Callable[[Golden], dict[str, str]]] = {
    "inputs": Golden.inputs,
    "normalizer": Golden.normalizers,
    "emulator": Golden.emulator,
    "qonnx": Golden.qonnx,
    "qdq": Golden.qdq,
    "hls_sources": Golden.hls_sources,
    "csim": Golden.csim,
    "rtl_sources": Golden.rtl_sources,
    "rtlsim": Golden.rtlsim,
}


def versions() -> dict[str, str]:
    """The versions of :data:`PACKAGES` here."""
    return {name: version(name) for name in PACKAGES}


def changed(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Names whose digest differs or that only one of the two has, sorted."""
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def _some_codes(size: int, to: Format) -> NDArray[np.int64]:
    return np.concatenate([corner_codes(size, to), random_codes(size, to, _RANDOM, np.random.default_rng(0))])


def _layers(name: str, network: IntegerNetwork, codes: NDArray[np.int64]) -> dict[str, str]:
    result = emulate(network, codes, trace=True)
    named = zip(network.layers, result.trace, strict=True)
    return {f"{name}.{layer.name}": digest(trace) for layer, trace in named} | {
        f"{name}.outputs": digest(result.outputs)
    }


def main() -> None:
    """Write digests.json and list what differs from the one that was there."""
    before = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    with tempfile.TemporaryDirectory() as work:
        golden = Golden(Path(work))
        after: dict[str, dict[str, str]] = {"versions": versions()}
        after |= {group: find(golden) for group, find in GROUPS.items()}
    for group, found in after.items():
        for name in changed(before.get(group, {}), found):
            sys.stdout.write(f"changed: {group}: {name}\n")
    DIGESTS.write_text(json.dumps(after, indent=1) + "\n")


if __name__ == "__main__":
    main()
