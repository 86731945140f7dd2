"""The RTL project of a circuit: pipelined core, stream interface, constraints, scripts, test bench, golden vectors."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from da4ml.types import CombLogic, Pipeline, minimal_kif
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from hls.project.targets import DEFAULT_TARGET, target
from hls.project.test_bench import golden_counts, render, sigma_text
from hls.rtl.cmvm import Effort
from hls.rtl.core import bits_in, bits_out, core_files, pipelined
from hls.rtl.spec import DEFAULT_LEVELS, LANGUAGES, LIMIT, check_tag
from hls.rtl.tag import tag_texts
from hls.rtl.trace import trace
from quant.contract.arithmetic import Codes, Format
from quant.contract.block_shift import BlockShift
from quant.contract.locator import IntegerLocator, save

#: What the result's codes are, from the lowest bits on, by their number.
_OUTPUTS = {2: "two codes: row, column", 4: "four codes: row, column, ln sigma of the row, of the column"}

#: Name of the top module and of its source file.
NAME = "braggnn_rtl"


@dataclass(frozen=True)
class RtlProject:
    """What ``project.json`` says.

    stages: register stages of the core; latency_cycles: clocks from the edge that takes a patch to the edge that takes
    its result; places: results that can wait behind a stalled output, or be under way; register_bits: of the core;
    tag_bits: of the tag beside each patch, 0 for none; register_selects: as asked for.
    """

    digest: str
    language: str
    logic_levels: float
    shallow: bool
    stages: int
    latency_cycles: int
    interval_cycles: int
    places: int
    register_bits: int
    outputs: int
    window: int
    count_bits: int
    count_signed: bool
    output: Format
    target: str
    part: str
    clock_mhz: float
    da4ml: str
    tag_bits: int = 0
    register_selects: bool = False
    name: str = NAME


def write_rtl(
    circuit: IntegerLocator, directory: Path, *,
    counts: NDArray[np.generic], language: str = "verilog", logic_levels: float = DEFAULT_LEVELS,
    clock_mhz: float = 200.0, target_name: str = DEFAULT_TARGET, limit: int = LIMIT, effort: Effort | None = None,
    tag_bits: int = 0, register_selects: bool = False,
) -> RtlProject:  # fmt: skip
    """Write the RTL project of ``circuit``; ``counts`` (n, size, size) are detector values for the golden vectors,
    to which corner cases are added.

    logic_levels: adders or levels of tables between two registers, at least 1; fewer make more stages and a faster
    clock. tag_bits: width of the ports in_tag and out_tag, which are left out where it is 0. register_selects: as in
    :class:`hls.rtl.spec.RtlSpec`. The directory must not exist; it appears, complete, at the end. The same arguments
    give the same bytes. Raises UserError for a circuit that is too large or has no unrolled form, see
    :func:`hls.rtl.trace.trace`.
    """
    _check(language, logic_levels, clock_mhz, counts, directory)
    check_tag(tag_bits)
    chosen = target(target_name)
    search = effort or Effort()
    held = logic_levels if register_selects else None
    pipe = pipelined(trace(circuit, limit=limit, effort=search, levels=held), logic_levels)
    signed = not isinstance(circuit.normalizer, BlockShift)
    stages = len(pipe.solutions)
    project = RtlProject(
        circuit.digest, language, logic_levels, search.shallow, stages, stages + 1, 1, 1 << stages.bit_length(),
        int(sum(bits_in(stage) for stage in pipe.solutions)), circuit.outputs, circuit.window,
        circuit.normalizer.count_bits, signed, circuit.output, chosen.name, chosen.part, clock_mhz, version("da4ml"),
        tag_bits, register_selects,
    )  # fmt: skip
    files = _files(project, pipe, circuit, counts)
    with written_aside(directory) as aside:
        for name, text in files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        save(circuit, aside / "locator.json")
    return project


def load_rtl(directory: Path) -> RtlProject:
    """Read ``project.json`` of an RTL project; anything else is refused."""
    path = directory / "project.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        return RtlProject(**{**document, "output": Format(**document["output"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an RTL project ({error}); make it with `make rtl`") from error


def sources(
    circuit: IntegerLocator, logic_levels: float = DEFAULT_LEVELS, effort: Effort | None = None
) -> dict[str, str]:
    """The Verilog sources alone by file name, for synthesis without a project; see :func:`write_rtl`."""
    pipe = pipelined(trace(circuit, effort=effort), logic_levels)
    return _sources(pipe, circuit, None)


def _check(language: str, logic_levels: float, clock_mhz: float, counts: NDArray[np.generic], directory: Path) -> None:
    if language not in LANGUAGES:
        raise UserError(f"language {language!r} is unknown; expected one of {', '.join(LANGUAGES)}")
    if not logic_levels >= 1:
        raise UserError(f"logic_levels {logic_levels} is impossible; a stage holds at least 1 adder")
    if not clock_mhz > 0:
        raise UserError(f"clock of {clock_mhz} MHz is impossible; expected a positive frequency")
    if not len(counts):
        raise UserError("no patches for the golden vectors; give at least one")
    if directory.exists():
        raise UserError(f"{directory} exists; remove it or choose another directory for the project")


def _files(project: RtlProject, pipe: Pipeline, circuit: IntegerLocator, counts: NDArray[np.generic]) -> dict[str, str]:
    suffix = LANGUAGES[project.language]
    values = _values(pipe, circuit, project)
    codes = golden_counts(circuit, counts)
    expected = circuit.run(circuit.inputs(codes))
    values["VECTORS"] = len(codes)
    verilog = project.language == "verilog"
    values |= {
        "READ": f"read_verilog [lsort [glob $here/src/*{suffix}]]"
        if verilog
        else f"read_vhdl -vhdl2008 [lsort [glob $here/src/*{suffix}]]",
        "FILE_TYPE": "VERILOG_FILE" if verilog else "VHDL_FILE",
        "VERSION": "" if verilog else "set_global_assignment -name VHDL_INPUT_VERSION VHDL_2008",
        "SIMULATION": render("rtl_simulation_verilog.txt" if verilog else "rtl_simulation_vhdl.txt", values),
        "NO_MEMORY": " -max_bram 0 -max_uram 0",
        "PORTS": "rst in_data in_valid in_ready out_data out_valid out_ready@TAG_NAMES@",
        "YOSYS": render("rtl_yosys.txt", values) if verilog else "",
    }
    files = {f"src/{name}": text for name, text in _sources(pipe, circuit, project).items()}
    for kind in ("xdc", "sdc", "lpf"):
        files[f"constraints/{NAME}.{kind}"] = render(f"rtl_constraints.{kind}", values)
    width = project.window**2 * project.count_bits
    files |= {
        "vivado.tcl": render("rtl_vivado.tcl", values),
        "quartus.tcl": render("rtl_quartus.tcl", values),
        "README.txt": render("rtl_README.txt", values),
        "project.json": json.dumps(asdict(project), indent=1) + "\n",
        f"sim/test_bench{suffix}": render(f"rtl_test_bench{suffix}", values),
        "sim/counts.hex": packed(codes.reshape(len(codes), -1), project.count_bits, width),
        "sim/expected.hex": packed(expected, project.output.bits, project.outputs * project.output.bits),
    }
    return files


def packed(codes: Codes, bits: int, width: int) -> str:
    """Codes (n, k) as hexadecimal text, one line a row: ``bits`` each, two's complement, the first one lowest."""
    mask = (1 << bits) - 1
    lines = []
    for row in codes.tolist():
        word = 0
        for code in reversed(row):
            word = word << bits | code & mask
        lines.append(f"{word:0{-(-width // 4)}x}\n")
    return "".join(lines)


