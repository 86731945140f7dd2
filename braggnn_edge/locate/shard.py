"""One unit of ``locate``: a run of frames to rows of the list of peaks, in one shard file."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.stages import resolve
from braggnn_edge.frames.scan import Scan
from braggnn_edge.label.acquisition import files_of_spec, open_spec
from braggnn_edge.label.spec import ScanSpec
from braggnn_edge.locate.frames import locate_frames, mark
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import open_network
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.peak_list import PEAKS, PeakFlag
from braggnn_edge.peaks.rules import Find

#: What makes the firmware's records: a dotted name, since it lies in a package above this one.
RECORDS = "quant.front_end.of_scan:records_of"


@dataclass(frozen=True)
class Task:
    """Frames [start, stop) of one scan, whose paths are complete, to one shard file.

    network: the name or file of one (:func:`braggnn_edge.locate.networks.open_network`); backend: its form, which is
    the same in every shard of a list, as forms of a float network differ in the last bits; trust: the largest sigma
    that is trusted, px; records: whether the firmware's records are made too, with that significance.
    """

    scan: int
    spec: ScanSpec
    start: int
    stop: int
    network: str
    backend: str
    find: Find
    trust: float
    shard: Path
    records: bool = False
    significance: float = 0.0

    @property
    def scan_name(self) -> str:
        """For messages."""
        return self.spec.name

    @property
    def rows(self) -> np.dtype:
        """Of the rows in the shard."""
        return PEAKS

    def inputs(self) -> tuple[Path, ...]:
        """The files of the scan, and that of the network."""
        own = () if self.network == SHIPPED else (Path(self.network),)
        return (*files_of_spec(self.spec, Path(), None), *own)

    def work(self, path: Path) -> None:
        """Write ``peaks`` (n,) of :data:`PEAKS` and ``bad_frames``, indices left out, to the npz file ``path``; and
        ``records`` (m,) if they are asked for."""
        bad: list[int] = []
        skip = (lambda index, _: bad.append(index)) if self.spec.on_bad_frame == "skip" else None
        scan = _scan(self.spec, self.shard.parent)
        pieces: list[NDArray[np.void]] = [np.empty(0, PEAKS)]
        gain = self.spec.detector.gain
        locator = network(self.network, self.backend)
        for rows in locate_frames(locator, scan, self.find, self.start, self.stop, skip, gain):
            rows["scan"] = self.scan
            for axis in ("sigma_row", "sigma_col"):
                mark(rows, rows[axis] > self.trust, PeakFlag.NOT_TRUSTED)
            pieces.append(rows)
        found: dict[str, Any] = {"peaks": np.concatenate(pieces), "bad_frames": np.array(bad, np.int64)}
        if self.records:
            found["records"] = resolve(RECORDS)(
                self.spec, self.network, scan, start=self.start, stop=self.stop, trust=self.trust,
                significance=self.significance, on_bad=None if skip is None else _left_out,
            )  # fmt: skip
        with path.open("wb") as stream:
            np.savez(stream, **found)


def _left_out(_index: int, _reason: str) -> None:
    """A bad frame has no records; the list has it among those that were left out."""


@lru_cache(maxsize=1)
def _scan(spec: ScanSpec, shards: Path) -> Scan:
    """Opened once in every process and run; the folder of the shards is unique to a run."""
    return open_spec(spec, Path(), None)


#: Threads of one process take turns to open a network, so that it is opened once.
_OPENING = Lock()


def network(name: str, backend: str) -> Locator:
    """Opened once in every process, for one thread: the shards are what runs side by side."""
    with _OPENING:
        return _opened(name, backend)


@lru_cache(maxsize=2)
def _opened(name: str, backend: str) -> Locator:
    return open_network(name, backend, threads=1)
