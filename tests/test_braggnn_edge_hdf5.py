"""A disk that fills up while HDF5 writes: one OSError, no crash, no half file; otherwise a plain HDF5 file."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggnn_edge.core.hdf5 import writing_hdf5

#: A limit on the size of files stands for a full disk: the same write fails, with EFBIG instead of ENOSPC.
LIMITED = """
import errno, gc, resource, sys
from pathlib import Path
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
path = Path(sys.argv[1])
def work():
    {work}
try:
    work()
except OSError as error:
    print(errno.errorcode[error.errno], sorted(p.name for p in path.parent.iterdir()))
gc.collect()
"""

WRITERS = {
    "table": """
    from braggnn_edge.peaks import table
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 9999, (900, 13, 13)).astype(np.uint16)
    table.save(table.PeakTable(np.zeros(900, table.PEAK), crops, ("s",), 11, 1), path)
    """,
    "peaks": """
    from braggnn_edge.frames.formats.braggnn import PEAK_DTYPE, write_peaks
    write_peaks(path, np.zeros(9000, PEAK_DTYPE))
    """,
    "frames": """
    from braggnn_edge.frames.formats.braggnn import write_frames
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 9999, (64, 64)).astype(np.uint16) for _ in range(9))
    write_frames(path, frames, (9, 64, 64), np.uint16)
    """,
    "simulation": """
    from braggnn_edge.simulation.simulate import simulate
    from braggnn_edge.simulation.spec import SimulationSpec
    spec = SimulationSpec(rows=256, cols=256, frames=3, reflections=700, rings=(60.0, 90.0, 115.0), window=27)
    simulate(spec, 1, path, path.with_name("truth.h5"), 1)
    """,
    "weights": """
    import torch
    from braggnn_edge.training.tensors import save_tensors
    from braggnn_edge.core.files import written_aside
    with written_aside(path) as aside:
        save_tensors({"weight": torch.zeros(90_000)}, aside)
    """,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_is_one_error_and_no_crash(tmp_path: Path, writer: str) -> None:
    program = LIMITED.format(work=WRITERS[writer].strip())
    path = tmp_path / "made" / "out.h5"
    path.parent.mkdir()
    found = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "EFBIG []\n", "")


def test_parts_of_a_long_file_tell_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = 0

    def fill() -> None:
        nonlocal done
        with writing_hdf5(tmp_path / "long.h5") as (file, check):
            data = file.create_dataset("d", (100, 100), "f8", chunks=(1, 100))
            for index in range(100):
                if index == 3:
                    monkeypatch.setattr("braggnn_edge.core.hdf5._put", _refuse)
                data.id.write_direct_chunk((index, 0), bytes(800))
                check()
                done += 1

    with pytest.raises(OSError, match="full"):
        fill()
    assert done == 3
    assert list(tmp_path.iterdir()) == []


def _refuse(*_: object) -> int:
    raise OSError(28, "full")


def test_file_is_plain_hdf5_and_the_same_bytes_again(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((700, 50))
    for name in ("a.h5", "b.h5"):
        with writing_hdf5(tmp_path / name, track_order=True) as (file, check):
            data = file.create_dataset("d", (0, 50), "f8", maxshape=(None, 50), chunks=(64, 50), compression="gzip")
            for start in range(0, 700, 100):
                data.resize(start + 100, axis=0)
                data[start:] = values[start : start + 100]
                check()
            file.attrs["unit"] = "px"
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["d"], values)
        assert file.attrs["unit"] == "px"
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
