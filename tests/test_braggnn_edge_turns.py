"""Threads take turns at NumPy's files where Python's parser needs that."""

import ast
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from braggnn_edge.frames.formats import hexrd
from braggnn_edge.frames.formats.npy import NpyFrames
from braggnn_edge.locate.networks import file_of, network_file
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.peak_list import PEAKS
from braggnn_edge.shards import files
from braggnn_edge.universal.network import load


def mask(folder: Path) -> Callable[[], Any]:
    np.save(folder / "mask.npy", np.ones((4, 5), bool))
    return lambda: list(NpyFrames.open("mask", folder / "mask.npy").read(0, 1))


def frames(folder: Path) -> Callable[[], Any]:
    at = {f"0_{part}": np.array([1], "u2") for part in ("row", "col", "data")}
    about = {"shape": np.array([4, 5]), "nframes": 1, "dtype": np.array("uint16"), "omega": np.zeros((1, 2))}
    np.savez(folder / "cache.npz", **at, **about)
    return lambda: list(hexrd.open_frames(folder / "cache.npz", None).read(0, 1))


def shard(folder: Path) -> Callable[[], Any]:
    unit: Any = SimpleNamespace(shard=folder / "one.npz", rows=PEAKS)
    np.savez(unit.shard, peaks=np.zeros(3, PEAKS), bad_frames=np.zeros(0, np.int64))
    return lambda: (files.head(unit), files.load(unit.shard, "peaks"))


def network(_: Path) -> Callable[[], Any]:
    path = file_of(network_file(SHIPPED))
    return lambda: load(path)


@pytest.mark.skipif(sys.version_info >= (3, 11, 8), reason="later Pythons parse in several threads at once")
@pytest.mark.parametrize("kind", [mask, frames, shard, network])
def test_headers_are_parsed_one_at_a_time(tmp_path: Path, monkeypatch, kind: Callable[[Path], Callable]) -> None:
    """Two at once could end in a SystemError, by which a whole file seemed damaged (CPython issue 106905)."""
    read, parse = kind(tmp_path), ast.literal_eval
    inside, most = 0, 0

    def slowly(text: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", slowly)
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(read) for _ in range(4)]:
            future.result()
    assert most == 1
