"""Analytic cycles of a whole locator, from counts to position: what stands around the network, and the network.

As :mod:`hls.cost.network`, by counting in the source; nothing here is a synthesis result. An io_stream project
is a dataflow region (hls/templates/locator_stream.cpp); an io_parallel one without convolutions is one pipeline.
"""

from collections.abc import Sequence
from dataclasses import replace

from hls.cost.cycles import Process, Step
from hls.cost.network import NetworkCost, network_cost
from hls.cost.parts import ARRAY, FIFO, PRODUCT_DEPTH, LayerCost, Multipliers, Stream, levels, passes
from hls.project.circuit import stream_depths, whole_bytes
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.locator import IntegerLocator
from quant.contract.normalize import Normalizer

#: Assumed depths: a count read, compared and written; a look-up table; a sum; saturation and the beat.
_RECEIVE, _TABLE, _SUM, _ANSWER = 2, 1, 1, 2

#: Of the leading zeros of a word, of a shift, each.
_ZEROS = _SHIFT = 1


def locator_cost(
    locator: IntegerLocator, *,
    io_type: str, reuse: int | Sequence[int] = 1, keys_per_cycle: int = 1, strategy: str = "Latency",
) -> NetworkCost:  # fmt: skip
    """Count the project that :func:`hls.project.circuit.write_circuit_project` writes with the same options.

    The layers are those of the network, between those that receive the counts, encode them, estimate the centroid
    where there is one, and answer. Raises UserError as :func:`hls.cost.network.network_cost` does.
    """
    streams = io_type == "io_stream"
    inner = network_cost(
        locator.network, io_type=io_type, reuse=reuse, keys_per_cycle=keys_per_cycle, strategy=strategy,
        source="input", sink="result",
    )  # fmt: skip
    if streams:
        before, after = _streaming(locator)
    else:
        before, after = _unrolled(locator)
    layers = (*before, *inner.layers, *after)
    if inner.pipelined:
        layers = tuple(replace(layer, interval=inner.interval_cycles, streams=()) for layer in layers)
    return replace(inner, layers=layers)


def _code_depth(normalizer: Normalizer | BlockShift) -> int:
    """From a count and the patch's scale to a code: a difference, a shift, a product where the normalizer has one."""
    return _SUM + _SHIFT + (PRODUCT_DEPTH if isinstance(normalizer, Normalizer) else 0)


def _scale_depth(normalizer: Normalizer | BlockShift) -> int:
    """From the range to what all pixels share: leading zeros, and a table where the normalizer has one."""
    return _SUM + _ZEROS + (_SHIFT + _TABLE if isinstance(normalizer, Normalizer) else 0)


def _normalizer_multipliers(normalizer: Normalizer | BlockShift, count: int) -> tuple[Multipliers, ...]:
    if isinstance(normalizer, BlockShift):
        return ()
    bits = normalizer.mantissa_bits + 1
    return (Multipliers(count, (bits, bits)),)


def _quotient_depth(base: Centroid) -> int:
    """From a sum and its moments to the offset: leading zeros, a shift, a table, a product, a shift."""
    del base  # the same for every width
    return _ZEROS + _SHIFT + _TABLE + PRODUCT_DEPTH + _SHIFT


def _centroid_multipliers(base: Centroid, moments: int) -> tuple[Multipliers, ...]:
    """Two quotients; and of the moments as many products of a weight and a small number."""
    weight = max(base.weights).bit_length() + 1
    quotient = Multipliers(2, (base.numerator_bits + 1, base.reciprocal_bits + 1))
    return (quotient, Multipliers(moments, (weight, base.reach_bits + 1))) if moments else (quotient,)


