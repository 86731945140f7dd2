"""What `braggnn-edge inspect` finds of detectors whose truth is known: simulated scans with drawn detectors.

    [BRAGGNN_EDGE_DATA=FOLDER] python benchmarks/first_look.py [--seed N] [--number N]

writes inspect.json. A detector has a gain, read noise, background, zero suppression, saturation and spot widths of its
own. Where the variable names the folder of the measured scans, what is found in them is written too.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.rundir import write_json
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.inspection.look import look
from braggnn_edge.inspection.transfer import widths_of
from braggnn_edge.simulation.simulate import simulate
from braggnn_edge.simulation.spec import SimulationSpec
from braggnn_edge.simulation.truth import of_frame, read_truth

HERE = Path(__file__).resolve().parent
#: Seed of the committed figures; none of the thresholds of `inspect` was chosen on its detectors.
SEED = 20261128
LIMITS = {"gain": 0.1, "read_noise": 0.2, "zero_suppression": 0.0, "saturation": 0.02, "fwhm": 0.05}


def drawn(seed: int, index: int) -> SimulationSpec:
    """A detector and its spots."""
    rng = np.random.default_rng((seed, index))
    gain = float(np.exp(rng.uniform(np.log(0.2), np.log(20.0))))
    read_noise = 0.0 if rng.random() < 0.25 else float(rng.uniform(0.0, 20.0))
    background = 0.0 if rng.random() < 0.2 else float(np.exp(rng.uniform(np.log(0.3), np.log(50.0))))
    width = float(rng.uniform(1.2, 6.0))
    noise = np.sqrt(gain**2 * background * 1.4 + read_noise**2)
    level = 1.4 * gain * background + 6.0 * noise + 5.0
    suppressed = rng.random() < 0.35
    bright = max(40.0 * level, 400.0 * gain)
    saturated = rng.random() < 0.5
    return SimulationSpec(
        rows=512,
        cols=512,
        frames=40,
        reflections=500,
        heights=(2.0 * level, bright),
        least_height=0.5 * level,
        rocking=(0.15, 0.8),
        fwhm_median=width,
        fwhm_spread=0.15,
        fwhm_limits=(max(1.0, 0.6 * width), 1.6 * width),
        background=gain * background,
        background_slope=float(rng.choice([0.0, 0.1, 0.4])),
        gain=gain,
        read_noise=read_noise,
        saturation=int(np.clip(rng.uniform(0.2, 0.7) * bright, 200, 65535)) if saturated else 65535,
        threshold=float(np.ceil(level * rng.uniform(0.7, 1.3))) if suppressed else 0.0,
        window=63,
    )


def truth_of(spec: SimulationSpec, table: np.ndarray, spots: Any) -> tuple[float, float, float] | None:
    """True median widths (major, minor) of the spots that were fitted, and the share of all spots that are none."""
    pairs, false = [], 0
    for frame in np.unique(spots.spots.spots["frame"]):
        here = of_frame(table, int(frame))
        found = spots.spots.spots[spots.spots.spots["frame"] == frame]
        if not len(here):
            false += len(found)
            continue
        distance = np.hypot(found["row"][:, None] - here["row"], found["col"][:, None] - here["col"])
        false += int((distance.min(axis=1) > max(2.0, here["fwhm_major"].max())).sum())
        fitted = spots.spots.fitted
        mine = (fitted["frame"] == frame) & spots.good
        if mine.any():
            distance = np.hypot(fitted["row"][mine, None] - here["row"], fitted["col"][mine, None] - here["col"])
            nearest = here[distance.argmin(axis=1)[distance.min(axis=1) < 2.5]]
            pairs += list(zip(nearest["fwhm_major"].tolist(), nearest["fwhm_minor"].tolist(), strict=True))
    if not pairs:
        return None
    major, minor = np.median(np.array(pairs), axis=0)
    return float(major), float(minor), false / max(len(spots.spots.spots), 1)


def judged(name: str, found: float | None, true: float, why: str) -> dict[str, Any]:
    """One figure beside its truth; verdict: right, wrong, or "not found"."""
    if found is None:
        return {"true": true, "found": None, "verdict": "not found", "why": why}
    error = abs(found - true) / true if true else (0.0 if found == 0 else float("inf"))
    return {
        "true": round(true, 4),
        "found": round(found, 4),
        "verdict": "right" if error <= LIMITS[name] + 1e-9 else "wrong",
        "why": why,
    }


def examined(spec: SimulationSpec, seed: int, folder: Path) -> dict[str, Any]:
    """What is found of one detector."""
    frames, truth = folder / "scan.h5", folder / "truth.h5"
    simulate(spec, seed, frames, truth, workers=1)
    began = time.process_time()
    found = look(open_scan("braggnn", frames), lambda _: None)
    seconds = time.process_time() - began
    table = read_truth(truth)
    hit = bool((table["saturated"]).sum() >= 20)
    detector, level = found.detector, found.pixels.zero_suppression
    result: dict[str, Any] = {
        "detector": {
            "gain": round(spec.gain, 3), "read_noise": round(spec.read_noise, 3),
            "background_photons": round(spec.background / spec.gain, 3), "slope": spec.background_slope,
            "threshold": spec.threshold, "saturation": spec.saturation, "fwhm": round(spec.fwhm_median, 3),
        },
        "seconds": round(seconds, 1),
        "gain": judged("gain", detector.gain.value, spec.gain, detector.gain.why),
    }  # fmt: skip
    noise = detector.read_noise
    result["read_noise"] = judged("read_noise", noise.value, spec.read_noise, noise.why)
    if noise.value == 0.0 and noise.limit is not None and spec.read_noise <= noise.limit:
        result["read_noise"]["verdict"] = "right"
    if noise.limit is not None:
        result["read_noise"]["below"] = round(noise.limit, 3)
        if noise.value is None and spec.read_noise > noise.limit:
            result["read_noise"]["verdict"] = "wrong"
    # The smallest count that is stored is above the threshold by the step of the counts, or by one.
    step = max(1.0, spec.gain if spec.read_noise < 0.3 * spec.gain else 1.0)
    right = 0.0 < (level.value or 0.0) - spec.threshold <= step + 1 if spec.threshold else not level.value
    result["zero_suppression"] = {
        "true": spec.threshold, "found": level.value, "verdict": "right" if right else "wrong", "why": level.why,
    }  # fmt: skip
    top = detector.saturation
    if hit or top.value is not None:
        result["saturation"] = judged("saturation", top.value, float(spec.saturation), top.why)
    else:
        result["saturation"] = {"verdict": "no pixel of the scan is saturated", "found": None}
    true = None if found.spots is None else truth_of(spec, table, found.spots)
    if found.spots is None or true is None:
        result["fwhm"] = {"verdict": "not found", "why": "no spot was found or fitted"}
    else:
        widths = widths_of(found.spots.fitted)
        for key, i in (("fwhm_major", 0), ("fwhm_minor", 1)):
            result[key] = judged("fwhm", float(np.median(widths[i][found.spots.good])), true[i], "median of good fits")
        result["false_spots"] = round(true[2], 4)
        result["fits"] = int(found.spots.good.sum())
        result["rule"] = found.spots.reason
    return result


def measured(data: Path) -> dict[str, Any]:
    """What is found in the measured scans."""
    scans = {
        "chess_ruby ff1": ("hexrd", data / "chess_ruby/mruby-0129_000004_ff1_000012-cachefile.npz"),
        "dls_thaumatin": ("images", data / "dls_thaumatin/*.cbf.bz2"),
    }
    results = {}
    for name, (kind, path) in scans.items():
        began = time.monotonic()
        found = look(open_scan(kind, path), lambda _: None)
        entry: dict[str, Any] = {
            "seconds": round(time.monotonic() - began, 1), "frames": list(found.shape), "dtype": found.dtype,
            "zero_suppression": found.pixels.zero_suppression.plain(), "background": found.pixels.background.plain(),
            "gain": found.detector.gain.plain(), "read_noise": found.detector.read_noise.plain(),
            "saturation": found.detector.saturation.plain(), "marks": found.pixels.marks, "faults": found.pixels.faults,
        }  # fmt: skip
        if found.spots is not None:
            major, minor = widths_of(found.spots.fitted)
            good = found.spots.good
            maxima = found.spots.spots.spots["maximum"]
            entry |= {
                "rule": found.spots.reason, "threshold": found.spots.rule.threshold, "sigma": found.spots.rule.sigma,
                "spots_a_frame": len(maxima) / found.spots.spots.searched,
                "fwhm_minor_median": float(np.median(minor[good])), "fwhm_major_median": float(np.median(major[good])),
                "fwhm_minor_10_90": np.percentile(minor[good], (10, 90)).tolist(),
                "maxima_2_98": np.percentile(maxima, (2, 98)).tolist(), "fits": int(good.sum()),
            }  # fmt: skip
        results[name] = entry
    return results


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--output", type=Path, default=HERE / "inspect.json")
    options = parser.parse_args()
    results, chosen = [], options.only or range(options.number)
    for index in chosen:
        with tempfile.TemporaryDirectory() as folder:
            results.append(examined(drawn(options.seed, index), options.seed + index, Path(folder)))
        one = results[-1]
        print(index, one["detector"], f"{one['seconds']} s", "false", one.get("false_spots"), "fits", one.get("fits"))
        for key in ("gain", "read_noise", "zero_suppression", "saturation", "fwhm_major", "fwhm_minor"):
            entry = one.get(key, one.get("fwhm", {}))
            print(
                f"   {key:17s}", *(str(entry.get(k)) for k in ("verdict", "true", "found", "below", "why")), flush=True
            )
    keys = ("gain", "read_noise", "zero_suppression", "saturation", "fwhm_major", "fwhm_minor")
    summary = {
        key: {
            verdict: sum(one.get(key, one.get("fwhm", {})).get("verdict") == verdict for one in results)
            for verdict in ("right", "wrong", "not found")
        }
        for key in keys
    }
    print(summary)
    document: dict[str, Any] = {"seed": options.seed, "limits": LIMITS, "summary": summary, "detectors": results}
    if data := os.environ.get("BRAGGNN_EDGE_DATA"):
        document["measured"] = measured(Path(data))
    document["largest_memory_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    write_json(options.output, document)


if __name__ == "__main__":
    main()
