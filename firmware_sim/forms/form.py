"""The forms of a locator: what a form is given, what it answers, and the registry of all forms.

A form is one way to compute what the integers say: the trained network, its QONNX file, a compiled HLS project, RTL, a
netlist. Each is a generator of answers in a module of its own; one stage compares them all
(:mod:`firmware_sim.verification.verify`). A further form is one more entry here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.stages import resolve
from firmware_sim.forms.compare import Comparison
from quant.contract.arithmetic import Codes
from quant.contract.locator import IntegerLocator


@dataclass(frozen=True)
class Setting:
    """What every form gets. Row i of ``counts`` (m, window, window) is row i of ``codes``, a network's inputs, n >= m.

    Forms that begin at counts are compared on the first m rows, those that begin at codes on all.
    """

    locator: IntegerLocator
    unrolled: bool  # whether the locator is a circuit, unrolled into RTL, and not layers
    counts: Codes
    codes: Codes
    # the trained network in float64: codes to the network's output codes (n, 2 or 4); None where none was trained here
    trained: Callable[[Codes], Codes] | None
    run: Path  # the run directory, whose stages qat, hls and rtl are finished
    scratch: Path  # for what is compiled and for chunks of results
    chunk: int  # patches of the C simulation at a time
    software: int  # patches for QONNX, 0 for all
    netlist: int  # patches for the mapped netlist, 0 for no netlist
    workers: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """What one form made of the patches ``rows`` of the setting: ``outputs`` (k, 2 or 4), the locator's output codes.

    wrong: patches that differ in a step which the outputs do not show; comparison: of steps and layers; steps: further
    comparisons to be recorded by their own names; hardware: a row of the report; shown: the name of its positions.
    """

    name: str
    rows: NDArray[np.int64]
    outputs: Codes
    wrong: int = 0
    comparison: Comparison | None = None
    steps: dict[str, Comparison] = field(default_factory=dict)
    hardware: dict[str, Any] | None = None
    shown: str = ""


@dataclass(frozen=True)
class Form:
    """One entry: where its answers come from, and for which locators it exists."""

    name: str
    answers: str  # dotted name of ``answers(setting)``, a generator
    layers: bool = True
    circuits: bool = True


#: All forms, in the order in which they are compared.
FORMS = (
    Form("quantized", "firmware_sim.forms.software:quantized"),
    Form("qonnx", "firmware_sim.forms.software:qonnx"),
    Form("csim", "firmware_sim.forms.projects:answers"),
    Form("rtl", "firmware_sim.forms.rtl:answers", layers=False),
    Form("netlist", "firmware_sim.forms.rtl:netlist", layers=False),
)


def answers(setting: Setting) -> Iterator[Answer]:
    """The answers of every form that there is of this locator."""
    for form in FORMS:
        if form.circuits if setting.unrolled else form.layers:
            yield from resolve(form.answers)(setting)


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """``wanted`` of ``count`` indices, or all for 0, evenly spread."""
    if not wanted or wanted >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, wanted).astype(np.int64))


def progress(name: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Says how many chunks are done, ten times in all."""
    shown = [0]

    def report(done: int, total: int) -> None:
        if done * 10 // total > shown[0]:
            shown[0] = done * 10 // total
            say(f"  {name}: {done} of {total} chunks")

    return report