def _streaming(locator: IntegerLocator) -> tuple[tuple[LayerCost, ...], tuple[LayerCost, ...]]:
    """A count a cycle; each process is a patch further than the one behind it."""
    pixels, normalizer, base = locator.window**2, locator.normalizer, locator.centroid
    count_bits, depths = normalizer.count_bits, stream_depths(locator)
    scale_bits = count_bits + 6 + (normalizer.mantissa_bits + 1 if isinstance(normalizer, Normalizer) else count_bits)
    flat = bool(locator.network.exponent)
    inputs = pixels + locator.network.exponent
    word = normalizer.bits * (inputs if flat else 1)
    codes = ("codes",) if base is not None else ()

    each = [Step(1, (), ("pixels",))] * pixels
    each[-1] = Step(1, (), ("pixels", "scales", "flags"))
    depth = _RECEIVE + _scale_depth(normalizer)
    received = LayerCost(
        name="receive", kind="counts", interval=pixels + depth, processes=(Process("receive", tuple(each), depth),),
        streams=(
            Stream("pixels", depths.pixels, pixels, count_bits), Stream("scales", 2, 1, scale_bits),
            Stream("flags", depths.around, 1, 1),
        ),
    )  # fmt: skip

    writes = codes if flat else ("input", *codes)
    each = [Step(1, ("pixels",), writes)] * pixels
    each[0] = Step(1, ("pixels", "scales"), writes)
    if flat:
        each[-1] = Step(1, ("pixels",), ("input", *codes))
    depth = _code_depth(normalizer)
    encoded = LayerCost(
        name="encode", kind="normalizer", interval=pixels + depth,
        processes=(Process("encode", tuple(each), depth),), multipliers=_normalizer_multipliers(normalizer, 1),
        table_bits=_table_bits(normalizer), streams=(Stream("input", depths.input, 1, word, FIFO),),
    )  # fmt: skip
    before, reads = [received, encoded], ["result", "flags"]
    if base is not None:
        each = [Step(1, ("codes",))] * pixels
        each[-1] = Step(1, ("codes",), ("bases",))
        depth = _TABLE + PRODUCT_DEPTH + _SUM + _quotient_depth(base)
        offset = 2 * (base.reach_bits + base.frac + 2)
        before.append(
            LayerCost(
                name="estimate",
                kind="centroid",
                interval=pixels + depth,
                processes=(Process("estimate", tuple(each), depth),),
                multipliers=_centroid_multipliers(base, 2),
                table_bits=_centroid_table_bits(base),
                streams=(Stream("codes", depths.codes, 1, normalizer.bits), Stream("bases", depths.around, 1, offset)),
            )
        )
        reads.append("bases")
    answered = LayerCost(
        name="answer", kind="sum", interval=1 + _ANSWER,
        processes=(Process("answer", (Step(1, tuple(reads)),), _ANSWER),),
        streams=(Stream("result", 2, 1, locator.outputs * whole_bytes(locator.output.bits)),),
    )  # fmt: skip
    return tuple(before), (answered,)


def _unrolled(locator: IntegerLocator) -> tuple[tuple[LayerCost, ...], tuple[LayerCost, ...]]:
    """All pixels of a patch in one cycle, a patch every cycle, one behind the other."""
    pixels, normalizer, base = locator.window**2, locator.normalizer, locator.centroid
    depth = levels(pixels) + _SUM + _scale_depth(normalizer) + _code_depth(normalizer)
    encoded = LayerCost(
        name="encode", kind="normalizer", interval=1 + depth, processes=(passes("encode", [1], depth, "", "input"),),
        multipliers=_normalizer_multipliers(normalizer, pixels), table_bits=_table_bits(normalizer),
        streams=(Stream("input", 2, 1, (pixels + locator.network.exponent) * normalizer.bits, ARRAY),),
    )  # fmt: skip
    before = [encoded]
    if base is not None:
        depth = _TABLE + levels(pixels) + PRODUCT_DEPTH + levels(base.window) + _quotient_depth(base)
        places = [abs(place - base.window // 2) for place in range(base.window)]
        before.append(
            LayerCost(
                name="estimate",
                kind="centroid",
                interval=1 + depth,
                processes=(passes("estimate", [1], depth, "", ""),),
                multipliers=_centroid_multipliers(base, 2 * sum(place & (place - 1) > 0 for place in places)),
                table_bits=pixels * len(base.weights) * max(base.weights).bit_length(),
            )
        )
    answered = LayerCost(
        name="answer", kind="sum", interval=1 + _ANSWER, processes=(passes("answer", [1], _ANSWER, "result", ""),),
        streams=(Stream("result", 2, 1, locator.outputs * locator.output.bits, ARRAY),),
    )  # fmt: skip
    return tuple(before), (answered,)


def _table_bits(normalizer: Normalizer | BlockShift) -> int:
    return 0 if isinstance(normalizer, BlockShift) else normalizer.table.size * (normalizer.mantissa_bits + 1)


def _centroid_table_bits(base: Centroid) -> int:
    return len(base.weights) * max(base.weights).bit_length() + len(base.table) * base.reciprocal_bits
