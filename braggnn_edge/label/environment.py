"""What a worker must share with the command that sends it work: versions, run directory, frames."""

import hashlib
import importlib.metadata
import platform
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.label.acquisition import external_files
from braggnn_edge.label.shard import Task
from braggnn_edge.label.spec import ScanSpec

#: Packages on whose versions the bits of a label may depend.
_PACKAGES = ("torch", "numpy", "scipy", "h5py", "hdf5plugin")
_SOURCES = (".py", ".cpp")


@dataclass(frozen=True)
class Environment:
    """versions: by name, this package's a digest of its sources; files: digest of the names and sizes of a scan's."""

    versions: tuple[tuple[str, str], ...]
    files: str


def environment(task: Task) -> Environment:
    """That of this process, for the scan of ``task``."""
    return Environment(_versions(), _files(task.spec, task.data, task.folder, task.shard.parent))


def check(task: Task, wanted: Environment) -> None:
    """Refuse work in another environment: UserError names the machine and what differs."""
    host = socket.gethostname()
    if not task.shard.parent.is_dir():
        raise UserError(
            f"worker on {host} does not see {task.shard.parent}; the frames and the run directory must be on a file "
            "system that all machines share, under the same path"
        )
    here = environment(task)
    if here.versions != wanted.versions:
        theirs, ours = dict(here.versions), dict(wanted.versions)
        differing = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]
        raise UserError(
            f"worker on {host} has {', '.join(differing)}; start the workers again in the environment of this command"
        )
    if here.files != wanted.files:
        raise UserError(
            f"worker on {host} sees other files of scan {task.spec.name!r} than this command, by name or size; they "
            "must be on a file system that all machines share"
        )


@lru_cache
def _versions() -> tuple[tuple[str, str], ...]:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*")):
        if path.suffix in _SOURCES:
            digest.update(path.name.encode() + path.read_bytes())
    found = [("python", platform.python_version()), ("braggnn_edge", digest.hexdigest()[:12])]
    return (*found, *((name, importlib.metadata.version(name)) for name in _PACKAGES))


@lru_cache
def _files(spec: ScanSpec, data: Path, folder: Path | None, run: Path) -> str:
    """``run``: the folder of the shards, unique to a run, so a worker that outlives it looks again for the next."""
    paths = external_files((spec,), folder)
    if spec.format == "simulated":
        paths = (data / f"{spec.name}.h5", data / f"{spec.name}_truth.h5")
    sizes = [f"{path.name} {path.stat().st_size if path.exists() else 'missing'}" for path in paths]
    return hashlib.sha256("\n".join(sizes).encode()).hexdigest()
