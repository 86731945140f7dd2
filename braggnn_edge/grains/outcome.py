"""What the stage "grains" found, as ``grains.json`` and as arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.files import written_aside
from braggnn_edge.evaluation.figures import look
from braggnn_edge.grains.compare import Differences, bias, biased_axes, differences, summary
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.estimates import TRUTH, subject
from braggnn_edge.grains.grain_file import Result, positions
from braggnn_edge.grains.merged import places
from braggnn_edge.grains.spec import FIT

Floats = NDArray[np.float64]
Rows = NDArray[np.void]

#: Shares of the spots from which grains are refined to see how errors go with the number of spots.
SHARES = (0.1, 0.2, 0.4, 1.0)
#: What weighting by sigma did to the grains of an estimator.
BETTER, WORSE, EVEN = "better", "worse", "no clear difference"
#: Residuals of omega beyond this many standard deviations are outliers.
_CLIP = 5.0


@dataclass(frozen=True)
class Outcome:
    """The grains of all estimators.

    runs: by estimator and kind (:data:`braggnn_edge.grains.spec.KINDS`); "plain" is there where the estimator knows
    sigma. used: the lists of reflections of each estimator, which all have the same rows. truth: rows of GRAINS, None
    where it is not known; pixel: um; fewer: of some estimators, grains from :data:`SHARES` of the spots of the fit's,
    all weighing alike.
    """

    lattice: Lattice
    runs: Mapping[str, Mapping[str, Result]]
    used: Mapping[str, list[Rows]]
    truth: Rows | None
    pixel: float
    fewer: Mapping[str, Sequence[Result]]

    @property
    def reference(self) -> str:
        """What positions are compared with: the truth where it is known, else the fit."""
        return FIT if self.truth is None else TRUTH

    def fit_of(self, name: str, kind: str) -> Rows:
        """The fit's grains that those of an estimator are compared with: weighted by sigma if they are."""
        weighted = kind != "plain" and "plain" in self.runs[name]
        return self.runs[FIT]["free" if weighted else "plain"].grains

    def to_truth(self, name: str, kind: str) -> Differences | None:
        """An estimator's grains beside the true ones."""
        if self.truth is None:
            return None
        return differences(self.lattice, self.runs[name][kind].grains, self.truth)

    def to_fit(self, name: str, kind: str) -> Differences | None:
        """An estimator's grains beside those of the fit."""
        if name in (FIT, TRUTH):
            return None
        return differences(self.lattice, self.runs[name][kind].grains, self.fit_of(name, kind))

    @property
    def omega_term(self) -> float:
        """um: what the omega of one spot leaves of a grain's position, by the fit's grains.

        A grain that is turned about the axis of rotation by too much is found turned about it in the sample too, by
        its distance from the axis. Spots come in Friedel pairs, whose errors of omega are the same: half of them count.
        """
        fit = self.runs[FIT]["plain" if "plain" in self.runs[FIT] else "free"]
        off = np.radians(np.abs(fit.spots["residual_omega"]))
        near = off[off <= _CLIP * 1.4826 * max(float(np.median(off)), 1e-12)]
        x, y, _ = positions(fit.grains).T
        return float(np.sqrt(2 * np.mean(np.square(near)) * np.mean(x**2 + y**2)))

    def by_spots(self, name: str) -> list[Differences]:
        """The grains from :data:`SHARES` of the spots beside the reference: the truth, or the fit's from the same."""
        found = []
        for own, of_fit in zip(self.fewer[name], self.fewer[FIT], strict=True):
            other = of_fit.grains if self.truth is None else self.truth
            found.append(differences(self.lattice, own.grains, other))
        return [one for one in found if len(one.pairs)]

    def errors(self, name: str) -> Floats:
        """(m, 2) px: positions minus those of the reference, of the reflections that belong to the fit's grains."""
        spots = self.runs[FIT]["free"].spots
        parts = []
        for number, (own, other) in enumerate(zip(self.used[name], self.used[self.reference], strict=True)):
            rows = spots["reflection"][spots["list"] == number]
            parts.append(places(own[rows]) - places(other[rows]))
        return np.concatenate(parts)


def summarized(outcome: Outcome, least_size: float) -> dict[str, Any]:
    """The document of ``grains.json``; least_size: um, of the true grains that must be found."""
    large = None if outcome.truth is None else outcome.truth["size"] > least_size
    document: dict[str, Any] = {
        "truth": None if large is None else {
            "grains": len(large), "least_size_um": least_size, "above_least_size": int(large.sum()),
        },
        "reference": outcome.reference,
        "subject": subject(list(outcome.runs)),
        "pixel_um": round(outcome.pixel, 3),
        "omega_um": round(outcome.omega_term, 3),
    }  # fmt: skip
    spots = float(np.median(outcome.runs[FIT]["free"].grains["spots"]))
    entries: dict[str, Any] = {}
    for name, runs in outcome.runs.items():
        entry: dict[str, Any] = {"label": look(name).label, "sigma": "plain" in runs}
        if name != outcome.reference:
            entry["bias"] = bias(outcome.errors(name), outcome.pixel, spots)
        entry |= {kind: _run(outcome, name, kind, large) for kind in runs}
        if name in outcome.fewer and entry.get("bias"):
            entry["by_spots"] = _by_spots(outcome, name, entry["bias"])
        entries[name] = entry
    document["estimators"] = entries
    document["weighting"] = _weighting(outcome, entries)
    document["warnings"] = list(_warnings(entries))
    # Of the geometry and the lattice, as the command says them: they are the same for all estimators.
    document["remarks"] = outcome.runs[FIT]["free"].settings.get("remarks", [])
    return document


