"""The HLS project of a whole locator: hls4ml's network between our normalizer, centroid and saturated sum."""

import json
import re
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from hls.project.layered import CXX_FLAGS, OPTIMIZATION, Project, write_project
from hls.project.spec import BACKENDS
from hls.project.targets import target
from hls.project.test_bench import Golden, centroid_headers, golden_counts, render, sigma_text, test_bench_files
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.block_shift import BlockShift
from quant.contract.layers import Flatten
from quant.contract.locator import IntegerLocator


def write_circuit_project(
    qonnx_path: Path, circuit: IntegerLocator, directory: Path, *, patches: NDArray[np.generic], backend: str = "Vitis",
    **options: Any,
) -> Project:  # fmt: skip
    """Write the HLS project of a circuit whose network is in the QONNX file (:mod:`quant.exchange.circuit_qonnx`).

    patches (n, size, size) are detector values for the golden vectors; corner-case counts are added to them.
    options: those of :func:`hls.project.layered.write_project`, except its vectors and back ends with a shell of their
    own. The directory must not exist. It appears, complete, only when hls4ml's model was found to be the circuit's
    network; otherwise a UserError says what differs. The same arguments give the same bytes.
    """
    if backend not in BACKENDS:
        raise UserError(f"back end {backend!r} is not offered for circuits; expected {' or '.join(BACKENDS)}")
    if directory.exists():
        raise UserError(f"{directory} exists; remove it or choose another directory for the project")
    counts = golden_counts(circuit, patches)
    with written_aside(directory) as aside:
        made = write_project(
            qonnx_path, circuit.network, circuit.normalizer, aside, counts=counts, backend=backend, **options
        )
        project = replace(made, circuit=circuit.digest)
        for name, text in _files(circuit, project, counts, _style(aside, made)).items():
            (aside / name).write_text(text)
        locators.save(circuit, aside / "locator.json")
        _make_top(aside, project)
        # What write_project made of the network alone, and the circuit has instead.
        for name in (f"{project.name}_test.cpp", "tb_data/codes_to_outputs.dat"):
            (aside / name).unlink()
    return project


def _files(circuit: IntegerLocator, project: Project, counts: Codes, style: str) -> dict[str, str]:
    """Everything around the network, by path."""
    base, output, top = circuit.centroid, circuit.output, project.top
    vectors = Golden(counts, circuit.normalizer.codes(counts), counts, circuit.run(circuit.inputs(counts)))
    inputs = prod(circuit.network.shape)
    flat, streams = bool(circuit.network.exponent), project.io_type == "io_stream"
    depths = stream_depths(circuit)
    names = {
        "TOP": top, "NAME": project.name, "STYLE": style, "PIXELS_DEPTH": depths.pixels, "AROUND": depths.around,
        "INPUT_DEPTH": depths.input, "CODES_DEPTH": depths.codes,
    }  # fmt: skip
    header = {
        "GUARD": top.upper(), "TOP": top, "OUTPUT_BITS": output.bits, "OUTPUT_INTEGER": output.bits - output.frac,
        "HAS_CENTROID": int(base is not None), "STREAMS": int(streams), "FLAT": int(flat), "INPUTS": inputs,
        "OUTPUTS": circuit.outputs, "SIGMA": ", ln sigma (row, col)" * (circuit.outputs > 2),
        "COUNT_PORT": whole_bytes(circuit.normalizer.count_bits), "OUTPUT_PORT": whole_bytes(output.bits),
    }  # fmt: skip
    sources = f"firmware/{top}.cpp firmware/{project.name}.cpp"
    return {
        **test_bench_files(top, "locator_stream" if streams else "locator", circuit.network, vectors),
        **({} if base is None else centroid_headers(base)),
        f"firmware/{top}.h": render("locator.h", header),
        f"firmware/{top}.cpp": render("locator_stream.cpp" if streams else "locator.cpp", names),
        **({"firmware/ap_types/ap_axi_sdata.h": render("ap_axi_sdata.h", {})} if streams else {}),
        "Makefile": render(
            "Makefile", {"CXX_FLAGS": " ".join((OPTIMIZATION, *CXX_FLAGS)), "NAME": top, "SOURCES": sources}
        ),
        "README.txt": _readme(circuit, project, len(counts)),
        "project.json": json.dumps(asdict(project), indent=1) + "\n",
    }


