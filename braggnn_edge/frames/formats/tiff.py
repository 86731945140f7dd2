"""TIFF and BigTIFF, with tifffile: any compression that imagecodecs knows, strips and tiles, one frame a page."""

import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import tifffile

from braggnn_edge.frames.formats.packing import packed_as, unpacked

#: First bytes: little and big endian, TIFF and BigTIFF.
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Bit of NewSubfileType: a page that is another one made smaller.
_REDUCED = 1
_DESCRIPTION = 270


class Tiff:
    """An open TIFF file. A packed one is unpacked in memory, since its pages lie anywhere."""

    def __init__(self, path: Path) -> None:
        self._stream = unpacked(path) if packed_as(path) else None
        try:
            source = path if self._stream is None else io.BytesIO(self._stream.read())
            self._file = tifffile.TiffFile(source)
            pages = cast(Iterable[tifffile.TiffPage], self._file.pages)
            self._pages = [page for page in pages if not int(page.subfiletype) & _REDUCED]
            if not self._pages:
                raise ValueError("it has no page with an image")
            series = self._file.series[0]
            # One page, and behind its pixels those of the others: so ImageJ writes stacks beyond 4 GiB.
            self._behind = series.is_truncated and len(self._pages) == 1
            self.nframes = math.prod(series.shape[:-2]) if self._behind else len(self._pages)
        except BaseException:
            self.close()
            raise

    def frame(self, number: int) -> np.ndarray:
        """Page ``number`` (rows, cols); another number of dimensions where it has several values a pixel."""
        page = self._pages[0 if self._behind else number]
        if self._behind:
            if page.ndim != 2:
                return np.empty((0,) * 3, page.dtype)
            self._file.filehandle.seek(page.dataoffsets[0] + number * page.nbytes)
            dtype = np.dtype(page.dtype).newbyteorder(self._file.byteorder)
            return self._file.filehandle.read_array(dtype, page.size).reshape(page.shape)
        if page.samplesperpixel != 1 or page.ndim != 2:
            return np.empty((0,) * 3, page.dtype)
        if 0 in page.databytecounts or len(page.dataoffsets) < math.prod(page.chunked):
            raise ValueError("strips or tiles of it were never written")
        return page.asarray(maxworkers=1)

    def headers(self) -> Iterator[dict[str, str]]:
        """The description of every page, as one value."""
        for page in self._pages:
            tag = page.tags.get(_DESCRIPTION)
            yield {} if tag is None else {"description": str(tag.value)}

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            self._file.close()
        if self._stream is not None:
            self._stream.close()
