"""A front end with drivers at its ports, and the vectors of the project."""

import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

PROJECT = Path(__file__).resolve().parent.parent
SIZES = json.loads((PROJECT / "project.json").read_text())
#: Bits of tdata of a beat of pixels: whole bytes.
DATA_BITS = -(-SIZES["pixels"] * SIZES["bits"] // 8) * 8
#: Those of a beat of maps; 0 without.
MAP_BITS = -(-(SIZES["dark"] + SIZES["thresholds"]) * SIZES["pixels"] * SIZES["bits"] // 8) * 8
#: Offsets of the registers in bytes, by their names.
REGISTERS = {name: int(offset, 16) for name, offset in SIZES["registers"].items()}
#: The high-water marks of an end record, which are of the hardware alone: bytes 12 to 15.
MARKS = 0xFFFFFFFF << 96


def is_end(record: int) -> bool:
    """Whether a record ends a frame: its byte 30, the kind, is 1."""
    return record >> 240 & 0xFF == 1


class Vector:
    """The registers, beats and records of one vector of the project; its maps, and what passes to an external locator
    and from it, where there is any."""

    def __init__(self, name: str) -> None:
        registers, beats, self.records = (_read(name, kind) for kind in ("registers", "beats", "records"))
        self.writes = [(entry >> 32, entry & 0xFFFFFFFF) for entry in registers]
        self.bursts = list(_bursts(beats, DATA_BITS))
        #: Clocks that all of it may take: beats with gaps, rows that clear the memories, and rows that follow a frame.
        self.clocks = 50_000 + 20 * len(beats)
        self.maps = list(_bursts(_read(name, "maps"), MAP_BITS))
        self.patches = list(zip(_read(name, "patches"), _read(name, "positions"), strict=True))


def _read(name: str, kind: str) -> list[int]:
    """The entries of a file in hexadecimal, comments left out; none where there is no such file."""
    path = PROJECT / "vectors" / f"{name}.{kind}.hex"
    return [int(line.split("//")[0], 16) for line in path.read_text().splitlines()] if path.exists() else []


def _bursts(beats: list[int], bits: int) -> Iterator[AxiStreamFrame]:
    """What goes out up to a TLAST: mostly a row. A word of tdata is one item here, with its TUSER beside it."""
    data, user = [], []
    for beat in beats:
        data.append(beat & (1 << bits) - 1)
        user.append(beat >> bits & 1)
        if beat >> (bits + 1):
            yield AxiStreamFrame(data, tuser=user)
            data, user = [], []


class Bench:
    """Clock and reset, a source of pixels, a sink of records and a master of the registers; a source of maps and a
    locator, where the front end has their ports."""

    def __init__(self, dut) -> None:
        self.dut = dut
        cocotb.start_soon(Clock(dut.clk, 4, unit="ns").start())
        logging.getLogger(f"cocotb.{SIZES['top']}").setLevel(logging.WARNING)  # else each row is printed
        bus = AxiStreamBus.from_prefix
        self.maps = AxiStreamSource(bus(dut, "s_map"), dut.clk, dut.rst, byte_lanes=1) if MAP_BITS else None
        self.expected: list[tuple[int, int]] = []  # patches that an external locator will get, and what it answers
        if SIZES["external"]:
            self.patches = AxiStreamSink(bus(dut, "m_patch"), dut.clk, dut.rst, byte_lanes=1)
            self.positions = AxiStreamSource(bus(dut, "s_position"), dut.clk, dut.rst, byte_lanes=1)
            self.stored = list(zip(_read("stored", "patches"), _read("stored", "positions"), strict=True))
            self.has_patch = Event()  # set while the locator has a patch that it has not answered
            self.located = cocotb.start_soon(self.locate())
        self.source = AxiStreamSource(bus(dut, "s_axis"), dut.clk, dut.rst, byte_lanes=1)
        self.sink = AxiStreamSink(bus(dut, "m_axis"), dut.clk, dut.rst, byte_lanes=1)
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)

    async def reset(self) -> None:
        """Reset for four clocks; what the sources still have, and what a locator has not answered, is thrown away."""
        self.dut.rst.value = 1
        if SIZES["external"]:
            self.located.cancel()  # else it answers a patch of before, and all answers that follow are one too late
        self.source.clear()
        self.expected = []
        for source in (self.maps, self.positions if SIZES["external"] else None):
            if source is not None:
                source.clear()
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)
        self.sink.clear()
        if SIZES["external"]:
            self.patches.clear()
            self.has_patch.clear()
            self.located = cocotb.start_soon(self.locate())

    async def locate(self) -> None:
        """Play the external locator: the patch must be the vector's next, or the stored frame's.

        It answers after 10 to 60 clocks."""
        bits, clocks = len(self.dut.m_patch_tdata), random.Random(2)
        while True:
            counts = (await self.patches.recv()).tdata
            self.has_patch.set()
            patch = sum(count << bits * at for at, count in enumerate(counts))
            known = self.expected.pop(0) if self.expected and self.expected[0][0] == patch else self.stored[0]
            assert known[0] == patch, f"patch {patch:x} leaves, expected {[f'{one[0]:x}' for one in self.expected[:1]]}"
            await ClockCycles(self.dut.clk, clocks.randint(10, 60))  # longer than a reset takes
            await self.positions.send(AxiStreamFrame([known[1]], tuser=[0]))
            self.has_patch.clear()

    async def send_maps(self, vector: Vector, frames: int) -> None:
        """Queue the maps of a vector, if it has any, for so many frames."""
        for burst in vector.maps * frames:
            if self.maps is not None:
                await self.maps.send(AxiStreamFrame(burst))

    async def write(self, register: str | int, value: int) -> AxiResp:
        """Write a register by its name or at an offset; the response."""
        offset = REGISTERS[register] if isinstance(register, str) else register
        return (await self.master.write(offset, value.to_bytes(4, "little"))).resp

    async def read(self, register: str | int) -> int:
        """Read a register."""
        answer = await self.master.read(REGISTERS[register] if isinstance(register, str) else register, 4)
        assert answer.resp == AxiResp.OKAY, answer
        return int.from_bytes(answer.data, "little")

    async def settings(self, vector: Vector) -> None:
        """Write the registers of a vector, each of which must be accepted."""
        for offset, value in vector.writes:
            assert await self.write(offset, value) == AxiResp.OKAY, f"register 0x{offset:02x}, value {value}"

    def pace(self, gaps: float, stalls: float, seed: int = 1) -> None:
        """Chances that the source waits in a clock, and that the sink is not ready in one."""
        chance = random.Random(seed)
        self.source.set_pause_generator(iter(lambda: chance.random() < gaps, None))
        self.sink.set_pause_generator(iter(lambda: chance.random() < stalls, None))
        if self.maps is not None:
            self.maps.set_pause_generator(iter(lambda: chance.random() < gaps, None))
        if SIZES["external"]:
            self.patches.set_pause_generator(iter(lambda: chance.random() < gaps, None))
            self.positions.set_pause_generator(iter(lambda: chance.random() < gaps, None))

    async def send(self, vector: Vector, first: int = 0, stop: int | None = None) -> None:
        """Queue the bursts of a vector, or some of them; they go out while the bench goes on."""
        self.expected = list(vector.patches)
        await self.send_maps(vector, sum(is_end(record) for record in vector.records))
        for burst in vector.bursts[first:stop]:
            await self.source.send(burst)

    async def records(self, number: int, clocks: int = 50_000) -> list[int]:
        """So many records, their high-water marks set to 0. tlast must stand at every end record, and only there."""
        found: list[int] = []
        for _ in range(clocks):
            while not self.sink.empty():
                words = list(self.sink.recv_nowait().tdata)
                assert [is_end(word) for word in words] == [False] * (len(words) - 1) + [True], (
                    "tlast at the wrong place"
                )
                found += [word & ~MARKS if is_end(word) else word for word in words]
            if len(found) >= number:
                break
            await RisingEdge(self.dut.clk)
        return found

    async def check(self, vector: Vector) -> None:
        """Compare what comes with the records of a vector, and that nothing comes behind them."""
        found = await self.records(len(vector.records), vector.clocks)
        found += await self.records(1, clocks=200)
        for at, (own, expected) in enumerate(zip(found, vector.records, strict=False)):
            assert own == expected, f"record {at} is {own:064x}, expected {expected:064x}"
        assert len(found) == len(vector.records), f"{len(found)} records, expected {len(vector.records)}"
