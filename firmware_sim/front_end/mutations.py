"""Mutations of the front end: one place of its sources that is wrong, of which the tests must fail.

All of them are built into one simulation: each expression chooses, by a number that the program is given, between
itself and its wrong form. So a survey compiles once and runs the tests once for every number.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braggnn_edge.core.errors import UserError
from firmware_sim.front_end.mutation_list import MUTATIONS, Mutation

TESTS = "tests/test_firmware_sim_front_end.py"
#: Those of a module that the front end of these has not, by its name.
OTHER_TESTS = {"braggnn_fe_external.v": "tests/test_firmware_sim_front_end_external.py"}


def instrumented(sources: dict[str, str]) -> dict[str, str]:
    """The sources with all mutations of their modules in them, chosen by ``+mutant=N``, N from 1 on; 0 is none."""
    found = dict(sources)
    for number, one in enumerate(MUTATIONS, 1):
        if one.module in found:
            found[one.module] = _with(found[one.module], number, one)
    for name in {one.module for one in MUTATIONS} & set(found):
        head, body = found[name].split("\n);\n", 1)
        choice = '    integer mutant;\n    initial if (!$value$plusargs("mutant=%d", mutant)) mutant = 0;\n'
        found[name] = f"{head}\n);\n{choice}{body}"
    return found


def _with(text: str, number: int, one: Mutation) -> str:
    place = one.before + one.right
    if text.count(place) != 1:
        raise UserError(f"mutation {number}, {one.text!r}: its place occurs {text.count(place)} times, expected once")
    return text.replace(place, one.before + _choice(number, one.right, one.wrong))


def _choice(number: int, right: str, wrong: str) -> str:
    """An expression that is one or the other; what ends ``right`` and is no part of an expression stays behind it."""
    for end in (" ?", " ? 32'sd0 :", " ? triple4 :", ";", ") begin\n            threshold_now"):
        if right.endswith(end):
            kept = wrong.removesuffix(end)
            return f"(mutant == {number} ? ({kept}) : ({right.removesuffix(end)})){end}"
    if "," in right:  # items of a concatenation
        right, wrong = f"{{{right}}}", f"{{{wrong}}}"
    return f"(mutant == {number} ? ({wrong}) : ({right}))"


def survey(scratch: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the tests of the front end on each mutation: its text, whether a test failed, and which first."""
    found = []
    for number, one in enumerate((None, *MUTATIONS)):
        name = "none" if one is None else one.text
        # Number 0 would be the plain sources; one beyond the last is none of the mutations, in the same program.
        os.environ.update(FRONT_END_MUTANT=str(number or len(MUTATIONS) + 1), FRONT_END_BUILD=str(scratch))
        tests = TESTS if one is None else OTHER_TESTS.get(one.module, TESTS)
        status, first = _tested(scratch / "tests.log", tests)
        if one is None:
            if status:
                raise UserError(f"the tests fail without a mutation: {first}; mend that first")
            continue
        found.append({"mutation": name, "module": one.module, "noticed": status == 1, "first_failure": first})
        say(f"{number:2d} {name}: {first or 'not noticed'}")
    return found


def _tested(log: Path, tests: str) -> tuple[int, str]:
    """Run the tests in a process of their own, which has all imports already: its status, and the first that fails."""
    child = os.fork()
    if child == 0:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            options = (
                "-n",
                "0",
                "-q",
                "-x",
                "-m",
                "not slow",
                "-k",
                "not nothing_to_say",
                "-p",
                "no:cacheprovider",
                tests,
            )
            os._exit(int(pytest.main(list(options))))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    failed = [line for line in log.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return status, failed[0].split(" - ")[0].split("::")[-1] if failed else ""
