"""Traced operations as Verilog: da4ml's generator, with the look-up tables written into the sources."""

import re
from importlib.resources import files as package_files

from da4ml.codegen.rtl.verilog import comb_logic_gen, pipeline_logic_gen
from da4ml.codegen.rtl.verilog.comb import table_mem_gen
from da4ml.trace.pipeline import to_pipeline
from da4ml.types import CombLogic, Pipeline

#: An instance of a table in da4ml's Verilog: input bits, output bits, file of its entries.
_TABLE = re.compile(r'lookup_table #\((\d+), (\d+), "(table_[0-9a-f-]+)\.mem"\) ')


def pipelined(comb: CombLogic, cutoff: float) -> Pipeline:
    """Operations cut into stages of at most ``cutoff`` adders or levels of tables each (hls/trace_ops.py).

    da4ml's second pass, which searches a smaller cutoff for the same number of stages, would reckon all delays anew.
    """
    return to_pipeline(comb, cutoff, retiming=False)


def core_files(logic: CombLogic | Pipeline, name: str) -> dict[str, str]:
    """Verilog sources by file name: a module ``name`` (``clk`` if pipelined, ``model_inp``, ``model_out``) and below.

    A pipeline of n stages has registers before each stage and after the last: its latency is n + 1 clock cycles.
    Tables are case statements and not, as da4ml writes them, files that every tool seeks in another directory.
    """
    if isinstance(logic, Pipeline):
        modules = pipeline_logic_gen(logic, name, timescale=None)
        memories = {key: text for stage in logic.solutions for key, text in table_mem_gen(stage).items()}
    else:
        modules = {name: comb_logic_gen(logic, name)}
        memories = table_mem_gen(logic)
    found: dict[str, str] = {}

    def instance(match: re.Match[str]) -> str:
        table = match[3].replace("-", "_")
        found[table] = _table(table, int(match[1]), int(match[2]), memories[f"{match[3]}.mem"].split("\n"))
        return f"{table} "

    found |= {key: _TABLE.sub(instance, text) for key, text in modules.items()}
    text = "".join(found.values())
    library = package_files("da4ml.codegen.rtl.verilog") / "source"
    for source in sorted(library.iterdir(), key=lambda path: path.name):
        module = source.name.removesuffix(".v")
        if source.name.endswith(".v") and f" {module} #(" in text:
            found[module] = source.read_text()
    return {f"{key}.v": found[key] for key in sorted(found)}


def _table(name: str, inputs: int, outputs: int, entries: list[str]) -> str:
    """A table as a module; entries are hexadecimal, X where no input leads."""
    lines = [f"module {name} (input [{inputs - 1}:0] in, output reg [{outputs - 1}:0] out);"]
    lines += ["    always @(*) case (in)"]
    for index, entry in enumerate(entries):
        if "X" not in entry:
            lines.append(f"        {inputs}'d{index}: out = {outputs}'h{entry};")
    return "\n".join([*lines, f"        default: out = {{{outputs}{{1'bx}}}};", "    endcase", "endmodule", ""])
