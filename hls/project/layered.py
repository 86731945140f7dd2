"""An HLS project on disk: hls4ml's firmware with exact types, our test bench, normalizer, build files and README."""

import contextlib
import io
import json
import re
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from hls.project.accelerator import check_accelerator, name_sources
from hls.project.attention import check_keys_per_cycle, check_tables
from hls.project.check import Traced, check
from hls.project.convert import channels_last, convert
from hls.project.extension import KERNEL
from hls.project.reuse import check_reuse, spread
from hls.project.spec import ACCELERATOR, check_options
from hls.project.targets import DEFAULT_TARGET, target
from hls.project.test_bench import Golden, golden, normalizer_headers, render, test_bench_files
from hls.project.types import simulate_quickly
from hls.project.weights import compile_quickly
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal
from quant.contract.block_shift import BlockShift
from quant.contract.network import IntegerNetwork, Linear
from quant.contract.normalize import Normalizer
from quant.contract.vectors import corner_case_inputs

#: Name of hls4ml's function and of its source files.
NAME = "braggnn"


#: How a generated project is compiled with g++, the one place that says so: C++11 as in the vendor's build script. The
#: warnings switched off look at every weight's constructor call for use after free and the like, and with them on
#: g++ 12 spends two thirds of its time there.
CXX_FLAGS = (
    "-std=c++11", "-Ifirmware/ap_types", "-Wno-attributes", "-Wno-use-after-free", "-Wno-dangling-pointer",
    "-Wno-free-nonheap-object", "-Wno-mismatched-new-delete", "-Wno-mismatched-dealloc", "-Wno-nonnull",
    "-Wno-stringop-overflow", "-Wno-stringop-overread",
)  # fmt: skip

#: Its optimization. -O1 compiles about 1.3 times faster and simulates up to 1.4 times slower
#: (docs/reference/hls_backends.md).
OPTIMIZATION = "-O2"

#: hls4ml puts a random stamp into file names of its own build; ours is fixed, so that projects are reproducible.
_STAMP = "braggnn"


@dataclass(frozen=True)
class Project:
    """What a project's ``project.json`` says: how it was made and what its layers are, in order."""

    backend: str
    io_type: str
    target: str
    part: str
    clock_mhz: float
    strategy: str
    reuse: tuple[int, ...]  # of each convolution and dense layer
    size: int
    input: Format
    output: Format
    layers: tuple[Traced, ...]
    hls4ml: str
    name: str = NAME
    keys_per_cycle: int = 0  # keys of a non-local block handled in a cycle; 0 without one
    circuit: str = ""  # digest of the locator around the network; empty for a network alone
    exponent: int = 0  # inputs of the network behind the pixels: the codes of the exponent

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the network's input codes of one patch."""
        return (self.size**2 + self.exponent,) if self.exponent else (self.size, self.size)

    @property
    def outputs(self) -> int:
        """Codes that the network answers."""
        return int(prod(self.layers[-1].shape))

    @property
    def top(self) -> str:
        """Name of the function that the vendor's tools synthesize, and of its source."""
        return f"{self.name}_locator" if self.circuit else self.name


def write_project(
    qonnx_path: Path,
    network: IntegerNetwork,
    normalizer: Normalizer | BlockShift,
    directory: Path,
    *,
    counts: NDArray[np.generic],
    codes: NDArray[np.integer] | None = None,
    io_type: str = "io_parallel",
    backend: str = "Vitis",
    target_name: str = DEFAULT_TARGET,
    clock_mhz: float = 200.0,
    strategy: str = "Latency",
    reuse: int | tuple[int, ...] = 1,
    keys_per_cycle: int = 8,
) -> Project:
    """Write the HLS project of a QONNX file and of the integer network derived from it.

    counts (n, size, size) are detector values for the golden vectors of the normalizer and of the network; codes
    (k, size, size) are further input codes for the network, :func:`quant.contract.vectors.corner_case_inputs` if not
    given. reuse: one factor for all convolutions and dense layers, or one for each, in order. keys_per_cycle: keys of a
    non-local block handled in a cycle, where there is one (docs/explanation/attention_hls.md).
    The directory must not exist. It appears, complete, only when every type and weight in hls4ml's model was
    read back and found to be the integer network's; otherwise a UserError names the layer. The same arguments
    give the same bytes.
    """
    factors = check_project(
        network, io_type=io_type, backend=backend, target_name=target_name, clock_mhz=clock_mhz, strategy=strategy,
        reuse=reuse, keys_per_cycle=keys_per_cycle,
    )  # fmt: skip
    _check_arguments(network, normalizer, directory)
    chosen = target(target_name)
    attention = any(isinstance(layer, NonLocal) for layer in network.layers)
    vectors = golden(network, normalizer, counts, corner_case_inputs(network) if codes is None else codes)
    with written_aside(directory) as aside:
        graph = convert(
            channels_last(qonnx_path), network, aside, name=NAME, io_type=io_type, backend=backend, part=chosen.part,
            clock_ns=round(1000 / clock_mhz, 6), strategy=strategy, reuse=factors, keys_per_cycle=keys_per_cycle,
            board=chosen.accelerator if backend == ACCELERATOR else "",
        )  # fmt: skip
        layers = check(graph, network, strategy, factors)
        project = Project(
            backend, io_type, chosen.name, chosen.part, clock_mhz, strategy, factors, network.size,
            network.input, network.output, layers, version("hls4ml"), keys_per_cycle=keys_per_cycle if attention else 0,
            exponent=network.exponent,
        )  # fmt: skip
        flags = " ".join((OPTIMIZATION, *CXX_FLAGS))
        files = {
            **test_bench_files(NAME, "axi" if backend == ACCELERATOR else io_type, network, vectors),
            **normalizer_headers(normalizer, network.size),
            "Makefile": render("Makefile", {"CXX_FLAGS": flags, "NAME": NAME, "SOURCES": _sources(backend)}),
            "project.json": json.dumps(asdict(project), indent=1) + "\n",
        }
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # hls4ml leaves its list of boards open
            # It would write the whole ONNX model as text, for seconds, into a file that is of no use here.
            graph.config.config.pop("OnnxModel", None)
            graph.write()
        for name, text in files.items():
            (aside / name).write_text(text)
        if network.outputs == 2 and not network.exponent:
            locators.save(locators.of_layers(network, normalizer), aside / "locator.json")
        (aside / "README.txt").write_text(_readme(project, normalizer, vectors, ports(aside, project)))
        _make_reproducible(aside, graph)
        compile_quickly(aside)
        simulate_quickly(aside)
        if backend == ACCELERATOR:
            name_sources(aside, NAME)
        if not attention:  # hls4ml copies every registered kernel
            (aside / "firmware" / "nnet_utils" / KERNEL.name).unlink(missing_ok=True)
    return project


