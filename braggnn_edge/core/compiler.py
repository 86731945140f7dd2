"""The C++ compiler: looked up in one place, and small libraries compiled once and kept in the user's cache."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from braggnn_edge.core.errors import UserError

#: Of the headers that every file may include.
_HEADERS = Path(__file__).parent


def require_compiler(compiler: str = "g++") -> None:
    """Raise UserError when the C++ compiler is missing."""
    if shutil.which(compiler) is None:
        raise UserError(
            f"{compiler} is not on the PATH; the fit, the compiled network and the C simulation need a C++ compiler "
            "(Debian, Ubuntu: apt install g++)"
        )


def shared_library(source: Path, flags: tuple[str, ...], compiler: str = "g++") -> Path:
    """The shared library of one C++ file, compiled for this processor when the cache has none.

    The file may include headers that lie beside it or beside this module.

    The cache is ``braggnn-edge`` in $XDG_CACHE_HOME or ~/.cache (a temporary folder where neither can be written); a
    library's name is a hash of the source and its headers, the flags, and the compiler's version and target, so that
    machines of different kinds share a home. Processes may compile at the same time: the last one to finish wins, all
    are equal. Raises UserError when the compiler is missing or fails.
    """
    require_compiler(compiler)
    command = (compiler, *flags)
    target = predefined(*command)
    headers = sorted(source.parent.glob("*.h")) + sorted(_HEADERS.glob("*.h"))
    texts = (path.read_bytes() for path in (source, *headers))
    parts = (*texts, " ".join(command).encode(), target.encode())
    key = hashlib.sha256(b"\0".join(parts))
    library = cache_folder() / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if not library.exists():
        # Not rundir.written_aside: workers that start together all compile, each to a name of its own.
        handle, aside = tempfile.mkstemp(suffix=".so", dir=library.parent)
        os.close(handle)
        try:
            _output((*command, f"-I{_HEADERS}", "-fPIC", "-shared", "-o", aside, str(source)))
            os.replace(aside, library)
        finally:
            Path(aside).unlink(missing_ok=True)
    return library


def loaded_library(source: Path, flags: tuple[str, ...]) -> ctypes.CDLL:
    """:func:`shared_library`, loaded; one that does not load here, made elsewhere or damaged, is compiled again.

    Raises UserError as that does, and where no library from the cache can be loaded.
    """
    path = shared_library(source, flags)
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # of a machine with a newer C library, say, that shares this home
        path.unlink(missing_ok=True)
    try:
        return ctypes.CDLL(str(shared_library(source, flags)))
    except OSError as error:
        raise UserError(
            f"{path} cannot be loaded ({error}); let XDG_CACHE_HOME name a folder from which programs may run"
        ) from error


def predefined(*command: str) -> str:
    """Every predefined macro of a compiler with these flags: its version and instruction set in one."""
    return _output((*command, "-dM", "-E", "-x", "c++", os.devnull))


def compiler_version(compiler: str = "g++") -> str:
    """The version of the C++ compiler; empty where there is none."""
    found = shutil.which(compiler)
    if found is None:
        return ""
    return subprocess.run([found, "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()


def cache_folder() -> Path:
    """Where libraries, and what was measured of them, are kept: a folder of the user's, or a temporary one."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~").expanduser() / ".cache")
    folder = Path(home) / "braggnn-edge"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _temporary()


@functools.cache
def _temporary() -> Path:
    """One folder for a process."""
    return Path(tempfile.mkdtemp(prefix="braggnn-edge-"))


def _output(command: tuple[str, ...]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = "\n".join(done.stderr.splitlines()[:5])
        raise UserError(f"{command[0]} failed (exit {done.returncode}): {first}")
    return done.stdout
