"""One scan written as many files: a glob pattern to its files, in the order in which a person counts them."""

import glob
import re
from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import check_file
from braggnn_edge.frames.formats.packing import ENDINGS


def series(path: Path) -> tuple[Path, ...]:
    """The files that ``path`` names: itself, or those that match it as a pattern (``*``, ``?``, ``[]``, ``**``).

    As far as a path leads to folders that are there, it is taken as it is: brackets in their names are no pattern. The
    files are sorted naturally: frame_2 comes before frame_10. Raises UserError when there is none, for a file that is
    empty, for a link to a file that is missing, and for a file that is there twice, plain and compressed.
    """
    pattern = _pattern(path)
    if pattern is None:
        check_file(path)
        return (path,)
    matches = [found for found in map(Path, glob.glob(pattern, recursive=True)) if not found.is_dir()]
    if not matches:
        raise UserError(f"{path}: no file matches this pattern; check the path")
    matches.sort(key=natural_key)
    plain: dict[Path, Path] = {}
    for file in matches:
        check_file(file)
        name = file.with_suffix("") if file.suffix.lower() in ENDINGS else file
        if name in plain:
            raise UserError(
                f"{path}: {plain[name].name} and {file.name} are the same frame twice; make the pattern match one"
            )
        plain[name] = file
    return tuple(matches)


def _pattern(path: Path) -> str | None:
    """The path as a pattern in which the folders that are there stand for themselves; None where it is no pattern."""
    if path.exists() or path.is_symlink():
        return None
    folder = next(parent for parent in path.parents if parent.is_dir())  # the root is, or the working directory
    rest = str(path.relative_to(folder))
    return str(Path(glob.escape(str(folder)), rest)) if glob.has_magic(rest) else None


def natural_key(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key in which runs of digits are compared as numbers; the name itself decides between 07 and 7."""
    pieces = re.split(r"([0-9]+)", str(path))
    return [(0, int(piece)) if piece.isdecimal() else (1, piece) for piece in pieces], str(path)
