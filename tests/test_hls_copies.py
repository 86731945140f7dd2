"""Selects of the shift: they come out of registers, and no register drives more multiplexer bits than it should."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hls.rtl.cmvm import Effort
from hls.rtl.copies import LOADS, copied
from hls.rtl.core import core_files, pipelined
from hls.rtl.project import write_rtl
from hls.rtl.trace import trace
from quant.contract.block_shift import BlockShift
from quant.contract.locator import load
from quant.contract.normalize import Normalizer

CIRCUIT = Path(__file__).with_name("golden") / "circuit.json"
MUX = re.compile(r"mux #\(((?:-?\d+, ){6}-?\d+)\) op_\d+ \((\w+)\[(\d+)\]")
PLACE = re.compile(r"assign (v\d+)\[\d+:0\] = model_inp\[\d+:(\d+)\];")


def _loads(text):
    """Multiplexer bits of each key of a stage: of registers by their place, of copies, of values made in the stage."""
    places = {value: int(low) for value, low in PLACE.findall(text)}
    loads = Counter()
    for widths, value, bit in MUX.findall(text):
        name = ("register", places[value] + int(bit)) if value in places else (value, int(bit))
        loads[name] += int(widths.split(", ")[4])
    return loads


def _stages(circuit, levels):
    pipe = pipelined(trace(circuit, effort=Effort(trials=1), levels=levels), levels)
    return core_files(pipe, "core", copies=True)


@pytest.mark.parametrize("levels", [1.0, 3.0, 4.0, 7.0])
def test_no_select_has_more_loads_than_it_should(levels):
    files = _stages(load(CIRCUIT), levels)
    loads = {name: _loads(text) for name, text in files.items() if "_stage" in name}
    assert max(max(found.values(), default=0) for found in loads.values()) <= LOADS
    used = {name for found in loads.values() for name, _ in found}
    assert "copies" in used  # 25 pixels of some bits each are more than one register drives
    for index, bits in re.findall(r"stage(\d+)_copies <= \{(.*)\};", files["core.v"]):
        text = files[f"core_stage{index}.v"]
        assert len(bits.split(", ")) == len({name for name in _loads(text) if name[0] == "copies"})
        assert f"input [{len(bits.split(', ')) - 1}:0] copies," in text


@pytest.mark.parametrize("normalizer", [BlockShift(4, 12, subtract=True), Normalizer(4, 12, 3)])
def test_the_selects_of_every_normalizer_come_out_of_registers(normalizer, random_circuit):
    """The widest multiplexers with one key for all pixels; without the register their key was made in the stage."""
    files = _stages(random_circuit(5, normalizer=normalizer, hidden=(2,)), 4.0)
    for name, text in files.items():
        inside = {key: total for key, total in _loads(text).items() if key[0] not in ("register", "copies")}
        assert max(inside.values(), default=0) <= LOADS, (name, inside)


def test_copies_share_the_loads():
    lines = [
        f"    wire [9:0] v{n}; m_mux #(4, 4, 0, 0, 10, 0, 0) op_{n} (v1[0], v2[3:0], v2[3:0], v{n}[9:0]);"
        for n in range(3, 18)
    ]
    stage = "\n".join(
        ["module s (", "    input [4:0] model_inp,", "    output [3:0] model_out", ");",
         "    wire [0:0] v1; assign v1[0:0] = model_inp[4:4];", *lines, "endmodule"]
    )  # fmt: skip
    made = copied(stage)
    assert made.bits == (4, 4)  # 150 loads: a register and two copies
    assert sorted(_loads(made.text).values()) == [30, 60, 60]
    assert copied(stage, most=150).text == stage


def test_selects_without_a_register(tmp_path):
    """They are as they were: made in a stage, one for all pixels, and there is no copy."""
    counts = np.zeros((1, 11, 11))
    circuit = load(CIRCUIT)
    for register_selects in (False, True):
        directory = tmp_path / str(register_selects)
        made = write_rtl(
            circuit, directory, counts=counts[:, : circuit.size, : circuit.size], effort=Effort(trials=1),
            register_selects=register_selects, logic_levels=4.0,
        )  # fmt: skip
        assert made.register_selects == register_selects
        assert ("copies" in (directory / "src" / "braggnn_rtl_core.v").read_text()) == register_selects
