"""Chunks survive SIGKILL at any moment, and a result of other work is never taken."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from firmware_sim.forms.chunks import map_chunks

DATA = np.arange(400, dtype=np.int32).reshape(200, 2)
SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from firmware_sim.forms.chunks import map_chunks

def work(start, part):
    time.sleep(0.02)
    return {"out": part * 3 + start}

data = np.arange(400, dtype=np.int32).reshape(200, 2)
print("ready", flush=True)
map_chunks(work, data, key="k", chunk=2, workers=2, out_dir=Path(sys.argv[1]))
"""


def _work(start, part):
    return {"out": part * 3 + start}


@pytest.mark.parametrize("seconds", [0.15, 0.5])
def test_killed_and_resumed(tmp_path, seconds):
    root = str(Path(__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
    done = len(list(tmp_path.glob("*.npz")))
    assert done < 100
    starts = []

    def count(start, part):
        starts.append(start)
        return _work(start, part)

    found = map_chunks(count, DATA, key="k", chunk=2, workers=2, out_dir=tmp_path)
    assert len(starts) == 100 - done
    np.testing.assert_array_equal(
        np.concatenate([r["out"] for r in found]), DATA * 3 + (np.arange(200) // 2 * 2)[:, None]
    )


def test_key_data_and_chunk_decide(tmp_path):
    for arguments in ({}, {"key": "other"}, {"chunk": 50}):
        before = len(list(tmp_path.iterdir()))
        map_chunks(_work, DATA, **{"key": "k", "chunk": 100, "workers": 1, "out_dir": tmp_path, **arguments})
        assert len(list(tmp_path.iterdir())) > before
    before = len(list(tmp_path.iterdir()))
    map_chunks(_work, DATA + 1, key="k", chunk=100, workers=1, out_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == before + 2


def test_failure_leaves_nothing_half_written(tmp_path):
    def fail(start, part):
        if start:
            raise UserError("broken")
        return _work(start, part)

    with pytest.raises(UserError, match="broken"):
        map_chunks(fail, DATA, key="k", chunk=100, workers=1, out_dir=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    with pytest.raises(UserError, match="workers 0"):
        map_chunks(fail, DATA, key="k", chunk=100, workers=0, out_dir=tmp_path)
