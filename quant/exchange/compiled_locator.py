"""A locator's integers, compiled for this processor, as a ``Locator``."""

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.locate.locator import Locator
from quant.compiled.kernel import CompiledIntegers
from quant.contract.locator import IntegerLocator


def compiled_locator(locator: IntegerLocator, threads: int = 0) -> Locator:
    """A locator's integers in vector lanes (:mod:`quant.compiled`): the emulator's codes from detector counts on.

    threads: of the CPU (0: torch's number); answers do not depend on it. Raises UserError where there is no compiler,
    and for a locator that has no compiled form.
    """
    codes = CompiledIntegers(locator, threads or torch.get_num_threads())

    def run(block: NDArray[np.generic]) -> NDArray[np.float64]:
        found = codes(block)
        positions = locator.positions(found)
        return positions if locator.calibration is None else np.concatenate([positions, *locator.intervals(found)], 1)

    return Locator(
        "compiled integers", locator.size, run, "integer", "CPU", batch=8192, sigma=locator.calibration is not None
    )  # fmt: skip
