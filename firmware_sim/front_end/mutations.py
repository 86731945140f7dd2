"""Mutations of the front end: one place of its sources that is wrong, of which the tests must fail.

All of them are built into one simulation: each expression chooses, by a number that the program is given, between
itself and its wrong form. So a survey compiles once and runs the tests once for every number.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from braggnn_edge.core.errors import UserError
from firmware_sim.front_end.mutation_list import MUTATIONS, Mutation
from firmware_sim.front_end.simulate import Simulator, build
from hls.rtl.front_end.geometry import Geometry

TESTS = "tests/test_firmware_sim_front_end.py"
#: Those of a module that the front end of these has not, by its name.
OTHER_TESTS = {"braggnn_fe_external.v": "tests/test_firmware_sim_front_end_external.py"}
ALL_TESTS = (TESTS, *OTHER_TESTS.values())
_ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = (_ROOT / "firmware_sim/front_end", _ROOT / "hls/rtl/front_end", _ROOT / "quant/front_end")


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


def simulator(sources: dict[str, str], geometry: Geometry, build_dir: Path) -> Simulator:
    """The compiled sources, for tests; inside a survey, with its mutation (FRONT_END_MUTANT in the environment, a
    number), built in FRONT_END_BUILD."""
    mutant = int(os.environ.get("FRONT_END_MUTANT", "0"))
    if not mutant:
        return build(sources, geometry, build_dir, optimize="-O0")
    made = build(instrumented(sources), geometry, Path(os.environ["FRONT_END_BUILD"]), optimize="-O0")
    return replace(made, mutant=mutant)


def key() -> str:
    """A digest of all that a survey depends on but the installed packages: sources, list, contract, bench and tests."""
    digest = hashlib.sha256()
    paths = [path for folder in _FOLDERS for path in folder.rglob("*") if path.suffix in (".py", ".v", ".cpp")]
    for path in (*sorted(paths), *map(Path, ALL_TESTS)):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def survey(scratch: Path, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Run the tests of the front end on mutations, numbered from 1: text, whether a test failed, which first, seconds.

    Raises UserError where the tests fail without a mutation, or end in any other way than that all pass or one fails.
    """
    log = scratch / f"tests_{os.getpid()}.log"
    for at, number in enumerate(numbers):
        if at == 0:
            # Number 0 would be the plain sources; one beyond the last is none of the mutations, in the same program.
            status, first = _tested(log, len(MUTATIONS) + 1, scratch, ALL_TESTS)
            if status:
                raise UserError(f"the tests fail without a mutation: {first or log.read_text()}; mend that first")
        one = MUTATIONS[number - 1]
        begun = time.monotonic()
        status, first = _tested(log, number, scratch, (OTHER_TESTS.get(one.module, TESTS),))
        if status not in (0, 1) or (status == 1 and not first):
            raise UserError(f"mutation {number}, {one.text!r}: the tests ended with status {status}: {log.read_text()}")
        yield {
            "number": number, "mutation": one.text, "module": one.module, "noticed": status == 1,
            "first_failure": first, "seconds": round(time.monotonic() - begun, 1),
        }  # fmt: skip


def _tested(log: Path, mutant: int, scratch: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run the tests in a process of their own, which has all imports already: its status, and the first that fails."""
    child = os.fork()
    if child == 0:
        os.environ.update(FRONT_END_MUTANT=str(mutant), FRONT_END_BUILD=str(scratch))
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            options = ["-n", "0", "-q", "-x", "-p", "no:cacheprovider"]
            os._exit(int(pytest.main([*options, "-m", "not slow", "-k", "not nothing_to_say", *tests])))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    failed = [line for line in log.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return status, failed[0].split(" - ")[0].split("::")[-1] if failed else ""
