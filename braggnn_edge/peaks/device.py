"""Peaks of frames that lie on a device, by the window rule, and their patches: the host sees no pixel.

The rule is that of :mod:`braggnn_edge.peaks.window`, without the peaks whose patch does not fit in the frame. Condition
(3), on the component's area, is taken as it is written there: ``min_area - 1`` steps through 8-neighbours.
"""

import torch
from torch import Tensor
from torch.nn import functional

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.window import STEPS

#: Counts up to here are exact in float32, in which pixels are compared.
_EXACT = 1 << 24


@torch.inference_mode()
def find_on_device(
    frames: Tensor,
    *,
    threshold: float | Tensor,
    valid: Tensor | None = None,
    reach: int = STEPS,
    min_area: int = 4,
    size: int = 11,
) -> tuple[Tensor, Tensor, Tensor]:
    """Peaks of frames (f, rows, cols): their frame, row and column, each (m,) int64, in raster order.

    frames: uint8, uint16, int16 or float32; counts beyond 2**24 tie with their neighbours in float32. threshold: one
    number of counts, or a map (rows, cols) on the device; valid: (rows, cols) bool, False for pixels to leave out.
    size: of the patches, px, odd. Raises UserError for other shapes.
    """
    if frames.ndim != 3 or min(frames.shape[1:]) < size or size % 2 == 0:
        raise UserError(
            f"frames of shape {tuple(frames.shape)}: expected (f, rows, cols), each way at least the {size} px of a "
            "patch, an odd number"
        )
    if reach < 0 or min_area < 1:
        raise UserError(f"reach {reach}, min_area {min_area}: expected 0 px or more, and 1 pixel or more")
    image = frames.to(torch.float32)
    above = image > threshold
    if valid is not None:
        above &= valid
    image = torch.where(above, image, -torch.inf)
    highest = functional.max_pool2d(image, (1, 2 * reach + 1), 1, (0, reach))
    highest = functional.max_pool2d(highest, (2 * reach + 1, 1), 1, (reach, 0))
    half, (rows, cols) = size // 2, frames.shape[1:]
    top = torch.zeros_like(above)
    inner = (slice(None), slice(half, rows - half), slice(half, cols - half))  # where patches fit
    top[inner] = above[inner] & (image[inner] == highest[inner])
    frame, row, col = top.nonzero(as_tuple=True)
    kept = _first_of_equals(image, frame, row, col, reach)
    frame, row, col = frame[kept], row[kept], col[kept]
    kept = _large(above, frame, row, col, min_area)
    return frame[kept], row[kept], col[kept]


@torch.inference_mode()
def crops_on_device(frames: Tensor, frame: Tensor, row: Tensor, col: Tensor, size: int) -> Tensor:
    """Patches (m, size, size) of frames (f, rows, cols) around peaks whose patches fit, of the frames' type."""
    step = torch.arange(size, device=frames.device) - size // 2
    rows, cols = row[:, None, None] + step[:, None], col[:, None, None] + step
    # An index into unsigned 16-bit numbers is not offered everywhere; their bits are.
    bits = frames.view(torch.int16) if frames.dtype == torch.uint16 else frames
    return bits[frame[:, None, None], rows, cols].view(frames.dtype)


def _around(image: Tensor, frame: Tensor, row: Tensor, col: Tensor, reach: int, beyond: float) -> Tensor:
    """Values (m, 2 reach + 1, 2 reach + 1) around pixels; ``beyond`` outside the frame."""
    step = torch.arange(-reach, reach + 1, device=image.device)
    rows, cols = row[:, None, None] + step[:, None], col[:, None, None] + step
    there = (rows >= 0) & (rows < image.shape[1]) & (cols >= 0) & (cols < image.shape[2])
    values = image[frame[:, None, None], rows.clamp(0, image.shape[1] - 1), cols.clamp(0, image.shape[2] - 1)]
    return torch.where(there, values, beyond)


def _first_of_equals(image: Tensor, frame: Tensor, row: Tensor, col: Tensor, reach: int) -> Tensor:
    """(m,) whether no earlier pixel in raster order within reach is as bright."""
    around = _around(image, frame, row, col, reach, -torch.inf).flatten(1)
    centre = around.shape[1] // 2
    return (around[:, :centre] < around[:, centre, None]).all(1)


def _large(above: Tensor, frame: Tensor, row: Tensor, col: Tensor, min_area: int) -> Tensor:
    """(m,) whether the component has ``min_area`` pixels: as many steps as that takes, in a window that holds them."""
    mask = _around(above, frame, row, col, min_area - 1, False).to(torch.float32)[:, None]
    reached = torch.zeros_like(mask)
    reached[:, :, min_area - 1, min_area - 1] = 1
    for _ in range(min_area - 1):
        reached = functional.max_pool2d(reached, 3, 1, 1) * mask
    return reached.sum((1, 2, 3)) >= min_area
