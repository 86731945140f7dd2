"""The network's layers as three Triton kernels, which leave out what eager torch writes to memory and reads back.

`front` takes counts to the first activation (normalization, first convolution, non-local block), a patch a program;
`convolution` is a 3 x 3 layer on channels-last images; `head` is the last one together with the first dense layer. See
:mod:`braggnn_edge.locate.triton_network` for the arrays. Triton's interpreter (TRITON_INTERPRET=1) runs them on a CPU.
"""

import triton
import triton.language as tl


@triton.jit
def front(
    patches, out, query, shift, centre, mixing, bias, slope,
    SIZE: tl.constexpr, PIXELS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, ATTENTION: tl.constexpr,
):  # fmt: skip
    """Counts (n, SIZE, SIZE) to activations (n, SIDE, SIDE, CHANNELS), SIDE = SIZE - 2.

    query, centre, mixing: (16, 16), (16, CHANNELS), (16, CHANNELS), of which 9 rows count; query and shift in units of
    ln 2, so that the softmax is one of powers of two. PIXELS, POSITIONS: powers
    of two that hold SIZE^2 and SIDE^2.
    """
    SIDE: tl.constexpr = SIZE - 2
    patch = tl.program_id(0).to(tl.int64)
    source = patches + patch * (SIZE * SIZE)
    pixel = tl.arange(0, PIXELS)
    inside = pixel < SIZE * SIZE
    counts = tl.load(source + pixel, mask=inside, other=0).to(tl.float32)
    low = tl.min(tl.where(inside, counts, float("inf")))
    span = tl.max(tl.where(inside, counts, float("-inf"))) - low
    scale = 1.0 / tl.where(span > 0, span, 1.0)
    position, tap, channel = tl.arange(0, POSITIONS), tl.arange(0, 16), tl.arange(0, CHANNELS)
    valid = position < SIDE * SIDE
    there = valid[:, None] & (tap < 9)[None, :]
    at = ((position // SIDE) * SIZE + position % SIDE)[:, None] + ((tap // 3) * SIZE + tap % 3)[None, :]
    window = (tl.load(source + at, mask=there, other=0).to(tl.float32) - low) * scale
    narrow = out.dtype.element_ty
    u = tl.where(there, window, 0.0).to(narrow)
    weights = tap[:, None] * CHANNELS + channel[None, :]
    y = tl.dot(u, tl.load(centre + weights)) + tl.load(bias + channel)[None, :]
    if ATTENTION:
        asked = tl.dot(u, tl.load(query + tap[:, None] * 16 + tap[None, :])) + tl.load(shift + tap)[None, :]
        scores = tl.dot(asked.to(narrow), tl.trans(u))
        scores = tl.where(valid[None, :], scores, -1e30)
        share = tl.exp2(scores - tl.max(scores, 1)[:, None])
        mixed = tl.dot(share.to(narrow), u) / tl.sum(share, 1)[:, None]
        y += tl.dot(mixed.to(narrow), tl.load(mixing + weights))
    y = tl.where(y > 0, y, y * slope).to(narrow)
    target = out + patch * (SIDE * SIDE * CHANNELS) + position[:, None] * CHANNELS + channel[None, :]
    tl.store(target, y, mask=valid[:, None])


@triton.jit(do_not_specialize=["rows"])
def convolution(
    x, weight, bias, out, slope, rows,
    SIDE: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(n, SIDE + 2, SIDE + 2, INPUTS) to (n, SIDE, SIDE, OUTPUTS), rows = n * SIDE^2.

    weight: (9, INPUTS, OUTPUTS).
    """
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = row < rows
    patch, place = row // (SIDE * SIDE), row % (SIDE * SIDE)
    first = (patch * (SIDE + 2) + place // SIDE) * (SIDE + 2) + place % SIDE
    channel, output = tl.arange(0, INPUTS), tl.arange(0, OUTPUTS)
    total = tl.zeros((BLOCK, OUTPUTS), tl.float32)
    for tap in range(9):
        at = (first + (tap // 3) * (SIDE + 2) + tap % 3).to(tl.int64) * INPUTS
        image = tl.load(x + at[:, None] + channel[None, :], mask=valid[:, None], other=0.0)
        kernel = tl.load(weight + (tap * INPUTS + channel)[:, None] * OUTPUTS + output[None, :])
        total = tl.dot(image, kernel, total)
    total += tl.load(bias + output)[None, :]
    total = tl.where(total > 0, total, total * slope).to(out.dtype.element_ty)
    tl.store(out + row.to(tl.int64)[:, None] * OUTPUTS + output[None, :], total, mask=valid[:, None])


@triton.jit(do_not_specialize=["count"])
def head(
    x, weight, bias, dense, out, slope, count,
    SIDE: tl.constexpr, INPUTS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(n, SIDE + 2, SIDE + 2, INPUTS) through a convolution to CHANNELS and, float32, a dense layer: (n, OUTPUTS).

    dense: (SIDE^2, CHANNELS, OUTPUTS); its bias is left to the caller. BLOCK patches are rows side by side.
    """
    patch = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = patch < count
    source, channel, output = tl.arange(0, INPUTS), tl.arange(0, CHANNELS), tl.arange(0, OUTPUTS)
    answer = tl.zeros((BLOCK, OUTPUTS), tl.float32)
    for place in range(SIDE * SIDE):
        first = (patch * (SIDE + 2) + place // SIDE) * (SIDE + 2) + place % SIDE
        total = tl.zeros((BLOCK, CHANNELS), tl.float32)
        for tap in range(9):
            at = (first + (tap // 3) * (SIDE + 2) + tap % 3).to(tl.int64) * INPUTS
            image = tl.load(x + at[:, None] + source[None, :], mask=valid[:, None], other=0.0)
            kernel = tl.load(weight + (tap * INPUTS + source)[:, None] * CHANNELS + channel[None, :])
            total = tl.dot(image, kernel, total)
        total += tl.load(bias + channel)[None, :]
        total = tl.where(total > 0, total, total * slope)
        rows = tl.load(dense + (place * CHANNELS + channel)[:, None] * OUTPUTS + output[None, :])
        answer = tl.dot(total, rows, answer, input_precision="ieee")
    tl.store(out + patch[:, None] * OUTPUTS + output[None, :], answer, mask=valid[:, None])
