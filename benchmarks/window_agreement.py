"""The window rule against the component rule: lone peaks found, peaks that are no maximum, and what labels would cost.

    python benchmarks/window_agreement.py FOLDER --runs runs [--step 4] [--output benchmarks/window_agreement.json]

On every frame the component rule finds significant maxima and lone peaks (as the labels have them), and the front end
(`quant.front_end`) its peaks: without the test of significance, and with 3, 4 and 5 standard deviations of the
detector's noise. A peak of the window rule is *lone* where a lone peak's brightest pixel is, *significant* where a
significant maximum is, else *insignificant*; it is *extra* where no component has its brightest pixel.

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
from quant.front_end.correct import Corrected, correct
from quant.front_end.rule import find, significant, squares
from quant.front_end.spec import FrontEnd, Significance

MIN_AREA, SIZE = 4, 11
DEVIATIONS = (3.0, 4.0, 5.0)
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class Case:
    """A scan with the rule of its scenario; every ``step``-th frame is used."""

    name: str
    scan: Scan
    spec: ScanSpec
    step: int


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
            yield Case(name, open_scan("braggnn", runs / name / "data" / "scan.h5"), spec, own)


def frames(case: Case) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
    """(frame, valid, stored) of every frame that is used; one after the other is read where none are left out."""
    if case.step == 1:
        yield from (one[1:] for one in case.scan.frames_with_stored())
        return
    for index in range(0, case.scan.shape[0], case.step):
        yield next(one[1:] for one in case.scan.frames_with_stored(index, index + 1))


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


def measure(case: Case) -> dict[str, Any]:
    """The row of one scan."""
    detector = case.spec.detector
    tests = {f"{z:g} deviations": Significance.of(z, detector.gain, detector.read_noise) for z in DEVIATIONS}
    counts: Counter[str] = Counter()
    rules = {name: Counter[str]() for name in ("window", *tests)}
    most: Counter[str] = Counter()
    peaks_of_a_frame: list[int] = []
    begun = time.process_time()
    for frame, valid, stored in frames(case):
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
        above = pixels_above(seen.counts, seen.threshold, seen.valid, stored)
        cost = labels(seen, above, components, detected.pixels, detected.component)
        counts["more_than_16_rows"] += cost.pop("more_than_16_rows")
        most |= cost
        found = find(front, seen, stored)
        at, around = found.row * cols + found.col, squares(seen.counts, found.row, found.col, 3)
        peaks_of_a_frame.append(len(at))
        for name, rule in rules.items():
            own = at if name == "window" else at[significant(tests[name], around)]
            rule.update(
                peaks=len(own), lone=int(np.isin(lone, own).sum()), maxima=int(np.isin(maxima, own).sum()),
                insignificant=int((~np.isin(own, maxima)).sum()), extra=int((~np.isin(own, brightest)).sum()),
            )  # fmt: skip
    row = {
        "step": case.step, "shape": list(case.scan.shape), **counts, **most,
        "peaks_of_a_frame": [min(peaks_of_a_frame), int(np.median(peaks_of_a_frame)), max(peaks_of_a_frame)],
        "most_possible": front.most_in_a_frame, "cpu_seconds": round(time.process_time() - begun, 1),
        "tests": {name: dataclasses.asdict(test) for name, test in tests.items()},
        "rules": {name: dict(rule) for name, rule in rules.items()},
    }  # fmt: skip
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
