"""Traced operations as Verilog or VHDL: da4ml's generators, with the look-up tables written into the sources.

What differs from da4ml's own projects: tables are case statements and not files that every tool seeks in another
directory; the modules' names begin with the design's, so that they meet no others in a larger design; and a
pipeline ends without a register, which whoever uses it adds.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from importlib.resources import files as package_files

from da4ml.trace.pipeline import to_pipeline
from da4ml.types import CombLogic, Pipeline, QInterval, minimal_kif

from hls.rtl import ternary, variants
from hls.rtl.copies import Copied, copied
from hls.rtl.spec import LANGUAGES

#: An instance of a table in da4ml's Verilog and VHDL: input bits, output bits, file of its entries.
_TABLES = {
    "verilog": re.compile(r'lookup_table #\((\d+), (\d+), "(table_[0-9a-f-]+)\.mem"\) '),
    "vhdl": re.compile(
        r'entity work\.lookup_table generic map\(BW_IN=>(\d+),BW_OUT=>(\d+),MEM_FILE=>"(table_[0-9a-f-]+)\.mem"\)'
    ),
}

#: da4ml's library of operators.
_LIBRARY = ("binop", "multiplier", "mux", "negative", "shift_adder")


def pipelined(comb: CombLogic, logic_levels: float) -> Pipeline:
    """Operations cut into stages of at most ``logic_levels`` adders or levels of tables each (hls/rtl/trace_ops.py).

    da4ml's second pass, which searches a smaller cutoff for the same number of stages, would reckon all delays anew.
    """
    return to_pipeline(comb, logic_levels, retiming=False)


def bits_in(logic: CombLogic | Pipeline) -> int:
    """Bits of ``model_inp``."""
    return sum(map(_width, logic.inp_qint))


def bits_out(logic: CombLogic | Pipeline) -> int:
    """Bits of ``model_out``."""
    return sum(map(_width, logic.out_qint))


def _width(interval: QInterval) -> int:
    return int(sum(minimal_kif(interval)))


def core_files(
    logic: CombLogic | Pipeline, name: str, language: str = "verilog", copies: bool = False
) -> dict[str, str]:
    """Sources by file name: a module ``name`` and all below. Ports: ``clk`` (pipelines), ``model_inp``, ``model_out``.

    Inputs are packed, the first in the lowest bits; so are outputs. A pipeline of n stages registers its inputs and
    what goes from stage to stage: ``model_out`` belongs to the inputs of n clock edges before. copies: of
    registers of a pipeline that select more than :data:`hls.rtl.copies.LOADS` bits (in Verilog alone).
    """
    generator = importlib.import_module(f"da4ml.codegen.rtl.{language}")
    stages = logic.solutions if isinstance(logic, Pipeline) else (logic,)
    names = [f"{name}_stage{index}" for index in range(len(stages))] if isinstance(logic, Pipeline) else [name]
    memories: dict[str, str] = {}
    found: dict[str, str] = {}
    further: list[tuple[int, ...]] = []  # of each stage, bits of its input that have copies
    for stage, module in zip(stages, names, strict=True):
        memories |= importlib.import_module("da4ml.codegen.rtl.verilog.comb").table_mem_gen(stage)
        text = generator.comb_logic_gen(stage, module)
        found[module] = _TABLES[language].sub(_table_instance(name, language, memories, found), text)
        if language == "verilog":
            found[module] = ternary.fused(found[module], f"{name}_{ternary.NAME}")
            made = copied(found[module]) if copies and isinstance(logic, Pipeline) else Copied(found[module], ())
            found[module] = made.text
            further.append(made.bits)
    if any(f" {name}_{ternary.NAME} #(" in text for text in found.values()):
        found[f"{name}_{ternary.NAME}"] = variants.source(f"{name}_{ternary.NAME}")
    if isinstance(logic, Pipeline):
        found[name] = _verilog_pipeline(logic, name, further) if language == "verilog" else _vhdl_pipeline(logic, name)
    return _with_library(found, name, language)


def _with_library(found: dict[str, str], name: str, language: str) -> dict[str, str]:
    """The sources, and those of da4ml's operators that they use, renamed."""
    suffix = LANGUAGES[language]
    use = re.compile(rf" ({'|'.join(_LIBRARY)}) #\(" if language == "verilog" else rf"work\.({'|'.join(_LIBRARY)})\b")
    used = sorted({module for text in found.values() for module in use.findall(text)})
    rename = (lambda m: f" {name}_{m[1]} #(") if language == "verilog" else (lambda m: f"work.{name}_{m[1]}")
    result = {key: use.sub(rename, text) for key, text in found.items()}
    library = package_files(f"da4ml.codegen.rtl.{language}") / "source"
    for module in used:
        text = (library / f"{module}{suffix}").read_text()
        text = re.sub(r"`timescale.*\n+", "", text)  # these sources alone would have one
        result[f"{name}_{module}"] = re.sub(rf"\b{module}\b", f"{name}_{module}", text)
    return {f"{key}{suffix}": result[key].rstrip("\n") + "\n" for key in sorted(result)}


