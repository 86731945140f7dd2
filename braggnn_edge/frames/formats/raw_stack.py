"""GE detectors: one header, then the pixels of all frames. The header is GE's own, blank, or in the words of EDF.

The last has ``Num_Images``, and an EDF reader takes such a file for one frame. It is told by its content: after the
first frame there is no second header. Sources: fabio's GEimage (sizes in GE's header, and those of a blank one).
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from fabio.edfimage import DATA_TYPES, EdfImage
from fabio.GEimage import GeImage

from braggnn_edge.frames.formats.packing import unpacked

#: First bytes of files with GE's own header, and with one that is blank.
GE_MAGIC = (b"ADEPT", bytes(10))
#: Of a GE detector: bytes of its headers, and pixels along both sides where a header leaves them out.
_GE_HEADER, _GE_SIDE = 8192, 2048
_HEAD = 1 << 18


@dataclass(frozen=True)
class RawStack:
    """An open stack: ``nframes`` frames of ``shape`` that begin at ``offset``, ``stride`` bytes apart."""

    stream: BinaryIO
    nframes: int
    shape: tuple[int, int]
    dtype: np.dtype
    offset: int
    stride: int

    def frame(self, number: int) -> np.ndarray:
        """Frame ``number``; EOFError where the file ends before its end. Forward reading unpacks a file once."""
        self.stream.seek(self.offset + number * self.stride)
        wanted = math.prod(self.shape) * self.dtype.itemsize
        content = self.stream.read(wanted)
        if len(content) < wanted:
            raise EOFError(f"frame {number} is incomplete; the file is cut off")
        return np.frombuffer(content, self.dtype).reshape(self.shape)

    def headers(self) -> Iterator[dict[str, str]]:
        """The frames have none of their own."""
        return iter(())

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def open_ge(path: Path) -> RawStack:
    """A file with GE's own header or a blank one."""
    stream = unpacked(path)
    try:
        reader = GeImage()
        reader._readheader(stream)
        header = reader.header
        shape = int(header["NumberOfRowsInFrame"]), int(header["NumberOfColsInFrame"])
        kind = GeImage.BITDEPTH_TO_DATATYPES[int(header["ImageDepthInBits"])]
        dtype = np.dtype(kind).newbyteorder("<")
        offset = int(header["StandardHeaderSizeInBytes"]) + int(header["UserHeaderSizeInBytes"])
        return RawStack(stream, int(header["NumberOfFrames"]), shape, dtype, offset, math.prod(shape) * dtype.itemsize)
    except BaseException:
        stream.close()
        raise


def open_edf_stack(path: Path) -> RawStack | None:
    """A file with an EDF header and several frames behind it; None where it is an EDF with a header for each frame."""
    stream = unpacked(path)
    found: RawStack | None = None
    try:
        found = _edf_stack(stream)
    finally:
        if found is None:
            stream.close()
    return found


def _edf_stack(stream: BinaryIO) -> RawStack | None:
    head = stream.read(_HEAD)
    if b"num_images" not in head.lower():
        return None
    with io.BytesIO(head) as start:
        block = EdfImage._read_header_block(start, 0)
        offset = start.tell()
    header = {key.lower(): value for key, value in block.header.items()}
    # The header may end before its own size, or that of GE's headers, with blanks behind it.
    declared = int(header.get("edf_headersize", 0))
    if not declared and not head[offset:_GE_HEADER].strip(b" \r\n\t"):
        declared = _GE_HEADER
    offset = max(offset, declared)
    if int(header.get("num_images", 1)) < 2:
        return None
    order = "<" if header.get("byteorder", "LowByteFirst").lower().startswith("low") else ">"
    dtype = np.dtype(DATA_TYPES[header.get("datatype", "UnsignedShort")]).newbyteorder(order)
    shape = int(header.get("dim_2", _GE_SIDE)), int(header.get("dim_1", _GE_SIDE))
    size = math.prod(shape) * dtype.itemsize
    # The size may be that of one frame or of all.
    stride = int(header.get("size", size))
    stride = stride if size <= stride < 2 * size else size
    stream.seek(offset + stride)
    following = stream.read(64).lstrip()
    if not following or following.startswith(b"{"):  # one frame of a scan in many files; a header for each frame
        return None
    return RawStack(stream, int(header["num_images"]), shape, dtype, offset, stride)
