"""Whether all that an HDF5 data set declares is there: chunks that were written, sources of a virtual data set.

HDF5 reads fill values, zeros as a rule, in place of what is missing, and says nothing.
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.hdf5_selection import (
    Box,
    Cover,
    all_indices,
    corresponding,
    selected,
    unlimited_axis,
    volume,
)  # fmt: skip
from braggnn_edge.frames.formats.hdf5_sources import PREFIX, is_pattern, numbered, opened, refuse_gap

#: Environment variable with the folder of files of raw numbers.
_RAW_PREFIX = "HDF5_EXTFILE_PREFIX"


@dataclass
class _Search:
    """What one check has met: the files, and by (file, data set, axis) the shape and what is unwritten there."""

    files: list[Path] = field(default_factory=list)
    known: dict[tuple[str, str, int], tuple[tuple[int, ...], NDArray[np.bool_]]] = field(default_factory=dict)
    under_way: list[tuple[str, str]] = field(default_factory=list)  # virtual data sets
    gaps: NDArray[np.bool_] | None = None  # of the data set that is checked, where they are allowed


def unwritten(where: str, data: h5py.Dataset, axis: int = 0) -> NDArray[np.bool_]:
    """For every index along ``axis`` whether some of it was declared but never written: (shape[axis],).

    That is a chunk without storage, here or in a source of a virtual data set. ``where`` names the data set in errors.
    Raises UserError when a source of a virtual data set, or one of theirs, is missing or too small, or when elements
    have no source.
    """
    return _unwritten(where, data, axis, _Search())


def unwritten_and_gaps(where: str, data: h5py.Dataset, axis: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """:func:`unwritten`, and where a virtual data set has no source at any index along ``axis``, over the other axes.

    So are the gaps between the modules of a detector; they hold fill values. None where there are none.
    """
    search = _Search(gaps=np.zeros(0, bool))
    found = _unwritten(where, data, axis, search)
    return found, search.gaps if search.gaps is not None and search.gaps.any() else None


def source_files(data: h5py.Dataset) -> list[Path]:
    """The files behind a data set: those of the sources of a virtual one and of theirs, as far as they are found."""
    if not data.is_virtual:
        return [path for path, _, _ in _external(data)]
    search = _Search()
    with contextlib.suppress(UserError):  # opening the scan says what is wrong
        _unwritten("", data, 0, search)
    return list(dict.fromkeys(search.files))


def _unwritten(where: str, data: h5py.Dataset, axis: int, search: _Search) -> NDArray[np.bool_]:
    if data.is_virtual:
        return _of_virtual(where, data, axis, search)
    found = np.zeros(data.shape[axis] if data.shape else 1, bool)
    if not data.size:
        return found
    if data.external:
        return _of_external(data, axis)
    if data.chunks is None:  # one piece of storage: there, or never made
        found[:] = data.id.get_storage_size() == 0
        return found
    grid = [-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True)]
    if data.id.get_num_chunks() == np.prod(grid, dtype=np.int64):
        return found
    written, chunks = np.zeros(grid, bool), data.chunks

    def mark(info: h5py.h5d.StoreInfo) -> None:
        written[tuple(offset // chunk for offset, chunk in zip(info.chunk_offset, chunks, strict=True))] = True

    data.id.chunk_iter(mark)
    others = tuple(i for i in range(len(grid)) if i != axis)
    return np.repeat(~written.all(axis=others), chunks[axis])[: data.shape[axis]]


def _of_external(data: h5py.Dataset, axis: int) -> NDArray[np.bool_]:
    """What lies beyond the end of a file of raw numbers; a file that is missing is an error when it is read."""
    found = np.zeros(data.shape[axis], bool)
    each = data.nbytes // data.shape[axis]
    begin = 0
    for path, offset, size in _external(data):
        room = min(size, data.nbytes - begin)
        there = min(room, max(0, path.stat().st_size - offset)) if path.is_file() else room
        if there < room:
            found[(begin + there) // each : -(-(begin + room) // each)] = True
        begin += room
    return found if all(size == 1 for size in data.shape[:axis]) else np.full_like(found, found.any())


def _external(data: h5py.Dataset) -> list[tuple[Path, int, int]]:
    """The files of raw numbers: path, offset and bytes of each, found as HDF5 does."""
    prefix = os.environ.get(_RAW_PREFIX, "").replace("${ORIGIN}", str(Path(data.file.filename).absolute().parent))
    return [(Path(prefix, name), offset, size) for name, offset, size in data.external or ()]


def _of_virtual(where: str, data: h5py.Dataset, axis: int, search: _Search) -> NDArray[np.bool_]:
    itself = os.path.realpath(data.file.filename), data.name
    if itself in search.under_way:
        raise UserError(f"{where}: is a virtual data set and its own source; write its file again")
    search.under_way.append(itself)
    bad = np.zeros(data.shape[axis], bool)
    cover = Cover(data.shape, axis)
    for mapping in data.virtual_sources():
        for number in range(_sources(where, data, mapping)):
            names = numbered(mapping.file_name, number), numbered(mapping.dset_name, number)
            shape, below, along = _source(where, data, *names, axis, search)
            target, source = _boxes(f"{where}: its source {names[0]}:{names[1]}", data, mapping, number, shape)
            for box in target:
                cover.add(box)
            if below.any():
                pairs = corresponding(target, source, axis, along)
                # Where it does not show which slices are meant, none is trusted.
                hit = all_indices(target, axis) if pairs is None else pairs[0][below[pairs[1]]]
                bad[hit[hit < len(bad)]] = True
    search.under_way.pop()
    lacking = cover.missing()
    if lacking and lacking.everywhere is not None and search.gaps is not None and not search.under_way:
        search.gaps = lacking.everywhere
    elif lacking:
        raise UserError(
            f"{where}: is a virtual data set in which {lacking.elements} elements of frame or row {lacking.first} have "
            f"no source, and some of {lacking.number} such in all; HDF5 would read fill values there: map all of it"
        )
    return bad


def _sources(where: str, data: h5py.Dataset, mapping: Any) -> int:
    """The number of data sets that a mapping names: one, or as many as a pattern (``%b``) has up to the first gap."""
    if not is_pattern(mapping.file_name) and not is_pattern(mapping.dset_name):
        return 1
    axis = unlimited_axis(mapping.vspace)
    if axis is None:
        raise UserError(
            f"{where}: its source {mapping.file_name}:{mapping.dset_name} is a pattern, but its place ends; write "
            "the virtual data set again"
        )
    start, stride, _, _ = mapping.vspace.get_regular_hyperslab()
    number = max(0, -(-(data.shape[axis] - start[axis]) // stride[axis]))
    refuse_gap(where, data.file, mapping.file_name, mapping.dset_name, number)
    return number


def _source(
    where: str, data: h5py.Dataset, file_name: str, name: str, axis: int, search: _Search
) -> tuple[tuple[int, ...], NDArray[np.bool_], int]:
    """Shape of a source, what is unwritten along that axis of it that stands for ``axis``, and this axis."""
    with opened(data.file, file_name) as file:
        if file is None:
            raise UserError(
                f"{where}: its source file {file_name!r} is missing or not readable; keep it beside "
                f"{Path(data.file.filename).name}, or name its folder in {PREFIX}"
            )
        search.files.append(Path(file.filename))
        try:
            source = file[name]
        except (KeyError, OSError, ValueError, RuntimeError):
            source = None
        if not isinstance(source, h5py.Dataset) or source.shape is None:
            raise UserError(
                f"{where}: its source file {file_name!r} has no data set {name!r}, or the link there is broken; was it "
                "renamed, or is a file behind it missing?"
            )
        search.files.append(Path(source.file.filename))
        along = max(0, axis - (data.ndim - source.ndim))
        mark = os.path.realpath(source.file.filename), source.name, along
        if mark not in search.known:
            missing = _unwritten(f"{where}: its source {file_name}:{name}", source, along, search)
            search.known[mark] = source.shape, missing
        return *search.known[mark], along


def _boxes(
    what: str, data: h5py.Dataset, mapping: Any, number: int, shape: tuple[int, ...]
) -> tuple[list[Box], list[Box]]:
    """Where the elements of a source go, and which of its elements they are; source ``number`` of a pattern."""
    source = selected(mapping.src_space, shape)
    if any(index.size and index.max() >= size for box in source for index, size in zip(box, shape, strict=True)):
        raise UserError(f"{what}: has shape {shape}, which is smaller than what is to be read from it")
    axis = unlimited_axis(mapping.vspace)
    if axis is None:
        target = selected(mapping.vspace, data.shape)
    elif is_pattern(mapping.file_name) or is_pattern(mapping.dset_name):
        start, stride, _, block = mapping.vspace.get_regular_hyperslab()
        (box,) = selected(mapping.vspace, data.shape, along=1)
        place = start[axis] + number * stride[axis] + np.arange(block[axis])
        target = [tuple(place if i == axis else index for i, index in enumerate(box))]
    else:
        (slab,) = selected(mapping.vspace, data.shape, along=1)
        (target,) = [selected(mapping.vspace, data.shape, along=volume(source) // max(1, volume([slab])))]
    if mapping.src_space.get_select_type() == h5py.h5s.SEL_ALL and len(target) == 1:
        # Of a source that has grown since, the first slices are meant, if these are as they were.
        lengths = [len(index) for index in target[0] if len(index) != 1][-len(shape) :]
        if lengths and lengths[1:] == list(shape[1:]) and lengths[0] < shape[0]:
            source = [(np.arange(lengths[0]), *source[0][1:])]
    if volume(target) != volume(source):
        raise UserError(
            f"{what}: has shape {shape}, and {volume(source)} of its elements are to fill {volume(target)}; write the "
            "virtual data set again"
        )
    return target, source
