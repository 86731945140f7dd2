"""Advice on patch size and background boxes, and whether the networks that ship know such spots."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.fit.pseudo_voigt import AMPLITUDE
from braggnn_edge.inspection.facts import Look
from braggnn_edge.inspection.transfer import widths_of

_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
#: The networks that ship: file, and name in sentences.
_SHIPPED = {
    "universal.npz": "the universal network",
    "universal_layers.json": "the layered network for firmware",
    "universal_circuit.json": "the circuit",
}
#: A network covers a scan when at least this share of its spots is within what it was trained on.
_COVERED = 0.95


@cache
def trained_ranges() -> dict[str, dict[str, Any]]:
    """Of every network that ships: size of its patches, and the family that it was trained on."""
    found = {}
    for name in _SHIPPED:
        path = _WEIGHTS / name
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                document = json.loads(str(file["document"]))
        else:
            document = json.loads(path.read_text(encoding="utf-8"))
        found[name] = {"size": document["size"], **document["provenance"]["family"]}
    return found


def patch_size(found: Look) -> tuple[int | None, str]:
    """Side of a patch that covers a spot and leaves 2 to 4 px, as the paper has it; and why."""
    if found.spots is None or found.spots.extent.value is None:
        return None, "too few lone spots to say how large a patch has to be"
    extent = found.spots.extent.value
    size = int(np.ceil(extent)) + 2
    size += 1 - size % 2
    return (
        size,
        f"90 % of the spots are at most {extent:.0f} px long, to the threshold or twice the FWHM; 2 to 4 px are left",
    )


def coverage(found: Look) -> list[dict[str, Any]]:
    """Of every network that ships, the share of the spots that are like those it was trained on, and a sentence."""
    spots = found.spots
    if spots is None or not spots.good.any():
        return []
    major, minor = (width[spots.good] for width in widths_of(spots.fitted))
    gain = found.detector.gain.value
    height = spots.fitted.parameters[spots.good, AMPLITUDE] / (gain or 1.0)
    background = found.pixels.background.value
    lines = []
    for name, family in trained_ranges().items():
        low, high = family["fwhm"]
        wide = float(((minor >= low) & (minor <= high)).mean())
        tall = float(((height >= family["heights"][0]) & (height <= family["heights"][1])).mean()) if gain else None
        problems = []
        if wide < _COVERED:
            problems.append(f"only {wide:.0%} of the spots are {low:g} to {high:g} px wide, as it was trained on")
        if tall is not None and tall < _COVERED:
            problems.append(f"only {tall:.0%} of the heights are within {family['heights'][0]:g} to "
                            f"{family['heights'][1]:,.0f} photons")  # fmt: skip
        if gain and not 0.9 * family["gain"][0] <= gain <= 1.1 * family["gain"][1]:
            problems.append(f"a gain of {gain:.3g} is outside {family['gain'][0]:g} to {family['gain'][1]:g}")
        if found.detector.read_noise.value is not None and found.detector.read_noise.value > family["read_noise"][1]:
            problems.append(f"a read noise of {found.detector.read_noise.value:.3g} is above "
                            f"{family['read_noise'][1]:g} counts")  # fmt: skip
        if gain and background is not None and background / gain > family["background"][1]:
            problems.append(f"a background of {background / gain:.3g} photons is above {family['background'][1]:g}")
        if float(np.percentile(major, 75)) > 0.5 * family["size"]:
            problems.append(f"a quarter of the spots is longer than half of its {family['size']} px patch")
        said = "; ".join(problems) if problems else "these spots are within what it was trained on"
        if not gain:
            said += " (widths alone: without a gain heights in photons are not known)"
        lines.append({"network": name, "covers": not problems, "widths": wide, "heights": tall,
                      "says": f"{_SHIPPED[name]}: {said}"})  # fmt: skip
    return lines
