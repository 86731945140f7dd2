"""Positions of all peaks of a table by every estimator: the truth, the fit, trivial estimators, networks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.config import resolve_path
from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.grains.spec import FIT, TRIVIAL
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import INTEGERS, file_of, margin, network_file, open_network
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.table import PeakTable

Floats = NDArray[np.float64]

#: The name of the true positions of a simulated scan.
TRUTH = "truth"
#: Patches that are looked at in one go: this bounds memory.
BLOCK = 1 << 15
#: The networks that a run may have trained, by the names that they have in reports.
_OWN = {
    "float": "train/full.pt", "float_compact": "compact/compact.pt", "universal:trained": "universal/universal.npz",
    "universal:tuned": "tune/universal.npz", "quantized": "qat/locator.json",
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Positions of peaks. position: (n, 2) row and col in px, NaN where there is none; sigma: (n, 2) px, or None."""

    position: Floats
    sigma: Floats | None = None


def network_files(context: Context) -> dict[str, Path]:
    """The files of the networks, by estimator: those of ``[grains]``, then the run's own that are there.

    One of the run's that has the bytes of another is left out. Raises UserError for a network that is none.
    """
    spec, found = context.cfg["grains"], dict[str, Path]()
    for name in spec.estimators:
        if name == FIT or name in TRIVIAL:
            continue
        shipped = name in (SHIPPED, *INTEGERS)
        path = file_of(network_file(name if shipped else str(resolve_path(name, context.cfg.folder))))
        found[name if shipped else f"network:{path.parent.name}/{path.stem}"] = path
    if spec.own:
        known = {sha256(path) for path in found.values()}
        for name, inside in _OWN.items():
            path = context.run / inside
            if path.is_file() and sha256(path) not in known:
                found[name] = path
    return found


def networks(context: Context) -> dict[str, Locator]:
    """The networks, opened. Raises UserError for one that needs larger patches than the label stage cuts."""
    peaks = context.cfg["peaks"]
    widest = peaks.size + 2 * peaks.shift
    found = {}
    for name, path in network_files(context).items():
        found[name] = open_network(SHIPPED if name == SHIPPED else path)
        if margin(found[name], widest) is None:
            raise UserError(
                f"grains: network {name} takes patches of {found[name].size} px, those of this scan have "
                f"{peaks.size} px and a margin of {peaks.shift} px; set size in [peaks] to {found[name].size}, or "
                "leave the network out of estimators"
            )
    return found


def subject(names: Sequence[str]) -> str:
    """Of estimators the one that a report speaks of: the firmware's integers where they are there."""
    wanted = ("quantized", "universal_circuit", "universal_layers")
    first = [name for name in wanted if name in names]
    return (first + [name for name in names if name not in (TRUTH, FIT, *TRIVIAL)] + [*names[1:], *names])[0]


def estimates(
    table: PeakTable, chosen: Sequence[str], found: Mapping[str, Locator], gains: Sequence[float]
) -> Iterator[tuple[str, Callable[[], Estimate]]]:
    """What gives positions by every estimator: the truth where it is known, the fit, those of ``chosen``, networks.

    chosen: of ``[grains]``; found: the networks; gains: counts a photon of each scan of the table. A network whose
    sigma supposes photons is given counts divided by the gain.
    """
    p = table.peaks
    pixel = np.stack([p["row"], p["col"]], 1).astype(np.float64)
    if table.has(TRUTH).any():
        yield TRUTH, lambda: Estimate(pixel + table.offsets(TRUTH))
    yield FIT, lambda: _fitted(table, pixel)
    for name in chosen:
        if name in TRIVIAL:
            yield name, partial(_trivial, table, pixel, name)
    gain = np.asarray(gains, np.float32)[p["scan"]]
    for network in found:
        yield network, partial(_by_network, table, pixel, found[network], gain)


def _fitted(table: PeakTable, pixel: Floats) -> Estimate:
    p, fitted = table.peaks, table.has(FIT)[:, None]
    with np.errstate(invalid="ignore"):  # of a fit that has not converged the variance means nothing
        spread = np.sqrt(np.stack([p["voigt_var_row"], p["voigt_var_col"]], 1))
    return Estimate(np.where(fitted, pixel + table.offsets(FIT), np.nan), np.where(fitted, spread, np.nan))


def _trivial(table: PeakTable, pixel: Floats, name: str) -> Estimate:
    patches = table.patches()
    parts = [ESTIMATORS[name](patches[start : start + BLOCK]) for start in range(0, len(pixel), BLOCK)]
    return Estimate(pixel + np.concatenate(parts))


def _by_network(table: PeakTable, pixel: Floats, network: Locator, gain: NDArray[np.float32]) -> Estimate:
    edge = margin(network, table.crops.shape[1]) or 0
    inner = slice(edge, edge + network.size)
    seen = np.ascontiguousarray(table.crops[:, inner, inner])
    if network.photons and (gain != 1).any():
        seen = (seen / gain[:, None, None]).astype(np.float32)
    if network.sigma:
        offsets, sigma = network.locate_with_sigma(seen)
        return Estimate(pixel + offsets, sigma)
    return Estimate(pixel + network.locate(seen))