def _table_instance(
    name: str, language: str, memories: dict[str, str], found: dict[str, str]
) -> Callable[[re.Match[str]], str]:
    """Replaces the instance of a table in a file by that of a module of its own, which is put into ``found``."""

    def instance(match: re.Match[str]) -> str:
        table = f"{name}_{match[3].replace('-', '_')}"
        entries = memories[f"{match[3]}.mem"].split("\n")
        make = _verilog_table if language == "verilog" else _vhdl_table
        found[table] = make(table, int(match[1]), int(match[2]), entries)
        return f"{table} " if language == "verilog" else f"entity work.{table}"

    return instance


def _verilog_table(name: str, inputs: int, outputs: int, entries: list[str]) -> str:
    """A table as a module; entries are hexadecimal, X where no input leads."""
    lines = [f"module {name} (input [{inputs - 1}:0] in, output reg [{outputs - 1}:0] out);"]
    lines += ["    always @(*) case (in)"]
    lines += [
        f"        {inputs}'d{index}: out = {outputs}'h{entry};"
        for index, entry in enumerate(entries)
        if "X" not in entry
    ]
    return "\n".join([*lines, f"        default: out = {{{outputs}{{1'bx}}}};", "    endcase", "endmodule", ""])


def _vhdl_table(name: str, inputs: int, outputs: int, entries: list[str]) -> str:
    lines = [
        "library ieee;", "use ieee.std_logic_1164.all;", f"entity {name} is port(",
        f"    inp : in std_logic_vector({inputs - 1} downto 0);",
        f"    outp : out std_logic_vector({outputs - 1} downto 0));", f"end entity {name};",
        f"architecture rtl of {name} is", "begin", "    with inp select outp <=",
    ]  # fmt: skip
    for index, entry in enumerate(entries):
        if "X" not in entry:
            lines.append(f'        "{int(entry, 16):0{outputs}b}" when "{index:0{inputs}b}",')
    return "\n".join([*lines, f'        "{"-" * outputs}" when others;', "end architecture rtl;", ""])


def _verilog_pipeline(logic: Pipeline, name: str, copies: Sequence[tuple[int, ...]]) -> str:
    """The stages in a row; copies: bits of a stage's input that have further registers, which no tool may merge."""
    widths = [bits_in(stage) for stage in logic.solutions]
    last = len(widths) - 1
    lines = [
        f"module {name} (", "    input clk,", f"    input [{widths[0] - 1}:0] model_inp,",
        f"    output [{bits_out(logic) - 1}:0] model_out", ");",
    ]  # fmt: skip
    lines += [f"    reg [{width - 1}:0] stage{index}_inp;" for index, width in enumerate(widths)]
    lines += [f"    wire [{width - 1}:0] stage{index}_out;" for index, width in enumerate(widths[1:])]
    lines += [
        f'    (* keep = "true", dont_merge *) reg [{len(bits) - 1}:0] stage{index}_copies;'
        for index, bits in enumerate(copies)
        if bits
    ]
    for index in range(len(widths)):
        to = "model_out" if index == last else f"stage{index}_out"
        more = f", .copies(stage{index}_copies)" if copies[index] else ""
        lines.append(f"    {name}_stage{index} stage{index} (.model_inp(stage{index}_inp){more}, .model_out({to}));")
    lines += ["    always @(posedge clk) begin", "        stage0_inp <= model_inp;"]
    lines += [f"        stage{index}_inp <= stage{index - 1}_out;" for index in range(1, len(widths))]
    lines.append("    end")
    for index, bits in enumerate(copies):
        if bits:
            source = "model_inp" if index == 0 else f"stage{index - 1}_out"
            joined = ", ".join(f"{source}[{bit}]" for bit in reversed(bits))
            lines.append(f"    (* keep *) always @(posedge clk) stage{index}_copies <= {{{joined}}};")
    return "\n".join([*lines, "endmodule", ""])


def _vhdl_pipeline(logic: Pipeline, name: str) -> str:
    widths = [bits_in(stage) for stage in logic.solutions]
    last = len(widths) - 1
    vector = "std_logic_vector({} downto 0)"
    lines = [
        "library ieee;", "use ieee.std_logic_1164.all;", f"entity {name} is port(", "    clk : in std_logic;",
        f"    model_inp : in {vector.format(widths[0] - 1)};",
        f"    model_out : out {vector.format(bits_out(logic) - 1)});", f"end entity {name};",
        f"architecture rtl of {name} is",
    ]  # fmt: skip
    lines += [f"    signal stage{index}_inp : {vector.format(width - 1)};" for index, width in enumerate(widths)]
    lines += [f"    signal stage{index}_out : {vector.format(width - 1)};" for index, width in enumerate(widths[1:])]
    lines.append("begin")
    for index in range(len(widths)):
        to = "model_out" if index == last else f"stage{index}_out"
        lines.append(
            f"    stage{index} : entity work.{name}_stage{index} port map(model_inp=>stage{index}_inp,model_out=>{to});"
        )
    lines += ["    process(clk) begin", "        if rising_edge(clk) then", "            stage0_inp <= model_inp;"]
    lines += [f"            stage{index}_inp <= stage{index - 1}_out;" for index in range(1, len(widths))]
    return "\n".join([*lines, "        end if;", "    end process;", "end architecture rtl;", ""])
