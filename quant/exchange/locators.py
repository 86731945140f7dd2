"""The quantized network as a ``Locator``: compiled, the emulator, int8 QDQ in onnxruntime, or the fastest here."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.provenance import Ranges, ranges_of
from braggnn_edge.locate import choice
from braggnn_edge.locate.locator import Locator, check_device, on_device
from braggnn_edge.locate.onnx_session import session
from braggnn_edge.locate.stage import AUTO
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.locator import IntegerLocator
from quant.contract.vectors import corner_case_inputs, random_inputs
from quant.exchange.compiled_locator import compiled_locator
from quant.exchange.device import IntegersOnDevice
from quant.exchange.qdq import Target, qdq_model

_CHECKED_PATCHES = 500


def integer_locator(locator: IntegerLocator, device: str = "cpu", *, backend: str = AUTO, threads: int = 0) -> Locator:
    """A locator's integers, which equal the firmware code for code, from detector counts on.

        located = integer_locator(load(Path("runs/demo/qat/locator.json"))).locate(patches)

    device: "cpu", or "cuda" or "cuda:1" for the same integers on a GPU. backend: on the CPU one of :data:`FORMS`, or
    "auto" for the fastest of them here; all give the same codes. threads: of the CPU (0: torch's number).

    Counts beyond those of the hardware saturate as they do there; ``outside`` of the result counts such patches. Raises
    UserError for a form that there is not, and for one that cannot hold these integers.
    """
    check_device(device)
    if device.startswith("cuda"):
        if backend != AUTO:
            raise UserError(f"backend {backend!r} computes on the CPU; leave it out for device {device}")
        module = IntegersOnDevice(locator).to(device)
        sigma = locator.calibration is not None
        made = on_device(
            "integers", locator.size, module.values, "integer", device, sigma=sigma, trained_on=_ranges(locator)
        )
        made.window = locator.window
        return made
    if backend not in (AUTO, *FORMS):
        raise UserError(
            f"backend {backend!r} is unknown for a network of integers; expected one of {', '.join((AUTO, *FORMS))}"
        )
    threads = threads or torch.get_num_threads()
    if backend == AUTO:
        opening = {name: partial(_of_form, locator, name) for name in FORMS}
        return choice.fastest(opening, locator.digest, locator.size, threads, locator.locate, 0.0)
    return _of_form(locator, backend, threads)


def _of_form(locator: IntegerLocator, backend: str, threads: int) -> Locator:
    made = FORMS[backend](locator, threads)
    made.form, made.exact, made.trained_on, made.window = backend, True, _ranges(locator), locator.window
    return made


def _ranges(locator: IntegerLocator) -> Ranges | None:
    """What the network was trained on: what the hardware's counts cannot hold saturates, and is outside too."""
    found = ranges_of(locator.provenance, Path("locator.json"))
    if found is None:
        return None
    low, high = found.counts
    return replace(found, counts=(low, min(high, float(locator.normalizer.count_range[1]))))


def emulator_locator(locator: IntegerLocator) -> Locator:
    """The integer emulator, which defines what all other forms must give."""
    return _of_form(locator, "emulator", 1)


def _emulator(locator: IntegerLocator, _: int) -> Locator:
    if locator.calibration is None:
        return Locator("integer emulator", locator.size, locator.locate, "integer", "CPU")

    def run(block: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.concatenate(locator.locate_with_intervals(block), axis=1)

    return Locator("integer emulator", locator.size, run, "integer", "CPU", sigma=True)


def qdq_locator(locator: IntegerLocator, target: Target = "cpu", device: str = "cpu", threads: int = 0) -> Locator:
    """The int8 QDQ file of a locator's network in onnxruntime; normalizer and centroid stay integers on the host.

    target: see :mod:`quant.exchange.qdq`; device: "cpu", "cuda" or "tensorrt". Integer kernels are used where they give
    the emulator's codes on corner cases and random patches; where they do not (onnxruntime rounds float biases;
    processors without VNNI may saturate), the file is executed as it is written, in float32, which is exact.
    """
    integer = locator.network
    model = qdq_model(integer, target)
    threads = threads or torch.get_num_threads()
    fused = True
    opened = session(model, device, threads)

    def outputs(codes: NDArray[np.integer]) -> Codes:
        given = codes if integer.exponent else codes[:, None]
        values = opened.run(None, {"codes": given.astype(np.uint8)})[0]
        return np.rint(np.ldexp(values, integer.output.frac)).astype(np.int64)

    random = random_inputs(integer, _CHECKED_PATCHES, np.random.default_rng(0))
    codes = np.concatenate([corner_case_inputs(integer), random])
    if device == "cpu" and not np.array_equal(outputs(codes), emulate.run(integer, codes).outputs):
        fused = False
        opened = session(model, device, threads, fused=False)
    words = {"cpu": "CPU", "tensorrt": "TensorRT"}.get(device, device.upper())

    def run(block: NDArray[np.generic]) -> NDArray[np.float64]:
        inputs = locator.codes(block)
        found = locator.combined(inputs, outputs(inputs))
        positions = locator.positions(found)
        return positions if locator.calibration is None else np.concatenate([positions, *locator.intervals(found)], 1)

    return Locator(
        f"onnxruntime QDQ ({target})", locator.size, run, "int8" if fused else "int8 in float32", words, batch=512,
        sigma=locator.calibration is not None, window=locator.window,
    )  # fmt: skip


def load_integer_locator(path: Path, device: str = "cpu", *, backend: str = AUTO, threads: int = 0) -> Locator:
    """:func:`integer_locator` of a ``locator.json``."""
    return integer_locator(locators.load(path), device, backend=backend, threads=threads)


#: Forms of the integers on a CPU by name, the preferred first; each (locator, threads) to a Locator, or UserError where
#: it cannot hold them. All give the same codes.
FORMS: dict[str, Callable[[IntegerLocator, int], Locator]] = {
    "compiled": compiled_locator,
    "onnxruntime": lambda locator, threads: qdq_locator(locator, "cpu", threads=threads),
    "emulator": _emulator,
}
