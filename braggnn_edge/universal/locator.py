"""The universal network as a locator: the one that ships, or one of a file."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.evaluation.provenance import ranges_of
from braggnn_edge.locate.locator import Locator
from braggnn_edge.universal.network import load

#: Patches of every matrix product, filled up with empty ones: a library sums products of other shapes in another order,
#: and the answer to a patch would depend in its last bit on how many others there are.
_BLOCK = 256
#: The network that ships.
SHIPPED = Path(__file__).parent.parent / "weights" / "universal.npz"


def universal_locator(path: Path = SHIPPED) -> Locator:
    """The network of a file as a locator with sigma, float32 on the CPU.

        locator = universal_locator()
        offsets, sigma = locator.locate_with_sigma(patches)

    ``locator.trained_on`` has the ranges of its family. Raises UserError for a file that is none.
    """
    network, calibration, provenance = load(path)

    def run(block: NDArray[np.generic]) -> NDArray[np.floating]:
        counts = np.zeros((-(-len(block) // _BLOCK) * _BLOCK, *block.shape[1:]), np.float32)
        counts[: len(block)] = block
        with torch.inference_mode():
            answers = [network.answer(part).numpy() for part in torch.from_numpy(counts).split(_BLOCK)]
        found = np.concatenate(answers)[: len(block)].astype(np.float64)
        return np.concatenate([found[:, :2], *calibration.half_widths(found[:, 2:])], axis=1)

    return Locator(
        "universal", network.size, run, "float32", "CPU", batch=2048, sigma=True, trained_on=ranges_of(provenance, path)
    )
