"""The queues of the front end, proved for all inputs by Yosys' SAT solver, by induction, at small sizes."""

import os
from pathlib import Path

import pytest
from yosys_proof import prove, proved

from braggnn_edge.core.errors import UserError
from hls.rtl.front_end.project import template

FOLDER = Path(__file__).parent
FIFO_USE = (FOLDER / "hls_rtl_fe_fifo_use.sv").read_text()

#: Module, its parameters, and macros of its checks.
FIFO = ("fifo", {"BITS": 3, "LOG2": 2}, {})
#: The history of 16 words of four groups (16 pixels a clock), with the fewest words of margin of which it is proved.
HISTORY = ("queue", {"GROUPS": 4, "WORD_BITS": 2, "TIME_BITS": 4, "MARGIN": 10}, {"ROW": 2})
RASTER = ("queue", {"GROUPS": 2, "WORD_BITS": 2, "TIME_BITS": 4, "MARGIN": 4}, {"ROW": 2, "EXCLUDED": 1})
RECORDS = ("records", {"B": 2, "CODE": 2, "FRAC": 1, "DELAY": 2, "PLACES_LOG2": 2}, {})


def _checked(case, before="", after=""):
    """The text of a module with its checks, its name and parameters; ``after`` in place of ``before``."""
    name, parameters, macros = case
    text = template(f"braggnn_fe_{name}")
    assert text.count(before) == 1 or not before
    text = text.replace(before, after)
    if name != "fifo":  # what waits is seen by the checks
        assert text.count(".empty(") == 1
        text = text.replace(".empty(", ".n(n), .fresh(fresh), .empty(")
    if name == "queue":
        macros = {"LATENCY": 3, "LATE": 2} | macros
    head = "".join(f"`define {key} {value}\n" for key, value in macros.items())
    checks = (FOLDER / f"hls_rtl_fe_{name}.sv").read_text()
    whole = text.replace("endmodule\n", f"{checks}endmodule\n") + ("" if name == "fifo" else FIFO_USE)
    return head + whole, f"braggnn_fe_{name}", parameters


def test_queues_keep_their_order_and_none_overflows(tmp_path):
    given = [_checked(case) for case in (FIFO, HISTORY, RASTER, RECORDS)]
    prove(tmp_path, given, steps=1)
    assert proved(tmp_path) == len(given)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ("fifo", {"BITS": 5, "LOG2": 4}, {}),
        ("queue", {"GROUPS": 2, "WORD_BITS": 2, "TIME_BITS": 4, "MARGIN": 10}, {"ROW": 2}),
        ("queue", {"GROUPS": 8, "WORD_BITS": 2, "TIME_BITS": 4, "MARGIN": 10}, {"ROW": 2}),  # 32 pixels a clock
        ("queue", {"GROUPS": 2, "WORD_BITS": 2, "TIME_BITS": 4, "MARGIN": 4}, {"ROW": 3, "EXCLUDED": 1}),
        ("queue", {"GROUPS": 4, "WORD_BITS": 2, "TIME_BITS": 5, "MARGIN": 10}, {"ROW": 1, "EXCLUDED": 1}),
        pytest.param(
            ("queue", {"GROUPS": 4, "WORD_BITS": 2, "TIME_BITS": 5, "MARGIN": 10}, {"ROW": 2, "EXCLUDED": 1}),
            marks=pytest.mark.skipif("LONG_PROOFS" not in os.environ, reason="takes a minute; set LONG_PROOFS=1"),
        ),
        ("records", {"B": 2, "CODE": 2, "FRAC": 1, "DELAY": 5, "PLACES_LOG2": 4, "CODES": 2}, {}),
    ],
)
def test_larger_queues(case, tmp_path):
    prove(tmp_path, [_checked(case)], steps=1)
    assert proved(tmp_path) == 1


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("case", "before", "after"),
    [
        (FIFO, "reg [LOG2:0] write_at = 0", "reg [LOG2-1:0] write_at = 0"),  # a full one looks empty
        pytest.param(FIFO, "valid <= next != write_at;", "valid <= read_at != write_at;", marks=SLOW),
        pytest.param(FIFO, "read_at <= next;", "read_at <= rst ? 0 : next + (take & put);", marks=SLOW),
        pytest.param(HISTORY, ".LOG2(TIME_BITS)", ".LOG2(TIME_BITS - 1)", marks=SLOW),  # half of the places
        pytest.param(HISTORY, "age >= (1 << TIME_BITS) - MARGIN", "age > (1 << TIME_BITS) - MARGIN", marks=SLOW),
        pytest.param(HISTORY, "left & (left - 1'b1);", "left & (left - 2'd2);", marks=SLOW),
        pytest.param(HISTORY, "positions[2*i +: 2]", "positions[1:0]", marks=SLOW),
        pytest.param(HISTORY, "head_valid & after == 0", "head_valid", marks=SLOW),
        pytest.param(RASTER, "head_valid & after == 0", "head_valid & left == 0", marks=SLOW),  # a clock between words
        (RECORDS, "reg [PLACES_LOG2:0] places = PLACES;", "reg [PLACES_LOG2:0] places = PLACES + 1;"),
        pytest.param(RECORDS, ".LOG2(PLACES_LOG2)", ".LOG2(PLACES_LOG2 - 1)", marks=SLOW),
        pytest.param(RECORDS, "(keep & ~is_stored) - start", "(keep & ~is_stored)", marks=SLOW),  # none for the end
        pytest.param(RECORDS, "(is_stored | places != 0)", "1'b1", marks=SLOW),
        pytest.param(RECORDS, "(v4 | e4) & ~is_stored;", "v4 | e4;", marks=SLOW),
        pytest.param(RECORDS, "peak & ~keep) drops", "peak & ~keep & v4) drops", marks=SLOW),
    ],
)
def test_a_broken_queue_is_not_proved(case, before, after, tmp_path):
    with pytest.raises(UserError, match="yosys"):
        prove(tmp_path, [_checked(case, before, after)], steps=1)
    assert "proof did fail" in (tmp_path / "yosys.log").read_text()
