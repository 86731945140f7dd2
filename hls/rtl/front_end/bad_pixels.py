"""A mask of bad pixels to what a front end loads of it: a pattern of columns, and a list of words in raster order.

for register, value in writes(mask, pixels=16):     # mask: (rows, cols) bool, True where bad; the detector's own
    ...                                             # write the register, while the front end is not enabled
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True, eq=False)
class BadPixels:
    """columns: (words,) pixels of each word that are bad in every row, the first in bit 0. Entries, n of them: row,
    first, last: (n,) neighbouring words of a row, and pixels: (n,) those that are bad in each of them."""

    columns: NDArray[np.int64]
    row: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    pixels: NDArray[np.int64]


def bad_pixels(mask: NDArray[np.bool_], pixels: int) -> BadPixels:
    """What names exactly the bad pixels of a mask (rows, cols), cols a multiple of the pixels a clock."""
    if mask.dtype != bool or mask.shape[1] % pixels:
        raise UserError(
            f"mask is {mask.dtype} {mask.shape}; expected bool with a multiple of {pixels} columns, the pixels a clock"
        )
    always: NDArray[np.bool_] = np.logical_and.reduce(mask, axis=0)
    columns = _words(always[None], pixels)[0]
    rest = _words(mask & ~always, pixels)
    # Whole words and rows stay whole, so that one entry names many.
    whole = (rest > 0) & ((rest | columns) == (1 << pixels) - 1)
    rest[whole | (np.logical_and.reduce(mask, axis=1) & ~mask.all())[:, None]] = (1 << pixels) - 1
    same = np.zeros(rest.shape, bool)
    same[:, 1:] = rest[:, 1:] == rest[:, :-1]
    bad = rest > 0
    begins = bad & ~same
    ends = bad.copy()
    ends[:, :-1] &= ~same[:, 1:]
    row, first = np.nonzero(begins)
    return BadPixels(columns, row, first, np.nonzero(ends)[1], rest[begins])


def writes(mask: NDArray[np.bool_], pixels: int, entries: int | None = None) -> list[tuple[str, int]]:
    """Registers and values that load a mask (rows, cols), in order; the columns of the frame must be set before.

    The columns that are added in front of the stream, up to a multiple of the pixels a clock, are bad: beside them a
    peak has no flag EDGE, and BAD_PIXEL says the same. entries: places of the front end's list, None: not known. Raises
    UserError where they are too few, and for what is no mask.
    """
    if mask.ndim != 2 or mask.dtype != bool or not mask.size:
        raise UserError(f"mask is {mask.dtype} {mask.shape}; expected bool (rows, cols), True where a pixel is bad")
    found = bad_pixels(np.pad(mask, ((0, 0), (0, -mask.shape[1] % pixels)), constant_values=True), pixels)
    if entries is not None and len(found.row) > entries:
        raise UserError(
            f"the mask takes {len(found.row)} entries besides whole columns; the front end has {entries}: build it "
            "with more bad_words"
        )
    wanted = [("bad_clear", 1)]
    used = np.flatnonzero(found.columns)
    wanted += [("bad_columns", int(word)) for word in found.columns[: used[-1] + 1 if len(used) else 0]]
    for row, first, last, word in zip(found.row, found.first, found.last, found.pixels, strict=True):
        wanted += [("bad_row", int(row)), ("bad_span", int(first) | int(last) << 16), ("bad_pixels", int(word))]
    return wanted


def _words(bits: NDArray[np.bool_], pixels: int) -> NDArray[np.int64]:
    """Bits (rows, cols) as words (rows, cols / pixels), the first in bit 0."""
    grouped = bits.reshape(len(bits), -1, pixels).astype(np.int64)
    found: NDArray[np.int64] = (grouped << np.arange(pixels)).sum(axis=2)
    return found
