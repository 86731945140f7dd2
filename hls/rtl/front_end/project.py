"""The Verilog of a front end with its locator behind it: pixels in, records out."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from hls.project.targets import DEFAULT_TARGET, target
from hls.rtl import variants
from hls.rtl.cmvm import Effort
from hls.rtl.core import bits_out, core_files, pipelined
from hls.rtl.front_end import external, registers, stored
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.header import header
from hls.rtl.front_end.ipxact import component, package_script
from hls.rtl.front_end.readme import readme
from hls.rtl.front_end.scripts import ports, scripts, test_bench
from hls.rtl.front_end.vectors import vectors
from hls.rtl.front_end.wrapper import WRAPPER, wrapper
from hls.rtl.project import NAME as LOCATOR_NAME
from hls.rtl.project import found_verilog
from hls.rtl.spec import DEFAULT_LEVELS, LIMIT
from hls.rtl.trace import trace
from quant.contract.locator import IntegerLocator, save

#: Name of the top module.
NAME = "braggnn_front_end"

#: Modules that are the same in every front end.
_MODULES = (
    "fifo", "sequencer", "pixels", "lines", "larger", "span", "maximum", "queue", "readout", "features", "records",
)  # fmt: skip

#: Those of an option.
_OPTIONAL = {"significance": "significance", "bad_words": "bad", "maps": "maps", "external": "external"}
#: Files of the cocotb bench.
_BENCH = ("run.py", "bench.py", "tests.py")

#: Modules with a form of their own for a device family.
_WITH_FORMS = ("braggnn_fe_ternary_adder", "braggnn_fe_less_than")


def write_front_end(
    locator: IntegerLocator, geometry: Geometry, directory: Path, *, logic_levels: float = DEFAULT_LEVELS,
    effort: Effort | None = None, limit: int = LIMIT, register_selects: bool = False, clock_mhz: float = 200.0,
    target_name: str = DEFAULT_TARGET,
) -> None:  # fmt: skip
    """Write the project of a front end: ``src/``, registers as a C header and a table, benches and their vectors,
    constraints, scripts, ``component.xml``, ``project.json``, ``README.txt`` and the locator; of an external one also a
    module of both, ``braggnn_detector.v``.

    clock_mhz: what the constraints ask for; target_name: the board whose part the scripts name. The directory must not
    exist; it appears, complete, at the end. Raises UserError as :func:`sources` does.
    """
    if directory.exists():
        raise UserError(f"{directory} exists; remove it or choose another directory for the front end")
    found = sources(
        locator, geometry, logic_levels=logic_levels, effort=effort, limit=limit, register_selects=register_selects
    )
    sizes: dict[str, object] = {
        "N": geometry.pixels, "B": geometry.bits, "MAX_ROWS": geometry.max_rows, "MAX_COLS": geometry.max_cols,
    }  # fmt: skip
    chosen = target(target_name)
    there = [replace(one, reset=filled(one.reset, sizes)) for one in registers.built(geometry.options)]
    document = {
        "top": NAME, "digest": locator.digest, **asdict(geometry), "logic_levels": logic_levels,
        "da4ml": version("da4ml"), "clock_mhz": clock_mhz, "part": chosen.part,
        "registers": {one.name: f"0x{one.offset:02x}" for one in there},
    }  # fmt: skip
    files = {f"src/{name}": text for name, text in found.items()} | {
        "lint.vlt": (package_files("hls.rtl.front_end") / "verilog" / f"{NAME}.vlt").read_text(),
        "registers.h": header(_sizes(locator, geometry), geometry.options, locator.digest),
        "registers.md": registers.table(geometry.options),
        "README.txt": readme(NAME, geometry, there, locator.output.frac, clock_mhz, chosen.part),
        "project.json": json.dumps(document, indent=1) + "\n",
    }  # fmt: skip
    files |= {f"tb/{name}": (package_files("hls.rtl.front_end") / "tb" / name).read_text() for name in _BENCH}
    files |= scripts(NAME, found[f"{NAME}.v"], chosen, clock_mhz)
    module = ports(found[f"{NAME}.v"])
    files |= {
        "component.xml": component(NAME, module, there, [name for name in files if name.startswith("src/")], clock_mhz),
        "package_ip.tcl": package_script(NAME, module, there, chosen.part, clock_mhz),
    }
    if geometry.external:
        files[f"{WRAPPER}.v"] = wrapper(NAME, module)
    stored_vectors: dict[str, str] = {}
    for vector in vectors(locator, geometry):
        stored_vectors |= vector.files(geometry)
    if geometry.external:
        known = external.lines(external.stored_patch(geometry, locator), locator)
        stored_vectors |= {f"stored.{kind}.hex": text for kind, text in known.items()}
    files |= {f"vectors/{name}": text for name, text in stored_vectors.items()}
    text = (package_files("hls.rtl.front_end") / "tb" / "test_bench.v").read_text()
    files["sim/test_bench.v"] = test_bench(NAME, text, module, clock_mhz, stored_vectors)
    with written_aside(directory) as aside:
        for name, text in files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        save(locator, aside / "locator.json")


def _sizes(locator: IntegerLocator, geometry: Geometry) -> dict[str, int]:
    """What a program that reads records and writes registers needs to know of a build."""
    return {
        "pixels": geometry.pixels, "bits": geometry.bits, "max_rows": geometry.max_rows, "max_cols": geometry.max_cols,
        "window": geometry.window, "min_area": geometry.min_area, "places": geometry.places,
        "bad_words": geometry.bad_words, "fraction_bits": locator.output.frac, "codes": locator.outputs,
    }  # fmt: skip


def sources(
    locator: IntegerLocator, geometry: Geometry, *, logic_levels: float = DEFAULT_LEVELS, effort: Effort | None = None,
    limit: int = LIMIT, register_selects: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Verilog sources by file name; options as for :func:`hls.rtl.project.write_rtl`.

    Raises UserError for a locator of another window, one that is not unrolled, or too few places for its stages.
    """
    if locator.window != geometry.window:
        raise UserError(
            f"front end: the locator's window is {locator.window} px and the front end's {geometry.window}; "
            "expected the same"
        )
    if locator.output.bits > 16 and locator.outputs == 4:
        raise UserError(f"front end: ln sigma of {locator.output.bits} bits; a record has 16")
    if locator.output.frac > 15:
        raise UserError(f"front end: positions with {locator.output.frac} fraction bits; a record has room for 15")
    if geometry.external:
        stages, found, connected = 0, {}, external.instance(locator)
    else:
        held = logic_levels if register_selects else None
        pipe = pipelined(trace(locator, effort=effort, limit=limit, levels=held), logic_levels)
        stages, core = len(pipe.solutions), f"{LOCATOR_NAME}_core"
        geometry.check_places(stages)
        found = core_files(pipe, core, copies=register_selects)
        late = max(0, 6 + geometry.later - stages)  # the locator is faster than the features
        connected = _INSIDE.format(
            out=bits_out(pipe), core=core, found=found_verilog(pipe.solutions[-1], locator.output.bits),
            late=_late(locator.outputs * locator.output.bits, late),
        )  # fmt: skip
    values = _values(locator, geometry, stages) | {"LOCATOR": connected}
    maps = registers.verilog(_constants(locator, geometry), geometry.options)
    modules = (*_MODULES, "registers", *(module for option, module in _OPTIONAL.items() if getattr(geometry, option)))
    for name in (*(f"braggnn_fe_{module}" for module in modules), NAME):
        found[f"{name}.v"] = filled(filled(template(name), maps), values)
    found["braggnn_fe_stored.v"] = stored.source(geometry)
    return found | {f"{name}.v": variants.source(name) for name in _WITH_FORMS}