@dataclass(frozen=True)
class StreamDepths:
    """Depths of the streams around an io_stream network, in tokens.

    pixels: counts of a patch that wait for its last one, and of the next one behind them; codes: to the centroid;
    input: beats of the network's input; around: patches that can be under way in the network.
    """

    pixels: int
    codes: int
    input: int
    around: int


def stream_depths(locator: IntegerLocator) -> StreamDepths:
    """As in the generated source (hls/templates/locator_stream.cpp), and as the cost model counts them."""
    layers = sum(not isinstance(layer, Flatten) for layer in locator.network.layers)
    pixels = locator.window**2
    return StreamDepths(2 * pixels, pixels, 2 if locator.network.exponent else pixels, layers + 4)


def whole_bytes(bits: int) -> int:
    """Bits of TDATA for a number of ``bits``."""
    return -(-bits // 8) * 8


def _ports(circuit: IntegerLocator, project: Project) -> str:
    """The ports of the top function, for README.txt."""
    if project.io_type != "io_stream":
        return "counts in, all of a patch as one word; outputs out, one port a value; each with a valid signal (ap_vld)"
    count, output = whole_bytes(circuit.normalizer.count_bits), whole_bytes(circuit.output.bits)
    return (
        "AXI4-Stream, free-running (no ap_start). counts: one count a beat in\n"
        f"              {count} bits, TLAST with the last of a patch. outputs: one beat a patch,\n"
        f"              {circuit.outputs} codes of {output} bits, the first in the lowest; TLAST is 1; TUSER is 1 if\n"
        "              the patch had another number of counts: a shorter one is filled up with zeros, of a\n"
        "              longer one the rest is thrown away"
    )


def _readme(circuit: IntegerLocator, project: Project, counts: int) -> str:
    normalizer, base = circuit.normalizer, circuit.centroid
    signed = not isinstance(normalizer, BlockShift)
    values = {
        "COMMANDS": render(f"README_{project.backend}.txt", {}), "BACKEND": project.backend,
        "IO_TYPE": project.io_type, "TOP": project.top, "NAME": project.name, "SIZE": circuit.window,
        "PORTS": _ports(circuit, project),
        "COUNT_TYPE": f"ap_{'' if signed else 'u'}int<{normalizer.count_bits}>",
        "NORMALIZER": "min-max with a table of reciprocals" if signed else "block-floating shift",
        "CENTROID": "none: the network is the whole estimate" if base is None
        else "firmware/centroid.h: the network corrects it; tables in centroid_tables.h",
        "CORRECTION": "the offset" if base is None else "its correction",
        "SIGMA": ", then ln sigma\n              (row, column), before calibration" * (circuit.outputs > 2),
        "MEANING": " pixels" + (sigma_text(circuit) if circuit.calibration is not None else ""),
        "EXPONENT": " and the patch's exponent" if circuit.network.exponent else "",
        "OUTPUT_TYPE": circuit.output.ap_type, "OUTPUT_FRAC": circuit.output.frac,
        "PART": f"{project.part} ({target(project.target).board})", "CLOCK": f"{1000 / project.clock_mhz:g}",
        "STRATEGY": project.strategy, "REUSE": ", ".join(map(str, project.reuse)), "HLS4ML": project.hls4ml,
        "COUNTS": counts,
    }  # fmt: skip
    return render("README_locator.txt", values)


def _style(directory: Path, project: Project) -> str:
    """How hls4ml schedules its top function: "PIPELINE II=n" or "DATAFLOW"."""
    text = (directory / "firmware" / f"{project.name}.cpp").read_text()
    found = re.findall(r"#pragma HLS (PIPELINE.*|DATAFLOW)", text)
    if len(found) != 1:
        raise UserError(f"hls4ml {project.hls4ml} gave its top function {len(found)} styles, expected 1")
    return str(found[0]).strip()


def _make_top(directory: Path, project: Project) -> None:
    """Let the vendor's scripts build the circuit, whose name is the project's there, with the network beside it."""
    network, first = f"firmware/{project.name}.cpp", "add_files firmware/${project_name}.cpp"
    for name, pattern, text in (
        ("project.tcl", f'set project_name "{project.name}"', f'set project_name "{project.top}"'),
        ("build_prj.tcl", first, f'add_files {network} -cflags "-std=c++0x"\n{first}'),
    ):
        path = directory / name
        before = path.read_text()
        if before.count(pattern) != 1:
            raise UserError(f"hls4ml {project.hls4ml} wrote another {name}: {pattern!r} is not in it once")
        path.write_text(before.replace(pattern, text))
