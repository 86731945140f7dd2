"""Stage "universal": patches of the family are drawn, a network is trained on them, and its sigma calibrated."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from braggnn_edge.core.checkout import maker
from braggnn_edge.core.progress import clock
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation import figures
from braggnn_edge.evaluation.metrics import distances, summary, validation_figures
from braggnn_edge.locate.calibration import Calibration
from braggnn_edge.simulation import family
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.dataset import Batches, Peaks
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.pace import EVERY, FIRST
from braggnn_edge.training.train import check_learned, choose_device
from braggnn_edge.universal.network import LIMITS, CentroidCorrection, UniversalNetwork, laplace_loss, save
from braggnn_edge.universal.spec import UniversalSpec

#: Shards of validation begin here: training never reaches so far.
VALIDATION_SHARD = 1 << 20
#: Nodes of the calibration, at most.
NODES = 16
#: Errors of a node of the calibration, at least, unless equal shares are smaller than twice that.
_LEAST_IN_A_NODE = 200
#: Patches answered at a time.
_CHUNK = 2048


def answers(network: CentroidCorrection, patches: NDArray[np.generic], eight: bool = True) -> NDArray[np.float32]:
    """Answers (n, 4) to patches (n, size, size) in counts: offset (row, col) px, ln b of each; or of one look each."""
    device = next(network.parameters()).device
    found = [np.zeros((0, 4), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(patches), _CHUNK):
            block = torch.from_numpy(np.ascontiguousarray(patches[start : start + _CHUNK], np.float32)).to(device)
            found.append((network.answer(block) if eight else network(block)).cpu().numpy())
    return np.concatenate(found)


def calibrated(found: NDArray[np.floating], offsets: NDArray[np.floating], nodes: int = NODES) -> Calibration:
    """The half-widths that hold 68.27 and 95.45 % of the errors of answers (n, 4) for true offsets (n, 2) px.

    There are at most ``nodes`` nodes, at equal numbers of answers, as far as equal ln b allow it: those of integers are
    often equal, and belong to one node. Half-widths do not fall with b.
    """
    log_b = found[:, 2:].astype(np.float64).ravel()
    error = np.abs(found[:, :2].astype(np.float64) - offsets).ravel()
    order = np.argsort(log_b, kind="stable")
    found_at: list[tuple[float, float, float]] = []
    for some in np.split(order, _borders(log_b[order], min(nodes, NODES, len(order)))):
        widths = (max(float(np.quantile(error[some], share)), 1e-6) for share in (0.6827, 0.9545))
        sigma_at, wide_at = map(math.log, widths)
        found_at.append((float(np.median(log_b[some])), sigma_at, wide_at))
    at, sigma, wide = np.array(found_at).T
    sigma, wide = np.maximum.accumulate(sigma), np.maximum.accumulate(wide)
    ends = [(k, limit - at[k]) for k, limit in zip((0, -1), LIMITS, strict=True)]  # beyond the nodes in proportion to b
    below, above = ([(one[k] + step) for one in (at, sigma, wide)] for k, step in ends)
    columns = np.stack([below, *zip(at, sigma, wide, strict=True), above], 1)
    return Calibration(*(tuple(map(float, one)) for one in columns))


def _borders(ordered: NDArray[np.float64], nodes: int) -> list[int]:
    """Where ``ordered`` values (n,) are cut into at most ``nodes`` groups of about equal size, none through equal ones.

    A border among equal values moves to the nearer end of them; a group that would be too small for its quantiles joins
    the next one.
    """
    sizes = [len(some) for some in np.array_split(ordered, nodes)]
    least = min(_LEAST_IN_A_NODE, sizes[-1] // 2)
    found: list[int] = []
    for border in np.cumsum(sizes[:-1]).tolist():
        begin, end = (int(np.searchsorted(ordered, ordered[border], side)) for side in ("left", "right"))
        moved = begin if border - begin <= end - border else end
        if moved - (found[-1] if found else 0) >= max(least, 1) and len(ordered) - moved >= max(least, 1):
            found.append(moved)
    return found


class Drawn:
    """Says now and then how many patches are drawn."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._began = say, time.monotonic()
        self._due = self._began + FIRST

    def __call__(self, done: int, wanted: int) -> None:
        now = time.monotonic()
        if now >= self._due or done == wanted:
            left = round((now - self._began) / done * (wanted - done))
            self._say(f"  drawn {done:,} of {wanted:,} patches" + (f", {clock(left)} left" if left else ""))
            self._due = now + EVERY


def train(
    spec: UniversalSpec,
    drawn: FamilySpec,
    seed: int,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> UniversalNetwork:
    """Draw the family's patches, train, calibrate; write ``universal.npz``, ``universal.json`` and ``curves.png``.

    The same for the same spec, seed, commit, machine and thread count. Raises UserError when it has not learned.
    """
    device, made_by = choose_device(), maker()
    patches = family.draw(drawn, seed, spec.patches, 0, workers, Drawn(say))
    held = family.draw(drawn, seed, spec.validation, VALIDATION_SHARD, workers)
    peaks = Peaks(torch.from_numpy(patches.counts), torch.from_numpy(patches.offsets), drawn.size, 0)
    del patches
    batches = Batches(
        Peaks(peaks.crops.to(device), peaks.offsets.to(device), drawn.size, 0), spec.loop.batch, 0, seed, True
    )
    torch.manual_seed(seed)
    network = UniversalNetwork(drawn.size, spec.dense).to(device)
    weights = sum(parameter.numel() for parameter in network.parameters())
    say(f"universal: {weights} parameters, {spec.patches} patches, {spec.validation} held out")

    def loss(module: nn.Module, iteration: int) -> Tensor:
        counts, offsets = batches(iteration)
        return laplace_loss(module(counts), offsets, spec.beta)

    def evaluate() -> dict[str, float]:
        return validation_figures(distances(answers(network, held.counts, eight=False)[:, :2], held.offsets))

    history = optimize(network, loss, evaluate, spec.loop, directory / "universal.checkpoint", say)
    found = answers(network, held.counts)
    check_learned(found[:, :2].astype(np.float64), held.offsets.astype(np.float64), "universal")
    calibration = calibrated(found, held.offsets)
    errors = summary(found[:, :2], held.offsets, "truth")
    provenance = {
        **made_by, "seed": seed, "training": asdict(spec), "family": asdict(drawn), "validation_px": errors,
    }  # fmt: skip
    save(network, calibration, provenance, directory / "universal.npz")
    write_json(directory / "universal.json", {"history": history, "calibration": vars(calibration), **provenance})
    figures.learning_curves({"universal": history}, directory / "curves.png")
    say("  held out, px: " + "  ".join(f"{key} {errors[key]:.3f}" for key in ("p50", "p75", "p95", "p99_5")))
    (directory / "universal.checkpoint").unlink(missing_ok=True)
    return network


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`train` with the tables of the configuration."""
    cfg = context.cfg
    train(cfg["universal"], cfg["family"], cfg.seed, directory, context.workers, context.say)