def _sources(pipe: Pipeline, circuit: IntegerLocator, project: RtlProject | None) -> dict[str, str]:
    """By file name; those of Verilog without a project."""
    language, tag_bits, copies = "verilog", 0, False
    if project is not None:
        language, tag_bits, copies = project.language, project.tag_bits, project.register_selects
    values = _values(pipe, circuit, None) | tag_texts(tag_bits, language)
    suffix = LANGUAGES[language]
    found = found_verilog if language == "verilog" else _found_vhdl
    values["FOUND"] = found(pipe.solutions[-1], circuit.output.bits)
    return core_files(pipe, f"{NAME}_core", language, copies) | {f"{NAME}{suffix}": render(f"rtl_top{suffix}", values)}


def _values(pipe: Pipeline, circuit: IntegerLocator, project: RtlProject | None) -> dict[str, Any]:
    """What the templates ask for."""
    normalizer, stages = circuit.normalizer, len(pipe.solutions)
    width = circuit.window**2 * normalizer.count_bits
    if bits_in(pipe) != width or not bits_out(pipe):
        raise UserError(
            f"circuit: its core takes {bits_in(pipe)} bits of {width} and gives {bits_out(pipe)}; its result does not "
            "depend on the counts, or something in the tracing is wrong"
        )
    values: dict[str, Any] = {
        "NAME": NAME, "PIXELS": circuit.window**2, "WINDOW": circuit.window, "COUNT_BITS": normalizer.count_bits,
        "SIGN": "unsigned" if isinstance(normalizer, BlockShift) else "signed", "IN": width,
        "OUT_BITS": circuit.output.bits, "OUT": circuit.outputs * circuit.output.bits, "FRAC": circuit.output.frac,
        "OUTPUTS": _OUTPUTS[circuit.outputs], "SIGMA": "" if circuit.calibration is None else sigma_text(circuit),
        "CORE_OUT": bits_out(pipe), "STAGES": stages,
        "FLIGHT": "{flight[STAGES-2:0], accept}" if stages > 1 else "accept", "PLACES_LOG2": stages.bit_length(),
    }  # fmt: skip
    if project is not None:
        values |= {
            "LANGUAGE": project.language, "SUFFIX": LANGUAGES[project.language], "DIGEST": project.digest,
            "LEVELS": f"{project.logic_levels:g}", "LATENCY": project.latency_cycles, "MHZ": f"{project.clock_mhz:g}",
            "PERIOD": f"{1000 / project.clock_mhz:.3f}", "HALF": f"{500 / project.clock_mhz:.3f}",
            "PART": project.part, "DA4ML": project.da4ml, **tag_texts(project.tag_bits, project.language),
        }  # fmt: skip
    return values


