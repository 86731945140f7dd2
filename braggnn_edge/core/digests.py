"""The sha256 of files, remembered: a file whose device, inode, size and time are those of before is not read again."""

import contextlib
import hashlib
import json
import time
from pathlib import Path

from braggnn_edge.core.files import written_aside

#: A file changed this recently may change again without another time, so its digest is not remembered, seconds.
_SETTLED = 2.0


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Digests:
    """Digests that a run directory remembers, in ``.digests.json``. A file there that cannot be read is ignored."""

    def __init__(self, run: Path) -> None:
        self._path = run / ".digests.json"
        self._known: dict[str, str] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = {str(key): str(value) for key, value in found.items()}

    def of(self, path: Path) -> str:
        """The digest of a file, read only where it is not known."""
        status = path.stat()
        key = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
        if key not in self._known:
            digest = sha256(path)
            if abs(time.time() - status.st_mtime) < _SETTLED:
                return digest
            self._known[key] = digest
            self._changed = True
        return self._known[key]

    def save(self) -> None:
        """Keep what was learned; a folder that cannot be written loses nothing but time."""
        if self._changed:
            with contextlib.suppress(OSError), written_aside(self._path) as aside:
                aside.write_text(json.dumps(self._known), encoding="utf-8")
            self._changed = False
