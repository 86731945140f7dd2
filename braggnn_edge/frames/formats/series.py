"""One scan written as many files: a glob pattern to its files, in the order in which a person counts them."""

import glob
import re
from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import check_file

#: Endings of files that are unpacked while they are read.
COMPRESSED = (".bz2", ".gz")


def series(path: Path) -> tuple[Path, ...]:
    """The files that ``path`` names: itself, or those that match it as a pattern (``*``, ``?``, ``[]``, ``**``).

    They are sorted naturally: frame_2 comes before frame_10. Raises UserError when there is none, for a file that is
    empty, and for one that is there twice, plain and compressed.
    """
    if path.exists() or not glob.has_magic(str(path)):
        check_file(path)
        return (path,)
    files = [found for found in map(Path, glob.glob(str(path), recursive=True)) if found.is_file()]
    if not files:
        raise UserError(f"{path}: no file matches this pattern; check the path in the configuration")
    files.sort(key=natural_key)
    plain: dict[Path, Path] = {}
    for file in files:
        check_file(file)
        name = file.with_suffix("") if file.suffix in COMPRESSED else file
        if name in plain:
            raise UserError(
                f"{path}: {plain[name].name} and {file.name} are the same frame twice; make the pattern match one"
            )
        plain[name] = file
    return tuple(files)


def natural_key(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key in which runs of digits are compared as numbers; the name itself decides between 07 and 7."""
    pieces = re.split(r"([0-9]+)", str(path))
    return [(0, int(piece)) if piece.isdecimal() else (1, piece) for piece in pieces], str(path)