def _outputs(stage: CombLogic) -> list[tuple[int, int, bool, int]]:
    """Of each output: its highest and lowest bit in ``model_out``, whether it is signed, and zeros below its lowest."""
    found, low = [], 0
    for interval in stage.out_qint:
        signed, integer, frac = minimal_kif(interval)
        width = int(signed) + integer + frac
        found.append((low + width - 1, low, bool(signed), -frac))
        low += width
    return found


def found_verilog(stage: CombLogic, bits: int) -> str:
    parts = []
    for high, low, signed, zeros in reversed(_outputs(stage)):
        width = high - low + 1
        fill = bits - width - zeros
        top = f"result[{high}]" if signed else "1'b0"
        items = [f"{{{fill}{{{top}}}}}"] if fill else []
        items += [f"result[{high}:{low}]"] if width else []
        parts += items + ([f"{zeros}'d0"] if zeros and width else [])
    return f"{{{', '.join(parts)}}}"


def _found_vhdl(stage: CombLogic, bits: int) -> str:
    parts = []
    for high, low, signed, zeros in reversed(_outputs(stage)):
        width = high - low + 1
        fill = bits - width - zeros
        parts += [f"result({high})" if signed else "'0'"] * fill
        parts += [f"result({high} downto {low})"] if width else []
        parts += ["'0'"] * (zeros if width else 0)
    return " & ".join(parts)
