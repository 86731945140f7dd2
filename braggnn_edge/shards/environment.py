"""What a worker must share with the command that sends it work: versions, folder of the results, frames."""

import hashlib
import importlib.metadata
import platform
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.shards.unit import Unit

#: Packages on whose versions the bits of a result may depend.
_PACKAGES = ("torch", "onnxruntime", "numpy", "scipy", "h5py", "hdf5plugin")
#: Of our own: their sources. The second has integer networks.
_OURS, _SOURCES = ("braggnn_edge", "quant"), (".py", ".cpp", ".h")
#: Digests of the files of scans that this process has seen. The folder of the shards is unique to a run, so that a
#: worker that outlives the run looks again for the next.
_SEEN: dict[tuple[Path, int], str] = {}


@dataclass(frozen=True)
class Environment:
    """versions: by name, this package's a digest of its sources; files: digest of the names and sizes of a scan's."""

    versions: tuple[tuple[str, str], ...]
    files: str


def environment(unit: Unit) -> Environment:
    """That of this process, for the scan of ``unit``."""
    return Environment(versions(), _files(unit))


def check(unit: Unit, wanted: Environment) -> None:
    """Refuse work in another environment: UserError names the machine and what differs."""
    host = socket.gethostname()
    if not unit.shard.parent.is_dir():
        raise UserError(
            f"worker on {host} does not see {unit.shard.parent}; the frames and the results must be on a file "
            "system that all machines share, under the same path"
        )
    here = environment(unit)
    if here.versions != wanted.versions:
        theirs, ours = dict(here.versions), dict(wanted.versions)
        differing = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]
        raise UserError(
            f"worker on {host} has {', '.join(differing)}; start the workers again in the environment of this command"
        )
    if here.files != wanted.files:
        raise UserError(
            f"worker on {host} sees other files of scan {unit.scan_name!r} than this command, by name or size; they "
            "must be on a file system that all machines share"
        )


@lru_cache
def versions() -> tuple[tuple[str, str], ...]:
    """Name and version of what results depend on."""
    found = [("python", platform.python_version())]
    for package in _OURS:
        digest = hashlib.sha256()
        for path in sorted((Path(__file__).parents[2] / package).rglob("*")):
            if path.suffix in _SOURCES:
                digest.update(path.name.encode() + path.read_bytes())
        found.append((package, digest.hexdigest()[:12]))
    return (*found, *((name, importlib.metadata.version(name)) for name in _PACKAGES))


def _files(unit: Unit) -> str:
    key = unit.shard.parent, unit.scan
    if key not in _SEEN:
        sizes = [f"{path.name} {path.stat().st_size if path.exists() else 'missing'}" for path in unit.inputs()]
        _SEEN[key] = hashlib.sha256("\n".join(sizes).encode()).hexdigest()
    return _SEEN[key]