def template(name: str) -> str:
    """The text of a module with its placeholders."""
    return (package_files("hls.rtl.front_end") / "verilog" / f"{name}.v").read_text()


def filled(text: str, values: Mapping[str, object]) -> str:
    """The text with the values of its placeholders, ``@NAME@``, where there are any of the name."""
    return re.sub(r"@([A-Z][A-Z_0-9]*)@", lambda match: str(values.get(match[1], match[0])), text)


def _values(locator: IntegerLocator, geometry: Geometry, stages: int) -> dict[str, object]:
    """What the templates ask for."""
    normalizer = locator.normalizer
    unsigned = external.largest_count(locator).bit_length()
    return {
        "N": geometry.pixels, "B": geometry.bits, "W": geometry.window, "G": geometry.group, "AREA": geometry.min_area,
        "CONTEXT": geometry.context, "WORDS": geometry.words, "WORD_BITS": geometry.word_bits,
        "TIME_BITS": geometry.time_bits, "N_LOG2": geometry.pixels.bit_length() - 1, "BANKS": geometry.banks,
        "BANKS_LOG2": max(1, geometry.banks.bit_length() - 1), "SLOTS": geometry.slots, "STAGES": stages,
        "CODE": locator.output.bits, "CODES": locator.outputs, "FRAC": locator.output.frac,
        "DATA": geometry.data_bits, "MAX_COLS": geometry.max_cols, "MAX_ROWS": geometry.max_rows,
        "STORED_WORDS": geometry.stored_words, "PLACES_LOG2": geometry.places.bit_length() - 1,
        "DARK": int(geometry.dark), "THRESHOLDS": int(geometry.thresholds), "MAP": max(1, geometry.map_bits),
        "MAP_PORTS": _map_ports(geometry.map_bits, "    input ", "    output ", ","),
        "MAP_WIRES": _map_ports(0 if geometry.map_bits else 1, "    wire ", "    wire ", ";", " = 1'b0"),
        "SIGNIFICANCE": int(geometry.significance), "BAD_LOG2": max(0, geometry.bad_words.bit_length() - 1),
        "STORED_RECORD": f"{stored.record(geometry, locator):056x}", "DIGEST": locator.digest,
        "COUNT": _count(geometry.bits, normalizer.count_bits, unsigned), "EXTERNAL": int(geometry.external),
        "IN": geometry.window**2 * normalizer.count_bits,
        "EXTERNAL_PORTS": external.ports(locator) if geometry.external else "",
    }  # fmt: skip


