"""Simulation of a front end: its Verilog compiled by Verilator, driven clock by clock along a script."""

import json
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import verilated
from firmware_sim.forms.compiled import built, digest_of
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.project import NAME
from hls.rtl.front_end.registers import REGISTERS
from hls.rtl.front_end.scripts import ports
from hls.tools import programs as tools
from quant.front_end.stream import Row

_DRIVER = Path(__file__).with_name("driver.cpp")

_OFFSETS = {one.name: one.offset for one in REGISTERS}


@dataclass(frozen=True)
class Simulator:
    """A compiled front end; mutant: which mutation it runs with, where it was built with any, 0 for none."""

    path: Path
    geometry: Geometry
    mutant: int = 0


@dataclass
class Script:
    """What a bench does, in order; see the driver. Counts are those of a detector, 16 bits at most."""

    pixels: int
    words: list[NDArray[np.uint32]] = field(default_factory=list)

    def _add(self, *words: int) -> "Script":
        self.words.append(np.array([word & 0xFFFFFFFF for word in words], np.uint32))
        return self

    def wait(self, clocks: int) -> "Script":
        """Let clocks pass."""
        return self._add(0, clocks)

    def write(self, register: str | int, value: int) -> "Script":
        """Write a register, by its name or at an offset."""
        return self._add(1, _OFFSETS[register] if isinstance(register, str) else register, value)

    def read(self, register: str | int) -> "Script":
        """Read a register."""
        return self._add(2, _OFFSETS[register] if isinstance(register, str) else register)

    def reset(self, clocks: int = 4) -> "Script":
        """Hold the reset."""
        return self._add(3, clocks)

    def pace(self, gaps: int = 0, stalls: int = 0) -> "Script":
        """Chances of 256: that the next beat waits a clock, that the output is not ready in a clock; 256 is always."""
        return self._add(4, gaps, stalls)

    def beats(self, counts: NDArray[np.integer], start: list[int], last: list[int]) -> "Script":
        """Beats of counts (n, pixels); those whose indices are in ``start`` start a frame, in ``last`` end a row."""
        rows = np.zeros((len(counts), 1 + (self.pixels + 1) // 2), np.uint32)
        rows[start, 0] |= 1
        rows[last, 0] |= 2
        rows[:, 1:] = _pairs(np.asarray(counts).reshape(len(counts), self.pixels))
        self._add(5, len(counts))
        self.words.append(rows.reshape(-1))
        return self

    def frame(self, counts: NDArray[np.integer]) -> "Script":
        """A frame (rows, cols), well formed."""
        self._add(6, *counts.shape)
        self.words.append(_pairs(np.asarray(counts).reshape(1, -1)).reshape(-1))
        return self

    def part(self, counts: NDArray[np.integer], first: int = 0, stop: int | None = None) -> "Script":
        """The beats ``first`` to ``stop`` of a frame (rows, cols)."""
        words = np.asarray(counts).reshape(-1, self.pixels)
        of_row = counts.shape[1] // self.pixels
        chosen = range(len(words))[first:stop]
        last = [k for k, beat in enumerate(chosen) if (beat + 1) % of_row == 0]
        return self.beats(words[first:stop], [0] if first == 0 else [], last)

    def rows(self, rows: Iterable[Row]) -> "Script":
        """Rows as they come, faults included; each a whole number of beats long."""
        given = list(rows)
        stops = np.cumsum([len(row.counts) // self.pixels for row in given]).tolist()
        starts = [0, *stops[:-1]]
        return self.beats(
            np.concatenate([row.counts for row in given]).reshape(-1, self.pixels),
            [at for at, row in zip(starts, given, strict=True) if row.start],
            [at - 1 for at, row in zip(stops, given, strict=True) if row.ended],
        )

    def maps(self, *planes: NDArray[np.integer]) -> "Script":
        """Offer maps (rows, cols) from now on, over and over: those that the front end was built with, in order."""
        cols = planes[0].shape[1]
        values = np.stack([plane.reshape(-1, self.pixels) for plane in planes], axis=1)
        flags = np.zeros(len(values), np.uint32)
        flags[cols // self.pixels - 1 :: cols // self.pixels] = 2
        flags[0] |= 1
        return self.map_beats(values, flags)

    def map_beats(self, values: NDArray[np.integer], flags: NDArray[np.uint32]) -> "Script":
        """Offer beats of maps (n, maps, pixels) over and over; flags: (n,) 1 begins maps, 2 ends a row."""
        self._add(8, len(values))
        if not len(values):
            return self
        self.words.append(np.concatenate([flags[:, None], _pairs(values.reshape(len(values), -1))], axis=1).reshape(-1))
        return self

    def locator(
        self, patches: NDArray[np.integer], answers: NDArray[np.uint8], user: NDArray[np.integer] | int = 0
    ) -> "Script":
        """What an external locator knows from now on: counts (n, window, window) and, of each, the bytes (n, k) of a
        beat of ``s_position`` and its tuser (n,). A patch that is not among them ends the simulation."""
        self._add(9, len(patches))
        if not len(patches):
            return self
        words = np.zeros((len(answers), -(-answers.shape[1] // 4) * 4), np.uint8)
        words[:, : answers.shape[1]] = answers
        users = np.broadcast_to(np.asarray(user, np.uint32), len(patches))[:, None]
        known = [_pairs(patches.reshape(len(patches), -1)), words.view(np.uint32), users]
        self.words.append(np.concatenate(known, axis=1).reshape(-1))
        return self

    def locator_pace(self, latency: int = 1, interval: int = 0, stalls: int = 0) -> "Script":
        """Clocks from a patch's last count to the answer, and between two answers, both at least; chance of 256 that
        a count has to wait."""
        return self._add(10, latency, interval, stalls)

    def until(self, records: int, limit: int = 1_000_000) -> "Script":
        """Wait until so many records were taken since the start, at most ``limit`` clocks."""
        return self._add(7, records, limit)


def _pairs(counts: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Counts (n, k), 16 bits, two to a word: (n, ceil(k / 2))."""
    wide = np.zeros((counts.shape[0], -(-counts.shape[1] // 2) * 2), np.uint16)
    wide[:, : counts.shape[1]] = counts
    return wide.view(np.uint32)


@dataclass(frozen=True)
class Run:
    """What a simulation saw.

    raw: (n, 32) bytes of the records in the order in which they came; clocks: (n,) at which; answers: (value,
    response) of every access to a register. waited: clocks in which a beat had to wait; throttled: those of them inside
    a frame. last_word: the clock after the last beat was taken. seconds: of processor time.
    """

    raw: NDArray[np.uint8]
    clocks: NDArray[np.uint64]
    answers: list[tuple[int, int]]
    cycles: int
    waited: int
    throttled: int
    last_word: int
    seconds: float


def build(sources: dict[str, str], geometry: Geometry, build_dir: Path, *, optimize: str = "-O1") -> Simulator:
    """Compile Verilog sources (:func:`hls.rtl.front_end.project.sources`) in ``build_dir``, or find them compiled.

    They may also be a mapped netlist and its cells, of a front end whose locator is inside.
    """
    tools.find(tools.VERILATOR)
    build_dir.mkdir(parents=True, exist_ok=True)
    top = ports(sources[f"{NAME}.v"]) if geometry.external else ()
    answer = [port.bits for port in top if port.name == "s_position_tdata"]
    defines = (
        f"PIXELS={geometry.pixels}", f"BITS={geometry.bits}", f"MAPS={len(geometry.maps)}", f"WINDOW={geometry.window}",
        f"POSITION={sum(answer)}",
    )  # fmt: skip
    # Warnings are a test of their own.
    options = verilated.command(NAME, "unique", optimize, defines, ("-Wno-lint",))

    def compile_(aside: Path) -> None:
        for name, text in sources.items():
            (aside / name).write_text(text)
        files = [aside / name for name in sorted(sources)]
        verilated.compile_design(options, _DRIVER, files, aside, build_dir / "verilator.log")

    text = "".join(f"{name}\n{sources[name]}" for name in sorted(sources))
    key = digest_of([_DRIVER], f"{geometry}", " ".join(options) + text)
    return Simulator(built(build_dir, key, (verilated.PROGRAM,), compile_) / verilated.PROGRAM, geometry)


def run(simulator: Simulator, script: Script, *, seed: int = 0) -> Run:
    """Run a script. Raises UserError where the streams' rules are broken: a record that changes before it is taken,
    tlast at the wrong record, something ready during reset, a beat that is never taken."""
    with tempfile.TemporaryDirectory(prefix="braggnn-front-end-") as name:
        source, result = Path(name, "script"), Path(name, "records")
        np.concatenate(script.words).tofile(source)
        command = [str(simulator.path), str(source), str(result), str(seed), f"+mutant={simulator.mutant}"]
        found = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        if found.returncode:
            raise UserError(f"{simulator.path} ended with status {found.returncode}: {found.stderr.strip()}")
        rows = np.fromfile(result, np.uint8).reshape(-1, 40)
    seen = json.loads(found.stdout)
    broken = {key: seen[key] for key in ("unstable", "wrong_last", "ready_in_reset") if seen[key]}
    if broken:
        raise UserError(f"{simulator.path}: its streams are broken, clocks by fault: {broken}")
    return Run(
        rows[:, :32].copy(), np.ascontiguousarray(rows[:, 32:]).view(np.uint64)[:, 0],
        [(int(value), int(response)) for value, response in seen["answers"]],
        seen["clocks"], seen["waited"], seen["throttled"], seen["last_word"], seen["seconds"],
    )  # fmt: skip
