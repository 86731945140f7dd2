"""The files that the mappings of a virtual data set name, found in the order in which HDF5 looks for them.

Source: HDF5 reference manual, H5Pset_virtual and H5Pset_virtual_prefix.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from braggnn_edge.core.errors import UserError

#: Environment variable with folders of source files, separated by colons.
PREFIX = "HDF5_VDS_PREFIX"
#: In place of a single such folder: the folder of the file itself, and what follows is relative to it.
_ORIGIN = "${ORIGIN}"


@contextmanager
def opened(home: h5py.File, name: str) -> Iterator[h5py.File | None]:
    """The source file ``name`` of a virtual data set in ``home``, open for reading; None where HDF5 finds none."""
    if name == ".":
        yield home
        return
    for path in _places(home.filename, name):
        try:
            file = h5py.File(path, "r")
        except OSError:
            continue
        with file:
            yield file
        return
    yield None


def _places(home: str, name: str) -> Iterator[str]:
    """Where HDF5 looks for ``name``, a source of the file that was opened as ``home``.

    An absolute name as it is; then, by its last part alone, and relative names whole: in the folders of the
    environment, in that of ``home``, in the working directory, and in that of the file to which ``home`` is a link.
    """
    if os.path.isabs(name):
        yield name
        name = os.path.basename(name)
    beside = os.path.dirname(os.path.abspath(home))
    prefix = os.environ.get(PREFIX, "")
    for folder in filter(None, prefix.split(os.pathsep)):
        yield os.path.join(folder, name)
    if prefix.startswith(_ORIGIN):
        yield os.path.join(beside + prefix.removeprefix(_ORIGIN), name)
    yield os.path.join(beside, name)
    yield name
    yield os.path.join(os.path.dirname(os.path.realpath(home)), name)


def is_pattern(text: str) -> bool:
    """Whether a name stands for many, with ``%b`` in place of their numbers; ``%%`` is a percent sign."""
    return "%b" in text.replace("%%", "")


def numbered(text: str, number: int) -> str:
    """A name with its number; in a name that is no pattern a percent sign is written twice too."""
    return re.sub(r"%[b%]", lambda found: str(number) if found[0] == "%b" else "%", text)


def refuse_gap(where: str, home: h5py.File, file_name: str, name: str, number: int) -> None:
    """Raise UserError where source ``number`` of a pattern is missing although there are later ones: HDF5 stops there.

    What is there is looked for beside ``home``, and for data sets of one file in it.
    """
    if is_pattern(file_name):
        folder = Path(home.filename).absolute().parent / Path(numbered(file_name, 0)).parent
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        pattern = Path(file_name).name
    else:
        with opened(home, numbered(file_name, 0)) as file:
            group = None if file is None else file.get(numbered(name, 0).rpartition("/")[0] or "/")
            names = list(group) if isinstance(group, h5py.Group) else []
        pattern = name.rpartition("/")[2]
    pieces = re.split(r"(%[b%])", pattern)
    form = re.compile("".join({"%b": "([0-9]+)", "%%": "%"}.get(piece, re.escape(piece)) for piece in pieces))
    later = sorted(int(match[1]) for match in map(form.fullmatch, names) if match and match.groups())
    later = [one for one in later if one > number]
    if later:
        raise UserError(
            f"{where}: its source {numbered(pattern, number)!r} is missing, but {numbered(pattern, later[0])!r} is "
            "there; HDF5 stops at the first gap: put the missing one there"
        )
