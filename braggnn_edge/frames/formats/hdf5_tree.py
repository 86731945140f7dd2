"""What is in an HDF5 file: opening it, its data sets, each once whatever links lead to it, and one of them by name."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  importing it registers the filters
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import check_file

_LISTED = 12
#: One of the data sets of an Eiger's master file.
EIGER_PART = re.compile(r"data_([0-9]+)")


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; UserError when it is missing, empty, truncated or no HDF5 file."""
    check_file(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path}: is not a readable HDF5 file, or is truncated ({error}); copy it again, or correct its path"
        ) from error
    with file:
        yield file


def find_dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """The data set ``name``; a UserError lists those there are when it is missing or its link is broken."""
    try:
        found = file[name]
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        link = _link(file, name)
        if isinstance(link, h5py.ExternalLink):
            raise UserError(
                f"{path}: {name!r} links to {link.path!r} in the file {link.filename!r}, which cannot be opened; keep "
                "the linked files beside it"
            ) from error
        raise UserError(f"{path}: has no data set {name!r}; the data sets there are: {_there(file)}") from error
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{path}: {name!r} is a group; name a data set: {_there(file)}")
    return found


def _there(file: h5py.File) -> str:
    return ", ".join(f"{entry.name} {entry.shape}" for entry in list_datasets(file)[:_LISTED]) or "none"


@dataclass(frozen=True)
class Entry:
    """A data set: the path that leads to it, its shape and the kind of its numbers (as numpy's dtype.kind)."""

    name: str
    shape: tuple[int, ...]
    kind: str


def list_datasets(file: h5py.File) -> list[Entry]:
    """Every data set that a file leads to, through soft and external links that resolve; each object once.

    An object that has several names is listed by the one that is met first: the parts of an Eiger's group come before
    other names, and hard links before soft and external ones.
    """
    found: list[Entry] = []
    place = _place(file)
    seen = {(place, _address(file))}
    waiting: list[tuple[str, h5py.Group, str]] = [("", file, place)]
    while waiting:
        prefix, group, home = waiting.pop()
        below = []
        for key, hard in _keys(group):
            try:
                item = group[key]
                where = home if hard else _place(item)
                mark = (where, _address(item))
                kind = item.dtype.kind if isinstance(item, h5py.Dataset) else ""
            except (KeyError, OSError, ValueError, RuntimeError, TypeError):  # a broken link, a type that numpy lacks
                continue
            if mark in seen:
                continue
            seen.add(mark)
            name = f"{prefix}/{_text(key)}"
            if isinstance(item, h5py.Dataset):
                found.append(Entry(name, item.shape or (), kind))
            elif isinstance(item, h5py.Group):
                below.append((name, item, where))
        waiting += reversed(below)
    return found


def _keys(group: h5py.Group) -> list[tuple[str | bytes, bool]]:
    """The links of a group, and whether each is a hard one, in the order of :func:`list_datasets`.

    h5py gives a name that is no UTF-8 as bytes.
    """
    links = group.id.links
    keys = [
        (key, links.get_info(key if isinstance(key, bytes) else key.encode()).type == h5py.h5l.TYPE_HARD)
        for key in group
    ]
    return sorted(keys, key=lambda pair: (not EIGER_PART.fullmatch(_text(pair[0])), not pair[1]))


def _text(key: str | bytes) -> str:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return h5py.h5o.get_info(item.id).addr


def _place(item: h5py.Group | h5py.Dataset) -> str:
    """The file that an object lies in, whatever links lead there."""
    return os.path.realpath(item.file.filename)


def _link(file: h5py.File, name: str) -> object:
    try:
        return file.get(name, getlink=True)
    except (KeyError, OSError, ValueError, RuntimeError):
        return None


def own_names(file: h5py.File, name: str) -> set[str]:
    """The last parts of a data set's name and of the names that it is a link to."""
    found: set[str] = set()
    while name.rpartition("/")[2] not in found:
        found.add(name.rpartition("/")[2])
        link = _link(file, name)
        if isinstance(link, h5py.ExternalLink):
            found.add(link.path.rpartition("/")[2])
        if not isinstance(link, h5py.SoftLink):
            break
        name = link.path if link.path.startswith("/") else f"{name.rpartition('/')[0]}/{link.path}"
    return found


def choose(path: Path, file: h5py.File, what: str, fits: tuple[list[Entry], ...]) -> str:
    """The name of the one data set to read: the first of the lists that is not empty must hold one.

    A NeXus group says by its attribute ``signal`` which of several in it is meant. ``what`` begins the sentence of the
    UserError.
    """
    for found in fits:
        if len(found) == 1:
            return found[0].name
        homes = {entry.name.rpartition("/")[0] for entry in found}
        if len(homes) == 1:
            home = homes.pop()
            signal = file[home or "/"].attrs.get("signal")
            signal = signal.decode() if isinstance(signal, bytes) else signal
            if isinstance(signal, str) and f"{home}/{signal}" in {entry.name for entry in found}:
                return f"{home}/{signal}"
        if found:
            listed = ", ".join(entry.name for entry in found[:_LISTED])
            raise UserError(f"{path}: {what}; those in the file: {listed}")
    raise UserError(f"{path}: {what}; those in the file: none (it holds {_there(file)})")


def native(dtype: np.dtype) -> np.dtype:
    """A type in the machine's byte order."""
    return dtype.newbyteorder("=")
