"""The command "inspect": the look, a few simulated frames beside it, and the files of both."""

import json
import math
import shlex
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.config import load
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.stages import RENAMED_TABLES, tables
from braggnn_edge.frames.options import named_scan
from braggnn_edge.inspection import words
from braggnn_edge.inspection.advice import coverage, patch_size
from braggnn_edge.inspection.distributions import distributions, of_simulation, simulation_of
from braggnn_edge.inspection.facts import Look
from braggnn_edge.inspection.look import look
from braggnn_edge.inspection.page import page
from braggnn_edge.inspection.picture import picture
from braggnn_edge.inspection.scenario import scan_name, scenario
from braggnn_edge.simulation.spec import SimulationSpec

Say = Callable[[str], None]


def work(arguments: Namespace, say: Say) -> None:
    """Inspect the scan that the options name. Raises UserError where no frame of it can be used."""
    if arguments.simulated_frames < 0:
        raise UserError(f"--simulated-frames {arguments.simulated_frames}: expected 0 (none) or more")
    began = time.monotonic()
    scan = named_scan(arguments)
    folder: Path = arguments.output
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {folder}: is a file; expected a folder, or a name that is free")
    found = look(scan, say)
    simulation, simulated, ratio = _simulated(found, arguments.simulated_frames, say)
    measured = {} if found.spots is None else distributions(
        found.spots.spots, found.spots.fitted, found.spots.good, found.spots.rule.detector.gain,
        found.spots.size)  # fmt: skip
    if found.detector.gain.value is None:
        measured, simulated = (_in_counts(one) for one in (measured, simulated))
    folder.mkdir(parents=True, exist_ok=True)
    masked = _write_mask(scan.mask, found, folder / "mask.npy")
    text = scenario(found, simulation, arguments, folder, masked)
    with written_aside(folder / "scenario.toml") as aside:
        aside.write_text(text, encoding="utf-8")
    load(folder / "scenario.toml", tables(), RENAMED_TABLES)  # what cannot be run is not handed out
    picture(found, measured, simulated, folder / "inspect.png")
    sections = sections_of(found)
    document = document_of(found, simulation, measured, simulated, ratio)
    with written_aside(folder / "inspect.json") as aside:
        aside.write_text(json.dumps(_finite(document), indent=1) + "\n", encoding="utf-8")
    with written_aside(folder / "inspect.html") as aside:
        aside.write_text(page(found, sections, folder / "inspect.png", text, bool(simulated)), encoding="utf-8")
    for head, lines in sections.items():
        if lines:
            say(f"{head}:")
            for line in lines:
                say(f"  {line}")
    if masked:
        say(f"Dead and hot pixels, and a mask that was given, are in {folder / 'mask.npy'}; the scenario uses it")
    quoted = shlex.quote(str(folder / "scenario.toml"))
    say(
        f"finished in {time.monotonic() - began:.0f} s: open {folder / 'inspect.html'}. Go on with `braggnn-edge "
        f"locate --config {quoted} --scan {scan_name(found.name)} -o peaks.h5`, or for labels with "
        f"`braggnn-edge label --config {quoted}`"
    )


def _write_mask(given: NDArray[np.bool_] | None, found: Look, path: Path) -> bool:
    """Write the pixels that are dead or hot, and those of the mask that was given; whether there are any of the first.

    Without any, a file of an earlier look is removed.
    """
    bad = found.pixels.ignored
    if bad is None or not bad.any():
        path.unlink(missing_ok=True)
        return False
    with written_aside(path) as aside, aside.open("wb") as stream:
        np.save(stream, bad if given is None else bad | given)
    return True


def _simulated(found: Look, frames: int, say: Say) -> tuple[SimulationSpec | None, dict[str, Any], float | None]:
    """The simulation of a scan like this one; distributions of a few of its frames; its spots a frame by the scan's.

    The number of reflections is set right by what the few frames show.
    """
    simulation = simulation_of(found)
    if simulation is None or found.spots is None or not frames:
        return simulation, {}, None
    say(f"  simulating {frames} frames of {simulation.rows} x {simulation.cols} px with what was found")
    simulated, a_frame = of_simulation(simulation, found.spots, frames)
    spots = found.spots.spots
    share = simulation.rows * simulation.cols / (found.shape[1] * found.shape[2])
    wanted = spots.spots["brightest"].sum() / max(spots.searched, 1) * share
    if not a_frame:
        return simulation, simulated, None
    scaled = int(np.clip(round(simulation.reflections * wanted / a_frame), 20, 200_000))
    return _with(simulation, scaled), simulated, float(a_frame / max(wanted, 1e-9))


def _with(simulation: SimulationSpec, reflections: int) -> SimulationSpec:
    return SimulationSpec(**{**vars(simulation), "reflections": reflections})


def _in_counts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("photons", "counts / assumed gain"): value for name, value in values.items()}


def sections_of(found: Look) -> dict[str, list[str]]:
    """The look in sentences, under heads."""
    first = next(iter(found.bad_frames.values()), "")
    bad = [f"{len(found.bad_frames)} bad frames were left out: {first}"]
    return {
        "Pixels": words.pixel_lines(found) + (bad if found.bad_frames else []),
        "Detector": words.detector_lines(found),
        "Spots": words.spot_lines(found),
        "Advice": words.advice_lines(found),
        "Could not be found": found.missing,
    }


def document_of(
    found: Look,
    simulation: SimulationSpec | None,
    measured: Mapping[str, Any],
    simulated: Mapping[str, Any],
    ratio: float | None,
) -> dict[str, Any]:
    """``inspect.json``."""
    pixels, detector = found.pixels, found.detector
    size, why = patch_size(found)
    spots: dict[str, Any] | None = None
    if found.spots is not None:
        rule = found.spots.rule
        spots = words.numbers_of(found.spots, detector.gain.value) | {
            "frames_searched": sorted(i for run in found.spots.spots.frames.values() for i in run),
            "rule": {"threshold": rule.threshold, "sigma": rule.sigma, "background_box": rule.background_box},
            "reason": found.spots.reason,
        }
    return {
        "schema": "braggnn-edge inspect",
        "version": 1,
        "scan": found.name,
        "shape": list(found.shape),
        "dtype": found.dtype,
        "omega_step": found.omega_step.plain(),
        "pixels": {
            "frames": pixels.frames,
            "counts": pixels.counts,
            "zeros": pixels.zeros,
            "marks": pixels.marks,
            "faults": pixels.faults,
            "noise": pixels.noise,
            "background_range": pixels.background_range,
        },
        "zero_suppression": pixels.zero_suppression.plain(),
        "background": pixels.background.plain(),
        "gain": detector.gain.plain(),
        "read_noise": detector.read_noise.plain(),
        "saturation": detector.saturation.plain(),
        "spots": spots,
        "patch_size": {"value": size, "why": why},
        "networks": coverage(found),
        "bad_frames": {str(index): message for index, message in found.bad_frames.items()},
        "not_found": found.missing,
        "simulation": None if simulation is None else vars(simulation),
        "distributions": {
            name: {
                "measured": words.percentiles(values),
                "simulated": words.percentiles(simulated.get(name, values[:0])),
            }
            for name, values in measured.items()
        },
        "simulated_spots_by_measured": ratio,
    }


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
