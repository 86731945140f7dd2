"""Step (e): frames of 2048 x 2048 pixels a second, threshold, find, crop and locate on the device."""

import sys
from typing import Any

import common
import numpy as np
import torch
from precision import forms

from braggnn_edge.locate.device_frames import FramePeaks, FramePipeline
from braggnn_edge.peaks.device import find_on_device
from braggnn_edge.peaks.find import detect

THRESHOLD = 60.0


def frames(step: common.Step, count: int, side: int, peaks: int) -> np.ndarray:
    """(count, side, side) uint16 on the host: a background of 12 counts, and spots at random pixels."""
    rng = np.random.default_rng(7)
    spots = common.spots(4096, step.device)[0].cpu().numpy()
    found = rng.poisson(12, (count, side, side)).astype(np.uint16)
    for frame in found:
        row, col = rng.integers(6, side - 6, (2, peaks))
        for r, c, spot in zip(row, col, spots[rng.integers(0, len(spots), peaks)], strict=True):
            place = frame[r - 5 : r + 6, c - 5 : c + 6]
            place[:] = np.minimum(place.astype(np.int64) + spot, 65535)
    return found


def main() -> int:
    step = common.Step(__doc__)
    side, distinct, peaks = step.pick(2048, 96), step.pick(8, 2), step.pick(1000, 8)
    made = frames(step, distinct, side, peaks)
    step.put("frames", {"side": side, "distinct": distinct, "spots": peaks, "rule": "window, reach 3, min_area 4"})
    step.attempt("against the CPU", lambda: against_the_cpu(step, made))
    block = step.pick(16, 2)
    source = step.pinned(np.tile(made, (block // distinct, 1, 1))).numpy()
    blocks = step.pick(16, 2)
    for name, form in (("universal", "float16"), ("published", "float16"), ("published", "triton")):
        if form == "triton" and not step.cuda:
            continue
        chosen = "triton float16" if form == "triton" else f"torch {form if step.cuda else 'float32'}"
        step.attempt(f"{name}: {chosen}", lambda n=name, c=chosen: rate(step, n, c, source, blocks))
    return 0


def rate(step: common.Step, name: str, form: str, source: np.ndarray, blocks: int) -> dict[str, Any]:
    """Frames a second from pinned host memory to lists of peaks there."""
    module = forms(name, step.device)[form]()

    def timed(size: int) -> dict[str, float]:
        pipeline = FramePipeline(module, common.SIZE, step.device, THRESHOLD, outputs=6 if name == "universal" else 2)
        given = [source[i : i + size] for i in range(0, len(source), size)] * blocks
        last: list[FramePeaks] = []

        def call() -> None:
            last[:] = list(pipeline(given))

        found = step.wall_ms(call, rounds=3, warm=1)
        return {**found, "frames": blocks * len(source), "peaks": sum(len(p.frame) for p in last)}

    found, size = common.halved(timed, len(source), 1)
    per_s = found["frames"] / (1e-3 * found["ms"])
    return {"block": size, **found, "frames_per_s": per_s, "bytes_per_s": per_s * source[0].nbytes}


def against_the_cpu(step: common.Step, made: np.ndarray) -> dict[str, Any]:
    """The same rule on the CPU, and the component rule: how many of its peaks are among these."""
    frame, row, col = (
        x.cpu().numpy() for x in find_on_device(torch.from_numpy(made).to(step.device), threshold=THRESHOLD)
    )
    same = find_on_device(torch.from_numpy(made[:1]), threshold=THRESHOLD)
    mine = set(zip(row[frame == 0].tolist(), col[frame == 0].tolist(), strict=True))
    theirs = set(zip(same[1].tolist(), same[2].tolist(), strict=True))
    found = detect(made[0], threshold=THRESHOLD)
    components = found.components[~found.components["edge"]]
    lone = components[(components["maxima"] == 1) & (components["neighbours"] == 0)]
    pairs = lambda rows: set(zip(rows["row"].tolist(), rows["col"].tolist(), strict=True))  # noqa: E731
    return {
        "peaks": len(mine), "equal_to_the_cpu": mine == theirs, "components": len(components),
        "components_found": len(mine & pairs(components)), "lone": len(lone), "lone_found": len(mine & pairs(lone)),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
