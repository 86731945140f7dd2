"""The records of a scan's frames: what the firmware would send of them, with the settings that ``locate`` has.

    records = records_of(spec, "universal_circuit.json", scan, start=0, stop=100)       # (n,) of RECORD

The front end gets the raw frames, with the scan's dark and mask in its memories. Pixels that the scan calls bad in one
frame alone (negative ones, or at the overflow value) are masked in that frame; a front end, whose mask is fixed, sends
the same where the mask names them.
"""

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.scan import OnBad, Scan
from braggnn_edge.label.spec import ScanSpec
from braggnn_edge.peaks.significance import significance_of
from quant.contract.locator import IntegerLocator, load
from quant.front_end.pipeline import Pipeline, Shot
from quant.front_end.records import RECORD, Records
from quant.front_end.spec import FrontEnd


def records_of(
    spec: ScanSpec,
    network: str | Path,
    scan: Scan,
    *,
    start: int = 0,
    stop: int | None = None,
    trust: float = math.inf,
    significance: float = 0.0,
    on_bad: OnBad | None = None,
) -> Records:
    """The records (n,) of :data:`RECORD` of frames ``start`` to ``stop``, each numbered as in the scan.

    network: a ``locator.json``; trust: the largest sigma that is trusted, px; significance: of a peak, in standard
    deviations of the scan's noise, 0: there is no test; on_bad: as for ``scan.frames``, without
    it BadFrame is raised. Raises UserError for what a front end cannot be set to, and for counts that it has no bits
    for.
    """
    locator = _locator(str(network))
    pipeline = Pipeline(front_end_of(spec, scan, locator, trust, significance), locator)
    raw = replace(scan, dark=None, mask=None)
    shots = (
        Shot(frame, None if valid is None else ~valid, stored, number=index)
        for index, frame, valid, stored in raw.frames_with_stored(start, stop, on_bad)
    )
    return np.concatenate([np.empty(0, RECORD), *pipeline.records(shots)])


@lru_cache(maxsize=1)
def _locator(network: str) -> IntegerLocator:
    """Read once in every process."""
    return load(Path(network))


def check(spec: ScanSpec, network: str | Path, scan: Scan, trust: float = math.inf, significance: float = 0.0) -> None:
    """Raise the UserError of :func:`records_of` before any frame is read."""
    locator = load(Path(network))
    front_end_of(spec, scan, locator, trust, significance).check(locator)


def front_end_of(
    spec: ScanSpec, scan: Scan, locator: IntegerLocator, trust: float = math.inf, significance: float = 0.0
) -> FrontEnd:
    """The front end with the settings of a scan. Raises UserError where it cannot have them.

    Counts have the bits of the file's type, at most 16; a threshold with a fraction becomes the whole count below,
    which is the same for whole counts. Without a saturation the largest count is saturated.
    """
    if spec.background_box or spec.sigma:
        raise UserError(
            "records: firmware has a threshold that does not follow the background of a frame; give --threshold COUNTS "
            "and no --background-box"
        )
    if scan.source.dtype.kind not in "iu":
        raise UserError(f"records: frames are {scan.source.dtype}; a front end takes whole counts")
    bits = min(16, max(8, 8 * scan.source.dtype.itemsize))
    saturation = min(math.ceil(spec.detector.saturation), (1 << bits) - 1)
    return FrontEnd(
        *scan.shape[1:], bits=bits, threshold=math.floor(spec.threshold), min_area=spec.min_area, window=locator.window,
        saturation=saturation, dark=_whole(scan.dark), mask=scan.mask,
        sigma_limit=locator.code_of_sigma(trust) if math.isfinite(trust) else (1 << 15) - 1,
        significance=significance_of(significance, spec.detector.gain, spec.detector.read_noise),
    )  # fmt: skip


def _whole(dark: NDArray[np.generic] | None) -> NDArray[np.integer] | None:
    if dark is None:
        return None
    found = dark.astype(np.int64)
    if not np.array_equal(found, dark):
        raise UserError("records: the dark has fractions of a count; a front end subtracts whole counts: round it")
    return found
