"""What a unit of work is to those who hand it out: a run of frames of one scan that becomes one shard file."""

from pathlib import Path
from typing import Protocol

import numpy as np


class Unit(Protocol):
    """Frames [start, stop) of one scan, to the file ``shard``. It is sent to workers, so it can be pickled.

    scan: its number; work with the same number and folder of shards reads the same files.
    """

    @property
    def scan(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def shard(self) -> Path: ...

    @property
    def scan_name(self) -> str:
        """For messages."""

    @property
    def rows(self) -> np.dtype:
        """Type of the array ``peaks`` in the shard."""

    def inputs(self) -> tuple[Path, ...]:
        """The files that the work reads."""

    def work(self, path: Path) -> None:
        """Do it: write ``path``, an npz file with ``peaks`` (n,), other arrays of that length, ``bad_frames``, and
        ``records`` if there are any."""
