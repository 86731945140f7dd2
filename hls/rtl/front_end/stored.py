"""The stored frame: a spot that the firmware finds and locates on demand, and the record that must come of it."""

import struct

import numpy as np

from hls.rtl.front_end.geometry import REACH, Geometry
from quant.contract.arithmetic import Codes
from quant.contract.locator import IntegerLocator


def spot(geometry: Geometry) -> tuple[Codes, int]:
    """The counts (window, window) of a lone spot, brightest at its centre, and a threshold that leaves a core of it."""
    top = (1 << geometry.bits) - 1
    across = np.arange(geometry.window) - geometry.half
    # Off centre by less than half a pixel, so that neither code is that of a symmetric spot.
    shape = np.exp(-((across[:, None] - 0.21) ** 2) / 2.4 - (across[None, :] + 0.33) ** 2 / 1.6)
    return np.floor(top * (0.04 + 0.9 * shape)).astype(np.int64), top // 8


def source(geometry: Geometry) -> str:
    """The Verilog of the stored frame: a word of ``{above, count}`` for a row and an index."""
    counts, threshold = spot(geometry)
    bits, n = geometry.bits, geometry.pixels
    width = n * (bits + 1)
    lines = [
        "// The stored frame: a row and a word's index to the word's pixels, {above, count} each, the first lowest.",
        f"module braggnn_fe_stored (input [3:0] row, input [{geometry.word_bits - 1}:0] index, "
        f"output reg [{width - 1}:0] pixels);",
        "    always @(*) begin",
        f"        pixels = {width}'d0;",
        "        case (row)",
    ]
    for row in range(geometry.window):
        lines += [f"            4'd{row}:", "                case (index)"]
        for index in range(geometry.stored_words):
            word = 0
            for k, count in enumerate(counts[row, index * n : (index + 1) * n].tolist()):
                word |= (int(count > threshold) << bits | count) << k * (bits + 1)
            lines.append(f"                    {index}: pixels = {width}'h{word:x};")
        lines += ["                    default: ;", "                endcase"]
    return "\n".join([*lines, "            default: ;", "        endcase", "    end", "endmodule", ""])


def record(geometry: Geometry, locator: IntegerLocator) -> int:
    """The record of the stored frame's peak without its frame number: 28 bytes, the first the lowest."""
    counts, threshold = spot(geometry)
    half, frac = geometry.half, locator.output.frac
    edge = (locator.size - locator.window) // 2
    codes = locator.run(locator.codes(np.pad(counts, edge)[None]))[0].tolist()
    row, col = ((half << frac) + code for code in codes[:2])
    sigma = [*codes, 0, 0][2:4]
    near = counts[half - REACH : half + REACH + 1, half - REACH : half + REACH + 1]
    total = int(near[near > threshold].sum())
    packed = struct.pack("<iihhIIHHHBB", row, col, *sigma, int(counts[half, half]), total, half, half, 0, 0, 1)
    return int.from_bytes(packed, "little")
