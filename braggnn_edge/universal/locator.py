"""The universal network as a locator: the one that ships, or one of a file."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.provenance import ranges_of
from braggnn_edge.locate.locator import Locator, check_device, on_device
from braggnn_edge.universal.device import UniversalOnDevice
from braggnn_edge.universal.network import SHIPPED, load

#: Patches of every matrix product, filled up with empty ones: a library sums products of other shapes in another order,
#: and the answer to a patch would depend in its last bit on how many others there are.
_BLOCK = 256


def universal_locator(path: Path = SHIPPED, device: str = "cpu", precision: str = "float32") -> Locator:
    """The network of a file as a locator with sigma, on the CPU in float32, or on a GPU.

        locator = universal_locator()
        offsets, sigma = locator.locate_with_sigma(patches)

    ``locator.trained_on`` has the ranges of its family. device: "cpu", "cuda" or "cuda:1"; precision: of the hidden
    layers, on a GPU also bfloat16 or float16. Raises UserError for a file that is none, and for a device that is not
    there.
    """
    network, calibration, provenance = load(path)
    check_device(device)
    if device.startswith("cuda"):
        module = UniversalOnDevice(network, calibration, precision).to(device)
        ranges = ranges_of(provenance, path)
        made = on_device("universal", network.size, module, precision, device, sigma=True, trained_on=ranges)
        made.photons = True
        return made
    if precision != "float32":
        raise UserError(f"the universal network is float32 on the CPU, not {precision}; leave out precision")

    def run(block: NDArray[np.generic]) -> NDArray[np.floating]:
        counts = np.zeros((-(-len(block) // _BLOCK) * _BLOCK, *block.shape[1:]), np.float32)
        counts[: len(block)] = block
        with torch.inference_mode():
            answers = [network.answer(part).numpy() for part in torch.from_numpy(counts).split(_BLOCK)]
        found = np.concatenate(answers)[: len(block)].astype(np.float64)
        return np.concatenate([found[:, :2], *calibration.half_widths(found[:, 2:])], axis=1)

    return Locator(
        "universal", network.size, run, "float32", "CPU", batch=2048, sigma=True, photons=True,
        trained_on=ranges_of(provenance, path),
    )  # fmt: skip
