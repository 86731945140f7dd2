"""Reference inference: one :class:`Locator` over all forms of a network, patches in, positions out.

    locator = float_locator(net)                       # the fastest form on this machine's CPU
    offsets = locator.locate(patches)                  # (n, size, size) counts -> (n, 2) px

Frames are for :mod:`braggnn_edge.locate.frames`. A locator works in batches, so memory is bounded whatever is asked of
it; a batch for which the device has no memory is tried again in halves, and what is finished is kept. The forms of a
float network are in :mod:`braggnn_edge.locate.float_forms`, those of a quantized one in :mod:`quant.exchange.locators`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.provenance import Ranges
from braggnn_edge.locate.device import BATCH, DevicePipeline

Patches = NDArray[np.generic]
Offsets = NDArray[np.float64]

#: Types of counts that are handed on as they are; others become float32.
_PASSED = tuple(np.dtype(name) for name in ("uint8", "uint16", "int16", "int32", "float32"))


@dataclass
class Locator:
    """One form of a network on one device.

    run: a block (m, size, size) of counts, C order, uint8, uint16, int16, int32 or float32 and finite, to offsets
    (m, 2) px, or with ``sigma`` to (m, 6): these, the standard deviations of each, and the half-widths of the intervals
    that hold 95.45 % of the errors, px; to (m, 4) without the last. name: of the form; precision and device: in words;
    batch: patches in a block, halved for good when the device is out of memory, and never below ``least``.
    trained_on: the ranges of what the network was trained on, where they are known; outside: patches so far whose
    brightest pixel was fainter or brighter than these. photons: sigma supposes that a count is a photon, and the
    network may be given counts divided by the gain. window: side of the central part of a patch that the network looks
    at, px; 0: all of it. form: what to ask for as the back end to get this form again; remark: how it was chosen, in
    words; exact: every form of the network gives the same bits.
    """

    name: str
    size: int
    run: Callable[[Patches], NDArray[np.floating]]
    precision: str
    device: str
    batch: int = 4096
    least: int = 16
    sigma: bool = False
    trained_on: Ranges | None = None
    photons: bool = False
    window: int = 0
    exact: bool = False
    form: str = ""
    remark: str = ""
    retries: int = field(default=0, init=False)
    outside: int = field(default=0, init=False)

    def locate(self, patches: Patches) -> Offsets:
        """Offsets (n, 2) (row, col) px from the centre pixel of patches (n, size, size) in counts.

        A flat patch is answered like any other (its normalized pixels are 0). Raises UserError for another shape, a
        type that is no real number, NaN or infinity, and when the device has no memory for ``least`` patches.
        """
        return self._answers(patches)[:, :2]

    def locate_with_sigma(self, patches: Patches) -> tuple[Offsets, Offsets]:
        """:meth:`locate`, and the standard deviations (n, 2) px of the offsets as the network knows them.

        Raises UserError for a network that does not know them, and as :meth:`locate` does.
        """
        return self.locate_with_intervals(patches)[:2]

    def locate_with_intervals(self, patches: Patches) -> tuple[Offsets, Offsets, Offsets]:
        """:meth:`locate_with_sigma`, and the half-widths (n, 2) px of the intervals that hold 95.45 % of the errors.

        They are no multiple of sigma, since errors are not normally distributed; NaN from a form that has none. Raises
        UserError as :meth:`locate_with_sigma` does.
        """
        if not self.sigma:
            raise UserError(f"{self.name} knows no sigma; choose a network that does, such as the universal one")
        found = self._answers(patches)
        return found[:, :2], found[:, 2:4], found[:, 4:]

    def _answers(self, patches: Patches) -> Offsets:
        patches = np.asarray(patches)
        if patches.ndim != 3 or patches.shape[1:] != (self.size, self.size):
            raise UserError(
                f"patches have shape {patches.shape}; {self.name} expects (n, {self.size}, {self.size}): cut patches "
                "of that size, or choose the network trained for these"
            )
        if patches.dtype.kind not in "iuf":
            raise UserError(f"patches are {patches.dtype}; expected integers or floats in detector counts")
        offsets = np.full((len(patches), 6 if self.sigma else 2), np.nan)
        start = 0
        while start < len(patches):
            stop = min(start + self.batch, len(patches))
            block = _block(patches[start:stop], start)
            try:
                answered = self.run(block)
                offsets[start:stop, : answered.shape[1]] = answered
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                self._shrink(error)
                continue
            if self.trained_on is not None:
                self.outside += int((~self.trained_on.has_counts(block.max(axis=(1, 2)))).sum())
            start = stop
        return offsets

    def stream(self, batches: Iterable[Patches]) -> Iterator[Offsets]:
        """:meth:`locate` for one array of patches after the other; nothing is kept between them."""
        for patches in batches:
            yield self.locate(patches)

    def _shrink(self, error: Exception) -> None:
        if self.batch <= self.least:
            raise UserError(
                f"{self.device} has too little free memory for {self.batch} patches at a time in {self.name}; free "
                "some, or locate on the CPU"
            ) from error
        self.batch = max(self.batch // 2, self.least)
        self.retries += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _block(patches: Patches, start: int) -> Patches:
    """Contiguous counts of a type that locators take."""
    with np.errstate(over="ignore"):  # becomes infinity, which is refused
        block = np.ascontiguousarray(patches, None if patches.dtype in _PASSED else np.float32)
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        bad = start + int(np.argmin(np.isfinite(block).all(axis=(1, 2))))
        raise UserError(
            f"patch {bad} holds NaN, infinity or a value beyond float32; mask dead pixels before cutting patches"
        )
    return block


def _out_of_memory(error: Exception) -> bool:
    """Whether a library says that memory is short; onnxruntime has no type of its own for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in words or "failed to allocate memory" in words)


def check_device(device: str) -> None:
    """Raise UserError unless torch can compute on ``device``, "cpu", "cuda" or "cuda:1"."""
    if not device.startswith(("cpu", "cuda")):
        raise UserError(f"torch has no device {device!r} here; expected cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("torch sees no CUDA device; use device cpu, or install a CUDA build of torch")


def on_device(
    name: str,
    size: int,
    module: Callable[[torch.Tensor], torch.Tensor],
    precision: str,
    device: str,
    *,
    sigma: bool = False,
    trained_on: Ranges | None = None,
    graphs: bool = True,
) -> Locator:
    """A network whose steps are all on a GPU as a locator: counts (m, size, size) to (m, 2), with sigma (m, 6)."""
    pipeline = DevicePipeline(module, device, outputs=6 if sigma else 2, graphs=graphs)
    described = torch.cuda.get_device_name(device)
    locator = Locator(name, size, pipeline, precision, described, batch=BATCH, sigma=sigma, trained_on=trained_on)

    def run(block: Patches) -> NDArray[np.floating]:
        pipeline.fit_into(locator.batch)  # which was halved, when the device had no memory
        return pipeline(block)

    locator.run = run
    return locator
