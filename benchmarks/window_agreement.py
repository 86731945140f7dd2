"""The window rule against the component rule: lone peaks found, peaks that are no maximum, and what labels would cost.

    python benchmarks/window_agreement.py FOLDER --runs runs [--step 4] [--output benchmarks/window_agreement.json]

On every frame the component rule finds significant maxima and lone peaks (as the labels have them), and the front end
(`quant.front_end`) its peaks: without the test of significance, and with 3, 4 and 5 standard deviations of the
detector's noise. The test is applied to the maxima of the component rule, too. A peak is *lone* where a lone peak's
brightest pixel is, *significant* where a significant maximum is, else *insignificant*; it is *extra* where no component
has its brightest pixel.

On simulated frames the truth says more. Of the spots that are expected to stand above the threshold, how many have a
peak; and how many peaks no spot explains, whatever its brightness (:func:`braggnn_edge.simulation.truth.spot_of`). For
comparison the component rule is tried with a higher threshold, too; the spots are those of the lower one.

For components labelled in one pass over the rows: how many of the significant maxima are the brightest of their
component, which is what such a labelling reports; how many rows go by from that pixel to the component's end, before
which it is not known; the most runs in a row.

Scans: both panels of ruby, thaumatin, and the simulated frames of the runs `demo` and `simulated`, which
`braggnn-edge data` makes. FOLDER holds chess_ruby/ and dls_thaumatin/. --step: of ruby and simulated frames every 4th,
say. Where a scenario has a local background, the thresholds of each frame are its own, whole counts.
"""

import argparse
import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core import config, stages
from braggnn_edge.frames.background import threshold_of
from braggnn_edge.frames.scan import Scan, open_scan
from braggnn_edge.label.acquisition import located, open_spec
from braggnn_edge.label.spec import ScanSpec
from braggnn_edge.peaks.components import Runs
from braggnn_edge.peaks.find import detect, is_lone, pixels_above
from braggnn_edge.peaks.significance import SIGHT, Significance, squares
from braggnn_edge.simulation.truth import of_frame, read_truth, spot_of
from quant.front_end.correct import Corrected, correct
from quant.front_end.rule import find
from quant.front_end.spec import FrontEnd

MIN_AREA, SIZE = 4, 11
#: Counts by which the threshold is raised on simulated frames, for what that does instead of the test.
RAISED = (5, 10, 15, 25)
DEVIATIONS = (3.0, 4.0, 5.0)
#: Largest areas of components that are counted together, px.
AREAS = (10, 30, 100, 300, 1_000_000)
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class Case:
    """A scan with the rule of its scenario; every ``step``-th frame is used."""

    name: str
    scan: Scan
    spec: ScanSpec
    step: int
    truth: np.ndarray | None = None


def scenario(name: str) -> dict[str, ScanSpec]:
    """The scans of a scenario by name."""
    cfg = config.load(CONFIGS / f"{name}.toml", stages.tables(), stages.RENAMED_TABLES)
    return {scan.name: located(scan, cfg.folder) for scan in cfg["scan"]}


def cases(runs: Path | None, step: int) -> Iterator[Case]:
    """All of them; the simulated ones where ``runs`` is given."""
    ruby = scenario("chess_ruby")
    for panel in ("ff1", "ff2"):
        yield Case(panel, open_spec(ruby[panel], Path(), None), ruby[panel], step)
    thaumatin = scenario("dls_thaumatin")["thaumatin"]
    yield Case("thaumatin", open_spec(thaumatin, Path(), None), thaumatin, 1)
    if runs is not None:
        for name, own in (("simulated", step), ("demo", 3)):
            spec = scenario(name)["scan"]
            data = runs / name / "data"
            yield Case(name, open_scan("braggnn", data / "scan.h5"), spec, own, read_truth(data / "scan_truth.h5"))


def frames(case: Case) -> Iterator[tuple[int, np.ndarray, np.ndarray | None, np.ndarray | None]]:
    """(index, frame, valid, stored) of every frame that is used; they are read in one go where none are left out."""
    if case.step == 1:
        yield from case.scan.frames_with_stored()
        return
    for index in range(0, case.scan.shape[0], case.step):
        yield from case.scan.frames_with_stored(index, index + 1)


