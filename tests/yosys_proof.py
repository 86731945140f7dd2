"""Proofs by induction with Yosys' SAT solver, of assertions that a test puts into a module."""

from pathlib import Path

from hls.tools import programs as tools


def prove(directory: Path, given: list[tuple[str, str, dict[str, int]]], steps: int = 3) -> None:
    """Prove the assertions of each text, with the name of its module and its parameters, in one run of Yosys.

    Only what an assertion or assumption depends on is looked at. Raises UserError where an assertion does not hold, or
    where it takes more than so many steps of the induction.
    """
    commands = []
    for number, (text, top, parameters) in enumerate(given):
        (directory / f"{number}.sv").write_text(text)
        chosen = "".join(f" -chparam {key} {value}" for key, value in parameters.items())
        # What nothing drives may be anything, at every clock; an optimization would take it for anything that is easy.
        commands.append(
            f"read_verilog -formal -sv {number}.sv; hierarchy -check -top {top}{chosen}; proc; flatten; "
            "setundef -undriven -anyseq; "
            "memory -nomap; memory_map -formal; opt -full; chformal -lower; setundef -anyseq; opt_clean; "
            f"sat -tempinduct -prove-asserts -set-assumes -seq 0 -maxsteps {steps} -verify "
            "t:$assert t:$assume %u %ci*; design -reset"
        )
    tools.call(tools.YOSYS, ["-Q", "-T", "-p", "; ".join(commands)], directory, directory / "yosys.log")


def proved(directory: Path) -> int:
    """How many texts were proved in the last run."""
    return (directory / "yosys.log").read_text().count("Induction step proven: SUCCESS!")
