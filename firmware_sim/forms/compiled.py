"""Programs compiled once: kept in a folder named by a digest of all that they are made of, and whole or not there."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def digest_of(files: Iterable[Path], *texts: str) -> str:
    """A hash of texts, such as flags and a compiler's version, and of files, by name and content, in their order."""
    digest = hashlib.sha256("\n".join((*texts, "")).encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def built(build_dir: Path, key: str, programs: Sequence[str], make: Callable[[Path], None]) -> Path:
    """``build_dir/<key>`` with its ``programs``, made by ``make(folder)`` in a folder aside where one is missing."""
    final = build_dir / key[:16]
    if all((final / program).exists() for program in programs):
        return final
    build_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build_dir, prefix=".compile-") as name:
        aside = Path(name).resolve()
        make(aside)
        final.mkdir(exist_ok=True)
        for program in programs:
            os.replace(aside / program, final / program)
    return final