#: A circuit inside of the front end: its core, and registers behind it where the features take longer.
_INSIDE = """\
    wire [{out}-1:0] result;
    {core} core (.clk(clk), .model_inp(counts), .model_out(result));
    wire [CODES*CODE-1:0] codes = {found};
    {late}
    assign {{back, back_end, back_entry, back_wrong}} = 0;"""


def _count(bits: int, count_bits: int, unsigned: int) -> str:
    """A count of ``bits`` to one of the locator, saturated to its ``unsigned`` lowest of ``count_bits`` bits."""
    to = f"assign counts[i*{count_bits} +: {count_bits}] = "
    low = f"window[i*{bits} +: {min(bits, unsigned)}]"
    if bits > unsigned:
        low = f"(|window[i*{bits}+{unsigned} +: {bits - unsigned}] ? {{{unsigned}{{1'b1}}}} : {low})"
    zeros = count_bits - min(bits, unsigned)
    return to + (f"{{{zeros}'d0, {low}}};" if zeros else f"{low};")


def _map_ports(bits: int, given: str, answered: str, end: str, value: str = "") -> str:
    """The stream of maps as ports or, where there is none, as wires; nothing for 0 bits."""
    names = (f"[{bits}-1:0] s_map_tdata", "s_map_tuser", "s_map_tlast", "s_map_tvalid")
    lines = [*(f"{given}{name}{value}{end}" for name in names), f"{answered}s_map_tready{end}"]
    return "\n".join(lines) if bits else ""


def _late(width: int, clocks: int) -> str:
    if not clocks:
        return "assign codes_late = codes;"
    names = [f"codes_{k + 1}" for k in range(clocks)]
    moves = " ".join(f"{to} <= {of};" for of, to in zip(["codes", *names], names, strict=False))
    return (
        f"reg [{width - 1}:0] {', '.join(names)};\n    always @(posedge clk) begin {moves} end\n"
        f"    assign codes_late = {names[-1]};"
    )


def _constants(locator: IntegerLocator, geometry: Geometry) -> dict[str, str]:
    """The values of the registers that are constants of the build, by name."""
    shape = geometry.pixels | geometry.bits << 8 | geometry.window << 16 | geometry.min_area << 24
    options = sum(registers.OPTIONS[name] for name in geometry.options) | geometry.bad_words << 16
    digits = {f"digest_{k}": f"32'h{locator.digest[8 * k : 8 * k + 8]}" for k in range(8)}
    return {
        "identity": f"32'h{registers.IDENTITY:08x}", "version": f"32'd{registers.VERSION}", "shape": f"32'h{shape:08x}",
        "largest": f"32'h{geometry.max_rows << 16 | geometry.max_cols:08x}",
        "options": f"32'h{options:08x}",
        "output": f"32'h{locator.outputs << 8 | locator.output.frac:08x}", **digits,
    }  # fmt: skip