def load_project(directory: Path) -> Project:
    """Read ``project.json`` of a project directory; anything else is refused."""
    path = directory / "project.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        for key in ("input", "output"):
            document[key] = Format(**document[key])
        document["reuse"] = tuple(document["reuse"])
        document["layers"] = tuple(Traced(**{**entry, "shape": tuple(entry["shape"])}) for entry in document["layers"])
        return Project(**document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an HLS project ({error}); make it with `make hls`") from error


def check_project(
    network: IntegerNetwork, *,
    io_type: str, backend: str, target_name: str, clock_mhz: float, strategy: str, reuse: int | tuple[int, ...],
    keys_per_cycle: int,
) -> tuple[int, ...]:  # fmt: skip
    """Refuse a project of ``network`` that cannot be; returns the reuse factors, one a layer. Nothing is converted."""
    check_options(backend, io_type, clock_mhz, strategy, reuse)
    chosen, factors = target(target_name), spread(reuse, network)
    check_reuse(network, factors, strategy, io_type)
    for layer in network.layers:
        if isinstance(layer, NonLocal):
            check_keys_per_cycle(layer, keys_per_cycle)
            check_tables(layer, keys_per_cycle, chosen)
    if backend == ACCELERATOR:
        check_accelerator(network, chosen, io_type, strategy, factors)
    return factors


def _check_arguments(network: IntegerNetwork, normalizer: Normalizer | BlockShift, directory: Path) -> None:
    expected = Format(normalizer.bits, normalizer.bits, signed=False)
    if network.input != expected:
        raise UserError(f"the normalizer makes codes of {expected}, but the network takes {network.input}")
    if directory.exists():
        raise UserError(f"{directory} exists; remove it or choose another directory for the project")
    for layer in network.layers:
        if isinstance(layer, Linear) and not layer.bias.size:
            raise UserError(f"layer {layer.name} has no bias; export it with one (zeros will do)")


def _sources(backend: str) -> str:
    """The C++ that the test bench is linked with."""
    return f"firmware/{NAME}.cpp" + f" firmware/{NAME}_axi.cpp" * (backend == ACCELERATOR)


def ports(directory: Path, project: Project) -> str:
    """The arguments of the top function, which become ports, and their interface, as hls4ml has written them."""
    text = (directory / "firmware" / f"{project.name}.h").read_text()
    found = re.findall(r"(input_t|result_t)>?\s*&?\s*(\w+)", text[text.index(f"void {project.name}(") :])
    names = dict(reversed(found))  # of each type the first
    if project.backend == ACCELERATOR:
        return f"those of {project.name}_axi: see firmware/{project.name}_axi.h"
    how = (
        "both AXI streams: a pixel a beat, both offsets in one beat, no TLAST"
        if project.io_type == "io_stream"
        else "both arrays of single values, each with a valid signal (ap_vld)"
    )
    return f"{names['input_t']} in, {names['result_t']} out; {how}"


def _readme(project: Project, normalizer: Normalizer | BlockShift, vectors: Golden, ports: str) -> str:
    signed = not isinstance(normalizer, BlockShift)
    return render(
        "README.txt",
        {
            "COMMANDS": render(f"README_{project.backend}.txt", {}), "N_IN": project.size**2,
            "BOARD": target(project.target).board, "BACKEND": project.backend,
            "IO_TYPE": project.io_type, "NAME": project.name, "SIZE": project.size,
            "N_OUT": project.layers[-1].shape[0], "INPUT_TYPE": project.input.ap_type,
            "INPUT_FRAC": project.input.frac, "OUTPUT_TYPE": project.output.ap_type,
            "OUTPUT_FRAC": project.output.frac, "PART": f"{project.part} ({target(project.target).board})",
            "CLOCK": f"{1000 / project.clock_mhz:g}", "STRATEGY": project.strategy,
            "REUSE": ", ".join(map(str, project.reuse)),
            "HLS4ML": project.hls4ml, "COUNTS": len(vectors.counts), "CODES": len(vectors.codes), "PORTS": ports,
            "COUNT_TYPE": f"ap_{'' if signed else 'u'}int<{normalizer.count_bits}>",
        },
    )  # fmt: skip


def _make_reproducible(directory: Path, graph: Any) -> None:
    """Take hls4ml's random stamp and the absolute path out of what it wrote."""
    stamp = graph.config.config["Stamp"]
    for path in sorted(directory.iterdir()):
        if path.is_file() and stamp in (text := path.read_text()):
            path.write_text(text.replace(stamp, _STAMP))
    # It holds the output directory; project.json says what matters.
    (directory / "hls4ml_config.yml").unlink(missing_ok=True)
