"""A locator outside of the front end: the two streams to it and from it, and what passes on them.

``m_patch`` has the counts of a patch, one a beat, and tlast with the last; ``s_position`` has a beat with all codes of
a patch, in the order of the patches. Both are as HLS projects in io_stream have them (docs/reference/hls_backends.md).
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from hls.project.circuit import whole_bytes
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.stored import spot
from quant.contract.arithmetic import Codes
from quant.contract.block_shift import BlockShift
from quant.contract.locator import IntegerLocator
from quant.front_end.correct import correct
from quant.front_end.rule import find
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import Row, arrived


def stream_bits(locator: IntegerLocator) -> tuple[int, int]:
    """Bits of a count in ``m_patch`` and of a code in ``s_position``: whole bytes."""
    return whole_bytes(locator.normalizer.count_bits), whole_bytes(locator.output.bits)


def largest_count(locator: IntegerLocator) -> int:
    """The largest count that a locator takes; larger ones are saturated to it."""
    normalizer = locator.normalizer
    return (1 << normalizer.count_bits - (not isinstance(normalizer, BlockShift))) - 1


def patches_of(front: FrontEnd, rows: Iterable[Row], locator: IntegerLocator) -> NDArray[np.integer]:
    """The patches (n, window, window) that leave for a stream of rows, in their order, where no peak is dropped."""
    found = [find(front, correct(front, one.counts, one.bad)).windows for one in arrived(front, rows)]
    none = np.zeros((0, front.window, front.window), np.int64)
    return np.minimum(np.concatenate([none, *found]), largest_count(locator))


def stored_patch(geometry: Geometry, locator: IntegerLocator) -> NDArray[np.integer]:
    """The patch (1, window, window) of the stored frame."""
    return np.minimum(spot(geometry)[0][None], largest_count(locator))


def beats(codes: Codes, locator: IntegerLocator) -> NDArray[np.uint8]:
    """The bytes (n, k) of beats of ``s_position`` for codes (n, outputs), the first the lowest. Raises UserError for
    codes of another shape."""
    if codes.ndim != 2 or codes.shape[1] != locator.outputs:
        raise UserError(f"codes {codes.shape}: expected (n, {locator.outputs}), as the locator answers")
    wide = np.ascontiguousarray(codes, "<i8").view(np.uint8).reshape(len(codes), codes.shape[1], 8)
    width = stream_bits(locator)[1] // 8
    return np.ascontiguousarray(wide[:, :, :width]).reshape(len(codes), codes.shape[1] * width)


def texts(front: FrontEnd, rows: Iterable[Row], locator: IntegerLocator) -> dict[str, str]:
    """:func:`lines` of the patches that leave for a stream of rows."""
    return lines(patches_of(front, rows, locator), locator)


def lines(patches: NDArray[np.integer], locator: IntegerLocator) -> dict[str, str]:
    """A line a patch, all its counts as one hexadecimal number, the first lowest ("patches"), and of each the beat that
    answers it ("positions")."""
    port = stream_bits(locator)[0] // 8
    counts = np.ascontiguousarray(patches, "<i8").view(np.uint8).reshape(len(patches), locator.window**2, 8)
    words = {
        "patches": counts[:, :, :port].reshape(len(patches), locator.window**2 * port),
        "positions": beats(locator.run(locator.inputs(patches)), locator),
    }
    return {kind: "".join(f"{bytes(row[::-1].tolist()).hex()}\n" for row in found) for kind, found in words.items()}


def instance(locator: IntegerLocator) -> str:
    """The locator's place in the top module."""
    port, slot = stream_bits(locator)
    return f"""\
    braggnn_fe_external #(
        .W(W), .COUNT({locator.normalizer.count_bits}), .PORT({port}), .CODE(CODE), .SLOT({slot}), .CODES(CODES),
        .ENTRY(ENTRY), .PLACES_LOG2(PLACES_LOG2), .AHEAD(LATER + 5)
    ) external_locator (
        .clk(clk), .rst(rst), .counts(counts), .keep(keep), .edge_(keep_edge), .entry(entry), .end_in(end_taken),
        .end_entry(end_entry), .patch_data(m_patch_tdata), .patch_last(m_patch_tlast), .patch_valid(m_patch_tvalid),
        .patch_ready(m_patch_tready), .position_data(s_position_tdata), .position_user(s_position_tuser),
        .position_valid(s_position_tvalid), .position_ready(s_position_tready), .found(back), .found_end(back_end),
        .found_entry(back_entry), .result(codes_late), .wrong_length(back_wrong)
    );"""


def ports(locator: IntegerLocator) -> str:
    """The ports of both streams, a declaration a line."""
    port, slot = stream_bits(locator)
    names = (
        f"output [{port}-1:0] m_patch_tdata", "output m_patch_tlast", "output m_patch_tvalid", "input m_patch_tready",
        f"input [{locator.outputs * slot}-1:0] s_position_tdata", "input s_position_tuser", "input s_position_tvalid",
        "output s_position_tready",
    )  # fmt: skip
    return "\n".join(f"    {name}," for name in names)