def corrected(case: Case, frame: np.ndarray, valid: np.ndarray | None) -> tuple[FrontEnd, Corrected]:
    """What the front end makes of a frame: counts of 16 bits, thresholds in whole counts."""
    level = np.floor(threshold_of(frame, valid, case.spec))
    front = FrontEnd(
        *frame.shape, threshold=level.astype(np.uint16) if np.ndim(level) else int(level), min_area=MIN_AREA,
        window=SIZE, saturation=int(min(case.spec.detector.saturation, 65535)),
    )  # fmt: skip
    counts = frame if frame.dtype == np.uint16 else frame.clip(0, 65535)
    return front, correct(front, counts, None if valid is None else ~valid)


def labels(frame: Corrected, above: np.ndarray, components: np.ndarray, pixels: np.ndarray, of: np.ndarray) -> Counter:
    """What a labelling in one pass needs: see the module's text."""
    cols = frame.counts.shape[1]
    runs = Runs.of_pixels(above, cols)
    per_row = np.bincount(runs.first // cols)
    below = np.zeros(len(components), np.int64)
    np.maximum.at(below, of, pixels // cols)
    below -= components["row"]
    return Counter(
        most_runs_in_a_row=int(per_row.max(initial=0)), most_rows_to_the_end=int(below.max(initial=0)),
        more_than_16_rows=int((below > 16).sum()),
    )  # fmt: skip


def explained(case: Case, index: int, at: np.ndarray) -> dict[str, int]:
    """Of the peaks at flat indices ``at``: the spots that they find, and those that no spot explains."""
    if case.truth is None:
        return {}
    spots = of_frame(case.truth, index)
    own = spot_of(*np.divmod(at, case.scan.shape[2]), spots)
    seen = np.zeros(len(spots), bool)
    seen[own[own >= 0]] = True
    return {"spots": int((seen & visible(case, spots)).sum()), "unexplained": int((own < 0).sum())}


def by_area(case: Case, index: int, at: np.ndarray, area: np.ndarray, areas: dict[str, Counter[int]]) -> None:
    """Count the maxima at flat indices ``at`` by the area of their component, those with a spot and those without."""
    if case.truth is None:
        return
    own = spot_of(*np.divmod(at, case.scan.shape[2]), of_frame(case.truth, index))
    top = np.array(AREAS)[np.searchsorted(AREAS, area)]
    for name, chosen in (("with a spot", own >= 0), ("without a spot", own < 0)):
        areas[name].update(top[chosen].tolist())


def visible(case: Case, spots: np.ndarray) -> np.ndarray:
    """Which spots are expected to stand above the threshold."""
    return spots["amplitude"] + spots["background"] > case.spec.threshold


def measure(case: Case) -> dict[str, Any]:
    """The row of one scan."""
    detector = case.spec.detector
    tests = {f"{z:g} deviations": Significance.of(z, detector.gain, detector.read_noise) for z in DEVIATIONS}
    counts: Counter[str] = Counter()
    rules = {name: Counter[str]() for name in ("window", *tests, *(f"component rule, {name}" for name in tests))}
    raised = [f"component rule, threshold raised by {more}" for more in RAISED]
    truth = {name: Counter[str]() for name in ("component rule", "brightest of components", *rules, *raised)}
    areas = {name: Counter[int]() for name in ("with a spot", "without a spot")}
    most: Counter[str] = Counter()
    peaks_of_a_frame: list[int] = []
    begun = time.process_time()
    for index, frame, valid, stored in frames(case):
        front, seen = corrected(case, frame, valid)
        detected = detect(
            seen.counts, threshold=seen.threshold, valid=seen.valid, stored=stored, min_area=MIN_AREA, size=SIZE,
            saturation=front.first_saturated, gain=detector.gain, read_noise=detector.read_noise,
        )  # fmt: skip
        components = detected.components
        cols = frame.shape[1]
        lone = pixel(components[is_lone(components)], cols)
        brightest, maxima = pixel(components, cols), pixel(detected.maxima, cols)
        counts.update(frames=1, components=len(components), lone=len(lone), maxima=len(maxima))
        if case.truth is not None:
            counts["spots"] += int(visible(case, of_frame(case.truth, index)).sum())
        truth["component rule"].update(explained(case, index, maxima))
        by_area(case, index, maxima, detected.maxima["area"], areas)
        for more in RAISED if case.truth is not None else ():
            higher = detect(
                seen.counts, threshold=seen.threshold + more, valid=seen.valid, stored=stored, min_area=MIN_AREA,
                size=SIZE, saturation=front.first_saturated, gain=detector.gain, read_noise=detector.read_noise,
            )  # fmt: skip
            truth[f"component rule, threshold raised by {more}"].update(
                explained(case, index, pixel(higher.maxima, frame.shape[1]))
            )
        truth["brightest of components"].update(explained(case, index, brightest))
        above = pixels_above(seen.counts, seen.threshold, seen.valid, stored)
        cost = labels(seen, above, components, detected.pixels, detected.component)
        counts["more_than_16_rows"] += cost.pop("more_than_16_rows")
        most |= cost
        found = find(front, seen, stored)
        at, around = found.row * cols + found.col, squares(seen.counts, found.row, found.col, SIGHT)
        peaks_of_a_frame.append(len(at))
        peaks = {"window": at} | {name: at[test.holds(around)] for name, test in tests.items()}
        for name, test in tests.items():
            kept = test.at(seen.counts, seen.valid, *np.divmod(maxima, cols))
            peaks[f"component rule, {name}"] = maxima[kept]
        for name, rule in rules.items():
            own = peaks[name]
            truth[name].update(explained(case, index, own))
            rule.update(
                peaks=len(own), lone=int(np.isin(lone, own).sum()), maxima=int(np.isin(maxima, own).sum()),
                insignificant=int((~np.isin(own, maxima)).sum()), extra=int((~np.isin(own, brightest)).sum()),
            )  # fmt: skip
    row: dict[str, Any] = {
        "step": case.step, "shape": list(case.scan.shape), **counts, **most,
        "peaks_of_a_frame": [min(peaks_of_a_frame), int(np.median(peaks_of_a_frame)), max(peaks_of_a_frame)],
        "most_possible": front.most_in_a_frame, "cpu_seconds": round(time.process_time() - begun, 1),
        "tests": {name: dataclasses.asdict(test) for name, test in tests.items()},
        "rules": {name: dict(rule) for name, rule in rules.items()},
        "truth": {name: dict(found) for name, found in truth.items() if found},
    }  # fmt: skip
    if case.truth is not None:
        row["maxima_by_area"] = {name: {f"to {top}": found[top] for top in AREAS} for name, found in areas.items()}
    print(case.name, json.dumps(row), flush=True)
    return row


def pixel(maxima: np.ndarray, cols: int) -> np.ndarray:
    """Flat indices of maxima."""
    return maxima["row"].astype(np.int64) * cols + maxima["col"]


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| scan | frames | lone peaks | found | maxima | found | peaks | insignificant | with the test: lone found | "
        "maxima found | peaks | insignificant |",
        "|---" * 12 + "|",
    ]
    for name, row in rows.items():
        plain, tested = row["rules"]["window"], row["rules"]["4 deviations"]
        values = [
            row["frames"], row["lone"], plain["lone"], row["maxima"], plain["maxima"], plain["peaks"],
            plain["insignificant"], tested["lone"], tested["maxima"], tested["peaks"], tested["insignificant"],
        ]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(f"{value:,}" for value in values) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with chess_ruby/ and dls_thaumatin/")
    parser.add_argument("--runs", type=Path, help="folder with the runs demo and simulated")
    parser.add_argument("--step", type=int, default=1, help="every n-th frame of ruby and simulated")
    parser.add_argument("--output", type=Path, help="JSON")
    arguments = parser.parse_args()
    os.environ["BRAGGNN_EDGE_DATA"] = str(arguments.folder.absolute())
    rows = {case.name: measure(case) for case in cases(arguments.runs, arguments.step)}
    print(table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
