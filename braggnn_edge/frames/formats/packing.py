"""Files that are packed as a whole, by gzip or bzip2: told by their first bytes, whatever they are called."""

import bz2
import gzip
from pathlib import Path
from typing import BinaryIO, cast

#: Endings of packed files; a name without one is that of the file inside.
ENDINGS = (".bz2", ".gz")
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2"}


def packed_as(path: Path) -> str:
    """How a file is packed: ".gz", ".bz2", or "" where it is not."""
    with path.open("rb") as stream:
        start = stream.read(3)
    return next((ending for magic, ending in _MAGIC.items() if start.startswith(magic)), "")


def unpacked(path: Path) -> BinaryIO:
    """The content of a file, unpacked as it is read."""
    kind = packed_as(path)
    if kind == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return cast(BinaryIO, bz2.open(path, "rb")) if kind == ".bz2" else path.open("rb")
