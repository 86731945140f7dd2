"""The tests of the bench. Each starts with a reset and sets all registers itself, so that any may run alone."""

import cocotb
from bench import PROJECT, REGISTERS, SIZES, Bench, Vector
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiResp

VECTORS = sorted(path.name.split(".")[0] for path in (PROJECT / "vectors").glob("*.records.hex"))


@cocotb.test()
@cocotb.parametrize(name=VECTORS, pace=[(0.0, 0.0), (0.3, 0.0), (0.1, 0.5)])
async def records_are_the_contracts(dut, name, pace):
    """Every vector, without and with gaps before beats and stalls of the output."""
    bench, vector = Bench(dut), Vector(name)
    await bench.reset()
    await bench.settings(vector)
    bench.pace(*pace)
    await bench.send(vector)
    await bench.check(vector)
    assert await bench.read("dropped") == 0


@cocotb.test()
@cocotb.parametrize(owed=[False, True] if SIZES["external"] else [False])
async def a_reset_in_mid_frame_leaves_nothing_behind(dut, owed):
    """Rows of a frame, a reset between two beats, then everything from the start: the same records.

    owed: the reset comes when an external locator has a patch that it has not answered.
    """
    bench, vector = Bench(dut), Vector("whole")
    await bench.reset()
    await bench.settings(vector)
    await bench.send(vector, stop=None if owed else 9)
    await ClockCycles(dut.clk, 50)
    if owed:
        await with_timeout(bench.has_patch.wait(), 100, "us")
    await bench.reset()
    assert await bench.read("enable") == 0
    await bench.settings(vector)
    await bench.send(vector)
    await bench.check(vector)


@cocotb.test()
async def nothing_is_ready_during_reset(dut):
    """No handshake can take place while rst is 1."""
    bench = Bench(dut)
    await bench.reset()
    dut.rst.value = 1
    for _ in range(5):
        await RisingEdge(dut.clk)
        ready = (dut.s_axis_tready, dut.s_axi_awready, dut.s_axi_wready, dut.s_axi_arready)
        assert not any(int(one.value) for one in ready)
    dut.rst.value = 0


@cocotb.test()
async def the_identity_is_the_projects(dut):
    """Sizes and digest in the registers are those of project.json."""
    bench = Bench(dut)
    await bench.reset()
    assert await bench.read("identity") == 0x42464531
    assert await bench.read("shape") & 0xFFFF == SIZES["pixels"] | SIZES["bits"] << 8
    digest = "".join([f"{await bench.read(f'digest_{k}'):08x}" for k in range(8)])
    assert digest == SIZES["digest"]


@cocotb.test()
async def wrong_writes_are_refused(dut):
    """A value out of range, a register that is read only, an address without a register, part of a register."""
    bench = Bench(dut)
    await bench.reset()
    for register, value in (("enable", 2), ("cols", SIZES["max_cols"] + SIZES["pixels"]), ("identity", 1), (0xFC, 0)):
        assert await bench.write(register, value) == AxiResp.SLVERR, register
    assert (await bench.master.write(REGISTERS["threshold"], b"\1")).resp == AxiResp.SLVERR
    assert await bench.read("cols") == SIZES["max_cols"]
    assert await bench.read("threshold") == 0


@cocotb.test()
async def the_known_answer_test_passes(dut):
    """The stored frame gives the stored record, between frames of a stream as well, which does not notice it."""
    bench, vector = Bench(dut), Vector("whole")
    await bench.reset()
    await bench.settings(vector)
    await bench.send(vector)
    await ClockCycles(dut.clk, 20)
    assert await bench.write("test", 1) == AxiResp.OKAY
    await bench.check(vector)
    for _ in range(1000):
        status = await bench.read("status")
        if status & 4:
            break
    assert status & 12 == 12, f"status is {status}: the test is not done, or not passed"
