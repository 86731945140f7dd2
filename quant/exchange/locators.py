"""The quantized network as a ``Locator``: the integer emulator, int8 QDQ in onnxruntime."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.onnx_session import session
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.block_shift import BlockShift
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.vectors import corner_case_codes, random_codes
from quant.exchange.qdq import Target, qdq_model

_CHECKED_PATCHES = 500


def integer_locator(locator: IntegerLocator) -> Locator:
    """A locator's integers, which equal the firmware code for code, from detector counts on."""
    return Locator("integer emulator", locator.size, locator.locate, "integer", "CPU")


def qdq_locator(
    integer: IntegerNetwork,
    normalizer: Normalizer | BlockShift,
    target: Target = "cpu",
    device: str = "cpu",
    threads: int = 0,
) -> Locator:
    """The int8 QDQ file of ``integer`` in onnxruntime; the normalizer stays integer arithmetic on the host.

    target: see :mod:`quant.exchange.qdq`; device: "cpu", "cuda" or "tensorrt". Integer kernels are used where they give
    the emulator's codes on corner cases and random patches; where they do not (onnxruntime rounds float biases;
    processors without VNNI may saturate), the file is executed as it is written, in float32, which is exact.
    """
    model = qdq_model(integer, target)
    threads = threads or torch.get_num_threads()
    fused = True
    opened = session(model, device, threads)

    def located(codes: NDArray[np.integer]) -> NDArray[np.float32]:
        return opened.run(None, {"codes": codes[:, None].astype(np.uint8)})[0]

    tried = [corner_case_codes(integer.size, integer.input)]
    tried.append(random_codes(integer.size, integer.input, _CHECKED_PATCHES, np.random.default_rng(0)))
    codes = np.concatenate(tried)
    wanted = integer.output.values(emulate.run(integer, codes).outputs)
    if device == "cpu" and not np.array_equal(located(codes), wanted):
        fused = False
        opened = session(model, device, threads, fused=False)
    words = {"cpu": "CPU", "tensorrt": "TensorRT"}.get(device, device.upper())
    return Locator(
        f"onnxruntime QDQ ({target})",
        integer.size,
        lambda block: located(normalizer.codes(block)),
        "int8" if fused else "int8 in float32",
        words,
        batch=512,
    )


def load_integer_locator(path: Path) -> Locator:
    """:func:`integer_locator` of a ``locator.json``."""
    return integer_locator(locators.load(path))
