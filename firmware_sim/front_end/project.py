"""A front end's project simulated as it lies there: its sources on the streams of its vectors, against the records."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from firmware_sim.front_end.compare import as_records, differences
from firmware_sim.front_end.simulate import Script, build, run
from hls.rtl.front_end.external import beats, stream_bits
from hls.rtl.front_end.geometry import Geometry
from quant.contract.arithmetic import Codes
from quant.contract.locator import IntegerLocator, load
from quant.front_end.records import END, Records

#: Chances of 256 of a gap before a beat, and of an output that is not ready, of each run of a vector.
_PACES = ((0, 0), (60, 0), (20, 128))

#: The pace of an external locator in each of these (:meth:`Script.locator_pace`).
_LOCATOR_PACES = ((1, 0, 0), (300, 50, 20), (40, 0, 128))


@dataclass(frozen=True)
class Simulated:
    """What a simulation of a project found.

    streams: vectors, each of which ran at every pace; frames, records: of all runs, end records included; wrong: runs
    that differ; first: what differs in the first of these, in words, empty where none does.
    """

    streams: int
    frames: int
    records: int
    wrong: int
    first: str


def simulate(
    project: Path, build_dir: Path, say: Callable[[str], None], answers: Callable[[Codes], Codes] | None = None
) -> Simulated:
    """Compile the sources of a project (:func:`hls.rtl.front_end.project.write_front_end`) in ``build_dir`` and run its
    vectors, without and with gaps and stalls. Raises UserError for what is no such project.

    answers: what an external locator answers to patches (n, window, window), codes (n, 2 or 4); None: what the vectors
    say. The patches that leave must be the vectors'.
    """
    geometry = _geometry(project)
    locator = load(project / "locator.json")
    sources = {path.name: path.read_text() for path in sorted((project / "src").glob("*.v"))}
    simulator = build(sources, geometry, build_dir, optimize="-O0")
    names = sorted(path.name.split(".")[0] for path in (project / "vectors").glob("*.records.hex"))
    if not names:
        raise UserError(f"{project}: no vectors; remove it and make it again with `make rtl`")
    frames = records = wrong = 0
    first = ""
    for name in names:
        expected = _records(project, name)
        stream = _entries(project, name, "beats")
        limit = 20_000 + 8 * len(stream)  # rows of another length clear the memories, and rows follow a frame
        for seed, (gaps, stalls) in enumerate(_PACES):
            script = Script(geometry.pixels)
            for entry in _entries(project, name, "registers"):
                script.write(entry >> 32, entry & 0xFFFFFFFF)
            if geometry.maps and _path(project, name, "maps").exists():
                _add_maps(script, _entries(project, name, "maps"), geometry)
            if geometry.external:
                patches = _patches(project, name, locator)
                codes = locator.run(locator.inputs(patches)) if answers is None else answers(patches)
                script.locator(patches, beats(codes, locator)).locator_pace(*_LOCATOR_PACES[seed])
            script.pace(gaps, stalls)
            _add_beats(script, stream, geometry)
            script.pace(0, 0).until(sum(map(len, expected)), limit).wait(200)
            found = run(simulator, script, seed=seed)
            refused = [at for at, (_, response) in enumerate(found.answers) if response]
            words = [f"write {refused[0]} was refused"] if refused else differences(as_records(found.raw), expected)
            frames, records, wrong = frames + len(expected), records + sum(map(len, expected)), wrong + bool(words)
            first = first or (f"vector {name}, gaps {gaps}, stalls {stalls} of 256: {words[0]}" if words else "")
    say(f"  front_end/records: {wrong} wrong of {len(names) * len(_PACES)} runs, {frames} frames, {records} records")
    return Simulated(len(names), frames, records, wrong, first)


def _geometry(project: Path) -> Geometry:
    path = project / "project.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        return Geometry(**{one.name: document[one.name] for one in fields(Geometry)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a front end ({error!r}); make it with `make rtl`") from error


def _entries(project: Path, name: str, kind: str) -> list[int]:
    """The entries of a vector's file, comments left out."""
    path = _path(project, name, kind)
    try:
        return [int(line.split("//")[0], 16) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a vector ({error}); remove the project and make it again") from error


def _path(project: Path, name: str, kind: str) -> Path:
    return project / "vectors" / f"{name}.{kind}.hex"


def _records(project: Path, name: str) -> list[Records]:
    """The records of each frame of a vector."""
    words = _entries(project, name, "records")
    raw = np.frombuffer(b"".join(word.to_bytes(32, "little") for word in words), np.uint8).reshape(-1, 32)
    found = as_records(raw)
    stops = np.flatnonzero(found["kind"] == END) + 1
    return np.split(found, stops[:-1])


def _patches(project: Path, name: str, locator: IntegerLocator) -> NDArray[np.int64]:
    """The patches (n, window, window) of a vector."""
    bits, pixels = stream_bits(locator)[0], locator.window**2
    return _counts(_entries(project, name, "patches"), pixels, bits).reshape(-1, locator.window, locator.window)


def _counts(words: list[int], number: int, bits: int) -> NDArray[np.int64]:
    """The counts (n, number) of words, the first lowest."""
    return np.array([[word >> k * bits & (1 << bits) - 1 for k in range(number)] for word in words], np.int64)


def _add_maps(script: Script, words: list[int], geometry: Geometry) -> None:
    counts = _counts(words, len(geometry.maps) * geometry.pixels, geometry.bits)
    flags = np.array([word >> geometry.map_bits & 3 for word in words], np.uint32)
    script.map_beats(counts.reshape(len(words), len(geometry.maps), geometry.pixels), flags)


def _add_beats(script: Script, words: list[int], geometry: Geometry) -> None:
    counts = _counts(words, geometry.pixels, geometry.bits)
    starts = [at for at, word in enumerate(words) if word >> geometry.data_bits & 1]
    ends = [at for at, word in enumerate(words) if word >> geometry.data_bits & 2]
    script.beats(counts, starts, ends)
