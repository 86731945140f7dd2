"""A scenario that is ready to run: the measured scan with its detector, and a simulated scan like it."""

import dataclasses
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from braggnn_edge.frames.options import GUESS, guessed_format
from braggnn_edge.inspection.advice import patch_size
from braggnn_edge.inspection.facts import Look
from braggnn_edge.inspection.spots import MIN_AREA
from braggnn_edge.simulation.spec import SimulationSpec

#: Keys of the options of a scan that a ``[[scan]]`` has too.
_FILES = ("dark", "mask")


def scenario(
    found: Look, simulation: SimulationSpec | None, arguments: Namespace, folder: Path, masked: bool = False
) -> str:
    """The text of ``scenario.toml`` in ``folder``; masked: ``mask.npy`` lies there and is taken."""
    name = scan_name(found.name)
    known = found.spots.rule.detector if found.spots else None
    notes = [f"# {line}" for line in found.missing]
    uses = ("test",) if simulation else ("train", "validation", "test")
    lines = [
        f"# Written by `braggnn-edge inspect`. Found in {found.name}, and what was not:",
        *(notes or ["# everything that was looked for was found."]),
        f'name = "{name}"',
        "seed = 1",
        "",
        "[[scan]]",
        f'name = "{name}"',
        f'format = "{_format(arguments)}"',
        f"path = {_text(_path(arguments.scan, folder))}",
        *_asked(arguments, folder, masked),
        f"use = {_value(uses)}",
        *([] if not found.bad_frames else ['on_bad_frame = "skip"']),
        *_rule(found),
        f"min_area = {MIN_AREA}",
        "",
        "[scan.detector]",
        _key("gain", known.gain if known else found.detector.gain.or_else(1.0), found.detector.gain.value is None),
        _key(
            "read_noise", known.read_noise if known else found.detector.read_noise.or_else(1.0),
            found.detector.read_noise.value is None,
        ),
        _key("saturation", found.detector.saturation.or_else(0.0), found.detector.saturation.value is None),
        f"zero_suppression = {_value(_edge(found))}",
    ]  # fmt: skip
    if simulation is not None:
        lines += _simulated(found, simulation)
    lines += ["", *_patches(found), *_split(found, simulation)]
    if simulation is not None:
        lines += ["", *_NETWORK]
    return "\n".join(lines) + "\n"


#: Without another choice the network that ships is what is made into firmware and reported.
_NETWORK = (
    "# The network that ships, as integers in layers; it is not trained here.",
    "[qat]",
    'network = "shipped"',
    "",
    "[csim]",
    "patches = 5000",
)


def _simulated(found: Look, simulation: SimulationSpec) -> list[str]:
    default = SimulationSpec()
    lines = [
        "",
        "# A scan with the detector and the distributions that were found. Positions are spread over the panel, since",
        "# rings are not looked for.",
        "[[scan]]",
        'name = "simulated"' if scan_name(found.name) != "simulated" else 'name = "like_it"',
        'use = ["train", "validation"]',
        *_rule(found),
        f"min_area = {MIN_AREA}",
        "",
        "[scan.simulate]",
    ]
    for field in dataclasses.fields(simulation):
        value = getattr(simulation, field.name)
        if value != getattr(default, field.name) or field.name in ("rows", "cols", "frames", "reflections"):
            lines.append(f"{field.name} = {_value(value)}")
    return lines


def _patches(found: Look) -> list[str]:
    """The patches: of 11 px, which the network that ships takes; advice for another size is a comment."""
    size, why = patch_size(found)
    largest = (min(found.shape[1:]) - 3) // 2 * 2 + 1
    advice = "no advice" if size is None else f"advice: {size} px"
    return [
        "[peaks]",
        f"# {advice}; {why}. The network that ships takes 11 px.",
        f"size = {min(11, largest)}",
        "shift = 1",
    ]


def _split(found: Look, simulation: SimulationSpec | None) -> list[str]:
    frames = min(found.shape[0], simulation.frames if simulation else found.shape[0])
    if frames >= 120:
        return []
    block = max(1, frames // 10)
    return ["", "[split]", f"block = {max(block, 3)}", f"guard = {1 if block >= 3 else 0}"]


def _rule(found: Look) -> list[str]:
    if found.spots is None:
        return ["# no spots were found: choose a threshold", "threshold = 150.0"]
    rule, why = found.spots.rule, f"# {found.spots.reason}"
    if rule.background_box:
        return [why, f"background_box = {rule.background_box}", f"sigma = {_value(rule.sigma)}"]
    return [why, f"threshold = {_value(float(f'{rule.threshold:.6g}'))}"]


def _edge(found: Look) -> float:
    """The level below which pixels were stored as zero: between the smallest count and the one below it."""
    smallest = found.pixels.zero_suppression.or_else(0.0)
    return smallest - 0.5 if smallest else 0.0


def _key(name: str, value: float, guess: bool) -> str:
    said = "          # not found; this is a stand-in" if guess and name != "saturation" else ""
    said = "          # no saturated pixel was seen" if guess and name == "saturation" else said
    return f"{name} = {_value(float(f'{value:.5g}'))}{said}"


def _asked(arguments: Namespace, folder: Path, masked: bool) -> list[str]:
    files = {key: getattr(arguments, key) for key in _FILES if getattr(arguments, key)}
    if masked:
        files["mask"] = str(folder / "mask.npy")
    lines = [f"{key} = {_text(_path(file, folder))}" for key, file in files.items()]
    lines += [f"dataset = {_text(arguments.dataset)}"] if arguments.dataset else []
    for key in ("negative", "overflow_value"):
        if getattr(arguments, key) not in (None, "auto"):
            lines.append(f"{key} = {_text(getattr(arguments, key))}")
    for key in ("omega_start", "omega_step"):
        if getattr(arguments, key, None) is not None:
            lines.append(f"{key} = {_value(getattr(arguments, key))}")
    return lines


def _format(arguments: Namespace) -> str:
    return guessed_format(Path(arguments.scan)) if arguments.format in (None, GUESS) else str(arguments.format)


def _path(text: str, folder: Path) -> str:
    """A complete path; relative to the scenario where it would hold a ``$``, which stands for a variable."""
    whole = os.path.abspath(text)
    return os.path.relpath(whole, folder.resolve()) if "$" in whole else whole


def scan_name(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in text).strip("_")
    return kept[:60] or "scan"


def _text(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c == "\x7f" else c for c in text.replace("\\", "\\\\"))
    return '"' + escaped.replace('"', '\\"') + '"'


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(float(value)) if isinstance(value, float) else str(value)
