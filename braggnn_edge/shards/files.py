"""Shard files: what units of work leave in a folder of their own, until they are joined."""

import os
import shutil
import time
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.turns import READING
from braggnn_edge.shards import environment
from braggnn_edge.shards.unit import Unit

#: Seconds within which a network file system shows the file that another machine wrote.
_VISIBLE = 60.0
#: What reading a damaged shard raises, be the damage in the archive, in an array's header or in its data.
_DAMAGED = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, ValueError, KeyError, EOFError)


def folder(directory: Path) -> Path:
    """The folder of the shards in ``directory``, made when there is none.

    Its name is drawn at random: a worker of an earlier run that is still at work on its last shard finds no folder of
    this name in the directory of another run, and cannot leave its shard there.
    """
    found = sorted(directory.glob("shards-*"))
    if found:
        return found[0]
    made = directory / f"shards-{uuid.uuid4().hex}"
    made.mkdir()
    return made


def remove(directory: Path) -> None:
    """Remove the folder of the shards with all that killed workers left in it."""
    for path in directory.glob("shards-*"):
        # Under another name first, so that a straggling worker does not write into what is being removed.
        gone = path.with_name(f".{path.name}")
        os.replace(path, gone)
    for path in directory.glob(".shards-*"):
        shutil.rmtree(path)


def make(unit: Unit, wanted: environment.Environment) -> None:
    """Make one shard file, in this process; nothing when it is there. Workers of a cluster are sent this function.

    Raises UserError when this process is not in the environment that is ``wanted``, and what the work raises.
    """
    environment.check(unit, wanted)
    if head(unit) is not None:
        return
    # Two workers may be at the same shard when a scheduler took one of them for dead: each has a file of its own.
    aside = unit.shard.with_name(f".{unit.shard.stem}.{uuid.uuid4().hex}.npz")
    torch.set_num_threads(1)  # in every process, the serial one too: the same bits whatever the workers
    try:
        unit.work(aside)
        os.replace(aside, unit.shard)
    finally:
        aside.unlink(missing_ok=True)


#: Arrays of a shard that have not one entry a peak.
_OF_ITS_OWN = ("bad_frames", "records")


def head(unit: Unit) -> Mapping[str, tuple[int, np.dtype]] | None:
    """Length and type of every array in the shard of a unit, without reading them; None when it is not whole."""
    try:
        with zipfile.ZipFile(unit.shard) as file:
            found = {name.removesuffix(".npy"): _shape(file, name) for name in file.namelist()}
        rows, kind = found["peaks"]
    except (OSError, *_DAMAGED):
        return None
    lengths = {length for name, (length, _) in found.items() if name not in _OF_ITS_OWN}
    return found if kind == unit.rows and lengths == {rows} else None


def _shape(file: zipfile.ZipFile, name: str) -> tuple[int, np.dtype]:
    with READING, file.open(name) as stream:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(stream)]
        shape, _, dtype = read(stream)
        return shape[0], dtype


def finished(unit: Unit) -> int:
    """Number of peaks of a shard that a worker has written; UserError when it does not appear here."""
    until = time.monotonic() + _VISIBLE
    while (found := head(unit)) is None:
        if time.monotonic() > until:
            raise UserError(
                f"shard {unit.shard.name} was written by a worker and is not seen here; the results must be on a file "
                "system that all machines share"
            )
        time.sleep(0.5)
        os.listdir(unit.shard.parent)  # makes a network file system look again
    return found["peaks"][0]


def load(path: Path, *names: str) -> tuple[NDArray, ...]:
    """The arrays of a shard with these names; ``bad_frames``, the frames that were skipped, may be missing: none.

    A shard whose checksums do not fit is removed, so that the next run makes it again; UserError says so.
    """
    try:
        with READING, np.load(path) as shard:
            none = np.zeros(0, np.int64)
            return tuple(none if name == "bad_frames" and name not in shard else shard[name] for name in names)
    except _DAMAGED as error:
        path.unlink()
        raise UserError(
            f"shard {path.name} is damaged and was removed; run the same command again: it makes this shard alone"
        ) from error
