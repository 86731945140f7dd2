"""Step (c): 800,000 patches from pinned host memory to positions there, and the fraction of the card's limit.

The limit is the larger of two times, both measured in this run: that of the bytes over the bus, by plain pinned copies,
and that of the operations at the rate of a large matrix product in the same precision. Every form of a network is
timed, in the order of what is expected of it; the fastest one counts.
"""

import itertools
import sys
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch
from precision import forms, reference
from torch import Tensor

from braggnn_edge.locate.device import DevicePipeline
from braggnn_edge.locate.fused import multiplications
from braggnn_edge.universal.network import SHIPPED, load

PATCHES = 800_000
POOL = 100_000
#: Seconds that torch.compile may take; it is tried last.
COMPILE = 60.0


def operations(name: str) -> int:
    """Of a patch: two for each multiplication."""
    if name != "universal":
        return 2 * multiplications(common.SPECS[name], common.SIZE, fused=True)
    net, _, _ = load(SHIPPED)
    widths = (net.size**2 + 1, *net.dense, 4)
    return 2 * 8 * sum(a * b for a, b in itertools.pairwise(widths))


def main() -> int:
    step = common.Step(__doc__)
    torch.backends.cudnn.benchmark = True  # shapes stay the same
    bus = step.attempt("bus", lambda: common.bus(step))
    rates = step.attempt("products", lambda: common.products(step))
    count, pool = step.pick(PATCHES, 600), step.pick(POOL, 200)
    made = common.spots(pool, step.device)[0].cpu()
    source = step.pinned(made.repeat(count // pool, 1, 1).numpy())
    step.put("patches", count)
    step.put("bytes", {"to_device": source.nbytes, "to_host": {"2 answers": 8 * count, "6 answers": 24 * count}})
    step.put("clocks_before", common.clocks())
    checked = made[: step.pick(512, 100)]
    for name in ("published", "compact", "universal"):
        exact = reference(name, checked)
        found: dict[str, dict[str, Any]] = {}
        for form, make in forms(name, step.device).items():
            if "triton" in form and not step.cuda:
                step.put(f"{name}: {form}", {"skipped": "Triton's interpreter is too slow for a rate"})
                continue
            done = step.attempt(
                f"{name}: {form}",
                lambda n=name, m=make, e=exact, f=form: one(step, n, m, f, source, pool, e, bus, rates),
                10.0,
            )
            if done is not None:
                found[form] = done
        if found:
            best = min(found, key=lambda form: found[form]["ms"])
            step.put(f"{name}: best", {"form": best, **found[best]})
            step.attempt(f"{name}: best, eager", lambda n=name, b=best: eager(step, n, b, source), 10.0)
    step.put("clocks_after", common.clocks())
    if not step.rehearsal:  # for a CPU it takes a minute
        step.attempt("published: compiled", lambda: compiled(step, source), COMPILE)
    return 0


def one(
    step: common.Step, name: str, make: Callable[[], Callable[[Tensor], Tensor]], form: str, source: Tensor, pool: int,
    exact: np.ndarray, bus: dict[str, float] | None, rates: dict[str, float] | None,
) -> dict[str, Any]:  # fmt: skip
    """One form: end to end at the best of some sizes of a piece, on the device alone, its error and its limit."""
    outputs, host, module = 6 if name == "universal" else 2, source.numpy(), make()
    sizes = (8192, 16_384, 32_768) if not step.rehearsal else (128,)
    tried: dict[int, dict[str, Any]] = {}
    for size in sizes:
        try:
            pipeline = DevicePipeline(module, step.device, outputs, step=size)
            answers = pipeline(host)
            tried[size] = {**step.wall_ms(lambda p=pipeline: p(host)), "captured": pipeline.captured}
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        finally:
            pipeline = None
    if not tried:
        raise torch.OutOfMemoryError(f"pieces of {sizes[0]} patches do not fit")
    size = min(tried, key=lambda s: tried[s]["ms"])
    piece = source[:size].to(step.device)
    with torch.inference_mode():
        alone = step.device_ms(lambda: module(piece))["ms"] * len(source) / len(piece)
    ended = {
        "step": size,
        **tried[size],
        "by_step_ms": {str(s): t["ms"] for s, t in tried.items()},
        "device_alone_ms": alone,
        "patches_per_s": len(source) / (1e-3 * tried[size]["ms"]),
        "error_px": common.errors(answers[: len(exact)], exact),
        "repeats_px": repeats(answers, pool),
    }
    if bus and rates:
        limits = {
            # The bus carries both ways at a time.
            "bus_ms": 1e3 * max(source.nbytes / bus["to_device"], 4 * outputs * len(source) / bus["to_host"]),
            "arithmetic_ms": 1e3 * operations(name) * len(source) / rates[form.rsplit(maxsplit=1)[-1]],
        }
        ended |= limits | {"of_the_limit": max(limits.values()) / tried[size]["ms"]}
    return ended


def repeats(answers: np.ndarray, pool: int) -> float:
    """Largest difference, px, between the answers to patches that come again; ValueError where it is no rounding.

    A piece that was computed before it had arrived, or overwritten before it had left, would show here.
    """
    several = answers[:, :2].reshape(-1, pool, 2)
    largest = float(np.abs(several - several[0]).max())
    if not largest < common.WRONG:
        raise ValueError(f"the same patches have answers {largest} px apart: copies and computation overlap wrongly")
    return largest


def eager(step: common.Step, name: str, form: str, source: Tensor) -> dict[str, Any]:
    """The best form without graphs, to see what they are worth."""
    pipeline = DevicePipeline(
        forms(name, step.device)[form](), step.device, 6 if name == "universal" else 2, graphs=False
    )
    return step.wall_ms(lambda: pipeline(source.numpy()), rounds=3)


def compiled(step: common.Step, source: Tensor) -> dict[str, Any]:
    """What torch.compile makes of the layers, of full pieces alone: it compiles for one shape."""
    form = f"torch {'float16' if step.cuda else 'float32'}"
    module, size = torch.compile(forms("published", step.device)[form](), dynamic=False), step.pick(16_384, 100)
    pipeline = DevicePipeline(module, step.device, 2, step=size, graphs=False)
    whole = source[: len(source) // size * size].numpy()
    return {"form": form, "patches": len(whole), **step.wall_ms(lambda: pipeline(whole), rounds=3)}


if __name__ == "__main__":
    sys.exit(main())
