"""HDF5 files written aside, on disks that may be full.

HDF5 does not survive a write that fails: a data set that cannot be flushed is closed by half, and the process ends with
a segmentation fault when its last handle goes, after the message if not before it. So the library never sees a write
fail. What the disk refuses is kept in memory until the file is closed, and then the error is raised in Python.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from braggnn_edge.core.files import written_aside

#: Raises the error of the first write that failed, if one has: to be called between the parts of a long file.
Check = Callable[[], None]


@contextlib.contextmanager
def writing_hdf5(path: Path, track_order: bool = False) -> Iterator[tuple[h5py.File, Check]]:
    """Yield a new HDF5 file and a check; the file appears as ``path`` only when the block succeeds.

    A full disk (OSError) shows when ``check()`` is called, and at the latest at the end of the block. A block that
    writes part by part should call it after each part: what a full disk refuses is held in memory.
    """
    with written_aside(path) as aside, _Disk(aside) as disk:
        with h5py.File(disk, "w", track_order=track_order) as file:
            yield file, disk.check
        disk.check()


class _Disk(io.RawIOBase):
    """A file for HDF5 whose writes never fail: those that the disk refuses are read back from memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._refused: list[tuple[int, bytes]] = []
        self._error: OSError | None = None
        self._at = self._end = 0

    def check(self) -> None:
        """Raise the error of the first write that failed."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data) -> int:
        block = memoryview(data).cast("B")
        start, done = self._at, 0
        try:
            self.check()
            self._file.seek(start)
            while done < len(block):  # a disk that fills up takes a part
                done += _put(self._file, block[done:])
        except OSError as error:
            self._error = self._error or error
            self._refused.append((start + done, bytes(block[done:])))
        self._at = start + len(block)
        self._end = max(self._end, self._at)
        return len(block)

    def readinto(self, buffer) -> int:
        block = memoryview(buffer).cast("B")
        start, size = self._at, max(0, min(len(block), self._end - self._at))
        self._file.seek(start)
        done = 0
        while done < size and (count := self._file.readinto(block[done:size])):
            done += count
        block[done:size] = bytes(size - done)
        for where, refused in self._refused:
            first, last = max(where, start), min(where + len(refused), start + size)
            if first < last:
                block[first - start : last - start] = refused[first - where : last - where]
        self._at = start + size
        return size

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        if self._error is None:
            try:
                self._file.truncate(self._end)
            except OSError as error:
                self._error = error
        return self._end

    def flush(self) -> None:
        """Nothing waits: the file is unbuffered."""

    def close(self) -> None:
        self._file.close()
        super().close()


def _put(file: io.FileIO, block: memoryview) -> int:
    """Write as much of a block as the disk takes at once."""
    return file.write(block) or 0
