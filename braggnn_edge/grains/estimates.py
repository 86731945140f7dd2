"""Positions of all peaks of a table by every estimator: the truth, the fit, trivial estimators, networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
) -> dict[str, Estimate]:
    """Positions by every estimator: the truth where it is known, the fit, then those of ``chosen``, then networks.

    chosen: of ``[grains]``; found: the networks; gains: counts a photon of each scan of the table. A network whose
    sigma supposes photons is given counts divided by the gain.
    """
    p = table.peaks
    pixel = np.stack([p["row"], p["col"]], 1).astype(np.float64)
    result: dict[str, Estimate] = {}
    if table.has(TRUTH).any():
        result[TRUTH] = Estimate(pixel + table.offsets(TRUTH))
    fitted = table.has(FIT)[:, None]
    with np.errstate(invalid="ignore"):  # of a fit that has not converged the variance means nothing
        spread = np.sqrt(np.stack([p["voigt_var_row"], p["voigt_var_col"]], 1))
    result[FIT] = Estimate(np.where(fitted, pixel + table.offsets(FIT), np.nan), np.where(fitted, spread, np.nan))
    patches, blocks = table.patches(), range(0, len(p), BLOCK)
    for name in chosen:
        if name in TRIVIAL:
            parts = [ESTIMATORS[name](patches[start : start + BLOCK]) for start in blocks]
            result[name] = Estimate(pixel + np.concatenate(parts))
    gain = np.asarray(gains, np.float32)[p["scan"]]
    for name, network in found.items():
        edge = margin(network, table.crops.shape[1]) or 0
        inner = slice(edge, edge + network.size)
        seen = np.ascontiguousarray(table.crops[:, inner, inner])
        if network.photons and (gain != 1).any():
            seen = (seen / gain[:, None, None]).astype(np.float32)
        if network.sigma:
            offsets, sigma = network.locate_with_sigma(seen)
            result[name] = Estimate(pixel + offsets, sigma)
        else:
            result[name] = Estimate(pixel + network.locate(seen))
    return result
