"""Work in chunks that survives being killed: each result is written aside, then renamed, and never done twice."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

Arrays = dict[str, NDArray[np.generic]]
Progress = Callable[[int, int], None]


def map_chunks(
    work: Callable[[int, NDArray[np.integer]], Arrays], data: NDArray[np.integer], *,
    key: str, chunk: int, workers: int, out_dir: Path, progress: Progress | None = None,
) -> list[Arrays]:  # fmt: skip
    """``work(start, data[start:start + chunk])`` for every chunk, in order of the data.

    A result lives in ``out_dir`` under a name made of ``key``, the start and the chunk's own data, so that a file
    left by other work is never taken for this one. ``work`` runs in threads, which suffices for work that waits for
    another program; ``progress(done, total)`` is called after each chunk, in the calling thread.
    """
    if chunk < 1 or workers < 1:
        raise UserError(f"chunk {chunk} and workers {workers} must both be 1 or more")
    out_dir.mkdir(parents=True, exist_ok=True)
    starts = list(range(0, len(data), chunk))
    paths = [_path(out_dir, key, start, data[start : start + chunk]) for start in starts]
    missing = [(s, p) for s, p in zip(starts, paths, strict=True) if not p.exists()]
    if progress:
        progress(len(starts) - len(missing), len(starts))
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_do, work, start, data[start : start + chunk], path) for start, path in missing]
        try:
            for done, future in enumerate(as_completed(futures), len(starts) - len(missing) + 1):
                future.result()
                if progress:
                    progress(done, len(starts))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [_load(path) for path in paths]


def _path(out_dir: Path, key: str, start: int, data: NDArray[np.integer]) -> Path:
    digest = hashlib.sha256(f"{key} {data.dtype} {data.shape} ".encode())
    digest.update(np.ascontiguousarray(data).tobytes())
    return out_dir / f"{start:09d}-{digest.hexdigest()[:24]}.npz"


def _do(work: Callable[[int, NDArray[np.integer]], Arrays], start: int, data: NDArray[np.integer], path: Path) -> None:
    arrays = work(start, data)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
