"""Cycles and resources of the non-local block's kernel, ``nnet_nonlocal.h``: its four processes and their FIFOs."""

from dataclasses import replace

import numpy as np

from hls.cost.cycles import Process, Step
from hls.cost.parts import ARRAY, PRODUCT_DEPTH, LayerCost, Multipliers, Stream, levels, limited, signed_bits, sum_depth
from hls.project.attention import check_keys_per_cycle
from quant.contract.attention import NonLocal

#: Places that the kernel adds to FIFOs side by side, its ``skew``.
SKEW = 24


def groups(block: NonLocal, keys_per_cycle: int) -> int:
    """G: cycles for a row of scores, ``keys_per_cycle`` keys in each."""
    check_keys_per_cycle(block, keys_per_cycle)
    return -(-block.keys // keys_per_cycle)


def nonlocal_cost(block: NonLocal, keys_per_cycle: int, io_type: str, source: str, sink: str) -> LayerCost:
    """The block between the streams (or arrays) ``source`` and ``sink``; the stream behind it is not among its own."""
    return LayerCost(
        name=block.name,
        kind=block.kind,
        interval=nonlocal_interval(block, keys_per_cycle),
        multipliers=_multipliers(block, keys_per_cycle),
        constant_bits=sum(
            part.weight.size * part.weight_format.bits + part.bias.size * part.accumulator.bits
            for part in (block.theta, block.phi, block.g, block.out)
        ),
        table_bits=keys_per_cycle * len(block.exp_table) * block.exponential.bits
        + len(block.reciprocal_table) * block.reciprocal.bits,
        buffer_bits=_window_bits(block),
        streams=_streams(block, keys_per_cycle),
        processes=_processes(block, keys_per_cycle, io_type, source, sink),
    )


def _multipliers(block: NonLocal, keys_per_cycle: int) -> tuple[Multipliers, ...]:
    """Of project, score, weigh and merge. project and merge share theirs over the G cycles of a position."""
    inner, channels = block.theta.weight.shape[:2]
    g = groups(block, keys_per_cycle)
    incoming = np.concatenate([part.weight.ravel() for part in (block.theta, block.phi, block.g)])
    weights = max(part.weight_format.bits for part in (block.theta, block.phi, block.g))
    project = limited(incoming, -(-3 * channels * inner // g))
    merge = limited(block.out.weight, -(-(channels + 1) * inner // g), others=inner)
    # What is shared is as wide as the widest product: a * R.
    quotient = (block.weighted.bits, signed_bits(block.reciprocal))
    return (
        Multipliers(project, (weights, signed_bits(block.input))),
        Multipliers(keys_per_cycle * inner, (signed_bits(block.query), signed_bits(block.key))),
        Multipliers(keys_per_cycle * inner, (signed_bits(block.exponential), signed_bits(block.value))),
        Multipliers(merge, quotient),
    )


def _depths(block: NonLocal, keys_per_cycle: int) -> tuple[int, int, int, int]:
    """Assumed depths of project, score, weigh, merge: beside sums of products, a cycle for a difference, a table, a
    level of the tree that finds the lanes' maximum, its comparison with the row's, and each of merge's two shifts.
    """
    inner, channels = block.theta.weight.shape[:2]
    score = sum_depth(inner) + levels(keys_per_cycle) + 1
    weigh = 1 + 1 + sum_depth(keys_per_cycle)
    merge = 1 + 1 + PRODUCT_DEPTH + 1 + sum_depth(inner)
    return sum_depth(channels), score, weigh, merge


def nonlocal_interval(block: NonLocal, keys_per_cycle: int) -> int:
    """Cycles between two patches: N G for each process and its depth; or half of what a buffer of keys and values is
    held, there being two: while project fills it, until the first row's maximum is known, while weigh reads it.
    """
    g = groups(block, keys_per_cycle)
    depths = _depths(block, keys_per_cycle)
    return block.positions * g + max(*depths, -(-(g + sum(depths[:3])) // 2))


def _window_bits(block: NonLocal) -> int:
    """Maxima of one row of open windows, where keys and values are pooled."""
    windows = block.side // block.pool if block.pool > 1 else 0
    return windows * len(block.theta.weight) * (block.key.bits + block.value.bits)


def _streams(block: NonLocal, keys_per_cycle: int) -> tuple[Stream, ...]:
    """Inside the block. No row can start before the last key is there, so a whole patch waits in pixels and queries.

    The least depths leave out what is in flight in pipelines, for which the kernel adds ``SKEW``
    (docs/explanation/back_pressure.md).
    """
    inner, channels = block.theta.weight.shape[:2]
    n, g, name = block.positions, groups(block, keys_per_cycle), block.name
    banks = g * keys_per_cycle * inner
    return (
        Stream(f"{name}.keys", 2, 1, banks * block.key.bits, ARRAY),
        Stream(f"{name}.values", 2, 1, banks * block.value.bits, ARRAY),
        Stream(f"{name}.pixels", 2 * n, n, channels * block.input.bits),
        Stream(f"{name}.queries", 2 * n, n, inner * block.query.bits),
        Stream(f"{name}.scores", 2 * g + SKEW, g, keys_per_cycle * block.score.bits),
        Stream(f"{name}.maxima", 2 + SKEW, 1, block.score.bits),
        Stream(f"{name}.weighted", 2 + SKEW, 1, inner * block.weighted.bits),
        Stream(f"{name}.totals", 2 + SKEW, 1, block.total.bits),
    )


def _processes(block: NonLocal, keys_per_cycle: int, io_type: str, source: str, sink: str) -> tuple[Process, ...]:
    """As the kernel reads and writes: what happens once a patch is at its first or last step."""
    n, g, name = block.positions, groups(block, keys_per_cycle), block.name
    array = io_type == "io_parallel"
    pixels, queries, scores, maxima, weighted, totals, keys, values = (
        f"{name}.{what}" for what in ("pixels", "queries", "scores", "maxima", "weighted", "totals", "keys", "values")
    )
    row = range(g)
    steps = {
        "project": _edged(
            [Step(g, () if array else (source,), (pixels, queries))] * n,
            (f"{keys}.free", f"{values}.free", *((source,) if array else ())),
            (keys, values, *((f"{source}.free",) if array else ())),
        ),
        "score": _edged(
            [Step(1, (queries,) if i == 0 else (), (scores, maxima) if i == g - 1 else (scores,)) for i in row] * n,
            (keys,),
            (f"{keys}.free",),
        ),
        "weigh": _edged(
            [Step(1, (scores, maxima) if i == 0 else (scores,), (weighted, totals) if i == g - 1 else ()) for i in row]
            * n,
            (values,),
            (f"{values}.free",),
        ),
        "merge": _edged(
            [Step(g, (weighted, totals, pixels), () if array else (sink,))] * n,
            (f"{sink}.free",) if array else (),
            (sink,) if array else (),
        ),
    }
    depths = _depths(block, keys_per_cycle)
    return tuple(Process(f"{name}.{role}", steps[role], depth) for role, depth in zip(steps, depths, strict=True))


def _edged(steps: list[Step], first_reads: tuple[str, ...], last_writes: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps of a patch, the first reading and the last writing more than the others."""
    steps[0] = replace(steps[0], reads=(*first_reads, *steps[0].reads))
    steps[-1] = replace(steps[-1], writes=(*steps[-1].writes, *last_writes))
    return tuple(steps)
