"""The quantized network as a ``Locator``: the integer emulator, int8 QDQ in onnxruntime."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.evaluation.provenance import ranges_of
from braggnn_edge.locate.locator import Locator, check_device, on_device
from braggnn_edge.locate.onnx_session import session
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.locator import IntegerLocator
from quant.contract.vectors import corner_case_inputs, random_inputs
from quant.exchange.device import IntegersOnDevice
from quant.exchange.qdq import Target, qdq_model

_CHECKED_PATCHES = 500


def integer_locator(locator: IntegerLocator, device: str = "cpu") -> Locator:
    """A locator's integers, which equal the firmware code for code, from detector counts on.

    device: "cpu" for the emulator, "cuda" or "cuda:1" for the same integers on a GPU.

    Counts beyond those of the hardware saturate as they do there; ``outside`` of the result counts such patches.
    """
    ranges = ranges_of(locator.provenance, Path("locator.json"))
    if ranges is not None:  # what the hardware's counts cannot hold saturates, and is outside too
        low, high = ranges.counts
        ranges = replace(ranges, counts=(low, min(high, float(locator.normalizer.count_range[1]))))
    check_device(device)
    if device.startswith("cuda"):
        module = IntegersOnDevice(locator).to(device)
        sigma = locator.calibration is not None
        return on_device(
            "integers", locator.size, module.values, "integer", device, sigma=sigma, trained_on=ranges
        )  # fmt: skip
    if locator.calibration is None:
        return Locator("integer emulator", locator.size, locator.locate, "integer", "CPU", trained_on=ranges)

    def run(block: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.concatenate(locator.locate_with_intervals(block), axis=1)

    return Locator("integer emulator", locator.size, run, "integer", "CPU", sigma=True, trained_on=ranges)


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
        sigma=locator.calibration is not None,
    )  # fmt: skip


def load_integer_locator(path: Path, device: str = "cpu") -> Locator:
    """:func:`integer_locator` of a ``locator.json``."""
    return integer_locator(locators.load(path), device)