def _run(outcome: Outcome, name: str, kind: str, large: NDArray[np.bool_] | None) -> dict[str, Any]:
    rows = outcome.runs[name][kind].grains
    entry: dict[str, Any] = {"grains": len(rows)}
    if len(rows):
        entry["spots_p50"] = float(np.median(rows["spots"]))
        entry["completeness_p50"] = round(float(np.median(rows["completeness"])), 4)
    to_truth, to_fit = outcome.to_truth(name, kind), outcome.to_fit(name, kind)
    if to_truth is not None and large is not None:
        there = to_truth.pairs[:, 1]
        entry["found"], entry["false"] = len(there), len(rows) - len(there)
        entry["found_above_least_size"] = int(large[there].sum())
        entry["to_truth"] = summary(to_truth)
    if to_fit is not None:
        entry["to_fit"] = summary(to_fit)
    return entry


def _by_spots(outcome: Outcome, name: str, about: Mapping[str, Any]) -> list[dict[str, float]]:
    """The rms distance to the reference beside :func:`expected`, all reflections weighing alike."""
    return [
        {
            "spots": float(np.median(found.spots)),
            "rms_um": round(float(np.sqrt(np.mean(np.square(found.distance)))), 3),
            "expected_um": round(float(np.sqrt(np.mean(1 / found.spots))) * expected(outcome, about), 3),
        }
        for found in outcome.by_spots(name)
    ]


def expected(outcome: Outcome, about: Mapping[str, Any]) -> float:
    """um: the rms distance of a grain of one spot, which falls by the root of their number.

    sqrt(5) * pixel * s of the errors of row and col, and in squares what omega adds, unless grains are compared with
    the fit's, whose omega is the same.
    """
    omega = outcome.omega_term if outcome.truth is not None else 0.0
    return float(np.hypot(np.sqrt(5) * outcome.pixel * random_term(about), omega))


def random_term(about: Mapping[str, Any]) -> float:
    """s of a spot along an axis, px: the root mean square over both."""
    return float(np.sqrt(np.mean(np.square(about["random_px"]))))


def _weighting(outcome: Outcome, entries: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Median distance to the truth with and without weighting by sigma, the ratio without over with, and a verdict.

    Weighting is called better, or worse, where the median and most of the grains that are found both ways say it.
    """
    found = {}
    for name, entry in entries.items():
        both = [entry.get(kind, {}).get("to_truth", {}).get("position_um", {}).get("p50") for kind in ("free", "plain")]
        if not entry["sigma"] or None in both or both[0] <= 0:
            continue
        distance = []
        for kind in ("free", "plain"):
            if (one := outcome.to_truth(name, kind)) is not None:
                distance.append(dict(zip(one.pairs[:, 1].tolist(), one.distance.tolist(), strict=True)))
        of = distance[0].keys() & distance[1].keys()
        nearer = sum(distance[0][number] < distance[1][number] for number in of)
        verdict = EVEN
        if both[0] < both[1] and 2 * nearer > len(of):
            verdict = BETTER
        elif both[0] > both[1] and 2 * nearer < len(of):
            verdict = WORSE
        found[name] = {
            "weighted_um": both[0], "plain_um": both[1], "gain": round(both[1] / both[0], 3), "nearer": nearer,
            "grains": len(of), "verdict": verdict,
        }  # fmt: skip
    return found


def _warnings(entries: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in entries.items():
        about = entry.get("bias", {})
        for axis in biased_axes(about):
            number = ("row", "col").index(axis)
            yield (
                f"{look(name).label}: its bias of {about['bias_px'][number]:+.4f} px in {axis} is worth "
                f"{about['bias_um'][number]:.2f} um, more than its random term leaves of a grain's position "
                f"({about['random_um'][number]:.2f} um): more spots do not average it away, and its part along the "
                "axis of rotation moves all grains alike"
            )
        if not entry["free"]["grains"]:
            yield f"{look(name).label}: no grain was found from its positions"


def save_arrays(outcome: Outcome, path: Path) -> None:
    """Write every pair of grains: ``<estimator>/<kind>/<to_truth or to_fit>/<pairs, position, degrees, ...>``."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, runs in outcome.runs.items():
        for kind in runs:
            for what, found in (("to_truth", outcome.to_truth(name, kind)), ("to_fit", outcome.to_fit(name, kind))):
                if found is not None:
                    names = ("pairs", "position", "degrees", "strain", "size", "spots")
                    arrays |= {f"{name}/{kind}/{what}/{one}": getattr(found, one) for one in names}
    with written_aside(path) as aside, aside.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
