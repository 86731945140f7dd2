"""Scans of every format: round trips, lazy reading, dark and mask, and corner-case files."""

import os
import tracemalloc
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from fabio.edfimage import EdfImage

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import FORMATS
from braggnn_edge.frames.formats.braggnn import is_valid, read_peaks, write_frames, write_peaks
from braggnn_edge.frames.scan import open_scan

RNG = np.random.default_rng(7)
FRAMES = RNG.integers(0, 60000, (5, 12, 9)).astype(np.uint16)


def _hdf5(path: Path, data: np.ndarray, name: str = "entry/data", **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=data, **options)
    return path


def _cache(path: Path, frames: np.ndarray, **change: object) -> Path:
    """A HEXRD frame cache of dense frames, with entries replaced, or removed by None."""
    entries: dict[str, object] = {"shape": np.array(frames.shape[1:]), "nframes": np.array(len(frames))}
    entries |= {"dtype": np.array(str(frames.dtype).encode()), "omega": np.arange(2.0 * len(frames)).reshape(-1, 2)}
    for i, frame in enumerate(frames):
        row, col = (axis.astype(np.uint16) for axis in np.nonzero(frame))
        entries |= {f"{i}_row": row, f"{i}_col": col, f"{i}_data": frame[row, col]}
    entries |= change
    np.savez_compressed(path, **{key: value for key, value in entries.items() if value is not None})
    return path


def _stack(scan: object) -> np.ndarray:
    return np.array([frame for _, frame in scan.frames()])


def test_braggnn_round_trip(tmp_path: Path) -> None:
    peaks = np.zeros(4, [("frame", "u4"), ("row", "f4"), ("col", "f4"), ("npeaks", "u2"), ("deviation", "f4")])
    peaks["frame"], peaks["row"], peaks["col"] = [0, 1, 4, 4], [1.5, 2, 3, 11.25], [0, 8.25, 3, 4]
    peaks["npeaks"], peaks["deviation"] = [1, 2, 1, 1], [0.0, 0.5, 1.0, 0.25]
    write_frames(tmp_path / "f.h5", iter(FRAMES), FRAMES.shape, FRAMES.dtype)
    write_peaks(tmp_path / "p.h5", peaks)
    scan = open_scan("braggnn", tmp_path / "f.h5", peaks=tmp_path / "p.h5")
    assert (scan.shape, scan.dtype, scan.name, scan.omega) == ((5, 12, 9), np.uint16, "f", None)
    assert [index for index, _ in scan.frames(1, 4)] == [1, 2, 3]
    assert np.array_equal(_stack(scan), FRAMES)
    assert np.array_equal(scan.frame(3), FRAMES[3])
    for name in peaks.dtype.names:
        assert np.array_equal(scan.peaks[name], peaks[name])
    # one peak in the window, 0 <= deviation < 1: the second has two, the third a deviation of 1
    assert scan.peaks["valid"].tolist() == [True, False, False, True]
    assert not is_valid(np.array([1]), np.array([-0.1]))[0]
    with h5py.File(tmp_path / "f.h5") as file:
        assert (file["frames"].chunks, file["frames"].compression) == ((1, 12, 9), "gzip")


def test_write_frames_refuses_wrong_frames_and_leaves_no_file(tmp_path: Path) -> None:
    for frames in (FRAMES[:4], [*FRAMES, FRAMES[0]], FRAMES[:, :5], FRAMES.astype(float)):
        with pytest.raises(UserError):
            write_frames(tmp_path / "f.h5", frames, FRAMES.shape, FRAMES.dtype)
    assert list(tmp_path.iterdir()) == []


def test_hexrd_cache(tmp_path: Path) -> None:
    sparse = np.where(FRAMES > 50000, FRAMES, 0)
    sparse[2] = 0
    scan = open_scan("hexrd", _cache(tmp_path / "c.npz", sparse))
    assert (scan.shape, scan.dtype) == (sparse.shape, np.uint16)
    assert np.array_equal(_stack(scan), sparse)
    assert np.array_equal(scan.omega, np.arange(10.0).reshape(5, 2))


@pytest.mark.parametrize(
    "options", [{"compression": "gzip", "shuffle": True}, hdf5plugin.Bitshuffle(), hdf5plugin.Zstd()]
)
@pytest.mark.parametrize("chunks", [(1, 12, 9), (2, 5, 4), (5, 3, 3)])
def test_hdf5_filters_and_chunks(tmp_path: Path, options: dict, chunks: tuple[int, ...]) -> None:
    path = _hdf5(tmp_path / "f.h5", FRAMES.astype(np.int32) - 9, chunks=chunks, **options)
    scan = open_scan("hdf5", path, dataset="/entry/data")
    assert np.array_equal(_stack(scan), FRAMES.astype(np.int32) - 9)
    assert np.array_equal([f for _, f in scan.frames(1, 4)], FRAMES[1:4].astype(np.int32) - 9)


def test_hdf5_external_and_virtual_links(tmp_path: Path) -> None:
    source = _hdf5(tmp_path / "raw.h5", FRAMES)
    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
    layout[:] = h5py.VirtualSource("raw.h5", "entry/data", FRAMES.shape)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/linked"] = h5py.ExternalLink("raw.h5", "/entry/data")
        file.create_virtual_dataset("virtual", layout)
    for name in ("entry/linked", "virtual"):
        assert np.array_equal(_stack(open_scan("hdf5", tmp_path / "master.h5", dataset=name)), FRAMES)
    source.unlink()
    with pytest.raises(UserError, match=r"links to '/entry/data' in the file 'raw\.h5'"):
        open_scan("hdf5", tmp_path / "master.h5", dataset="entry/linked")
    with pytest.raises(UserError, match=r"source file 'raw\.h5' is missing"):
        open_scan("hdf5", tmp_path / "master.h5", dataset="virtual")


def test_memory_is_bounded_by_a_chunk(tmp_path: Path) -> None:
    frames = np.zeros((60, 200, 300), np.uint16)  # 120 kB a frame, 7.2 MB together
    write_frames(tmp_path / "f.h5", frames, frames.shape, frames.dtype)
    _cache(tmp_path / "c.npz", frames)
    _hdf5(tmp_path / "t.h5", frames, "frames", chunks=(4, 50, 300))
    for name, path, block in (("braggnn", "f.h5", 1), ("hexrd", "c.npz", 1), ("hdf5", "t.h5", 4)):
        scan = open_scan(name, tmp_path / path)
        next(scan.frames())  # imports and caches are not the scan's
        tracemalloc.start()
        assert sum(1 for _ in scan.frames()) == 60
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The old block lives while the new one is read; 1 MB for zip members, chunk caches and Python.
        assert peak < 2 * block * frames[0].nbytes + 1_000_000, name


def test_time_chunks_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braggnn_edge.frames.formats.hdf5.BLOCK_BYTES", 3 * FRAMES[0].nbytes)
    scan = open_scan("hdf5", _hdf5(tmp_path / "f.h5", FRAMES, chunks=(5, 3, 3)))
    assert scan.source.block == 3
    assert np.array_equal(_stack(scan), FRAMES)


def test_dark_and_mask(tmp_path: Path) -> None:
    dark = RNG.integers(0, 60000, (12, 9)).astype(np.uint16)
    mask = RNG.random((12, 9)) < 0.2
    np.save(tmp_path / "dark.npy", dark)
    _hdf5(tmp_path / "mask.h5", mask.astype(np.uint8), "a/mask")
    path = _hdf5(tmp_path / "f.h5", FRAMES)
    scan = open_scan("hdf5", path, dark=tmp_path / "dark.npy", mask=f"{tmp_path}/mask.h5:a/mask")
    expected = np.where(mask, 0, FRAMES.astype(int) - dark)
    assert scan.dtype == np.int32
    assert np.array_equal(_stack(scan), expected)
    assert expected.min() < 0  # the difference is signed
    np.save(tmp_path / "dark.npy", dark / 2)
    scan = open_scan("hdf5", path, dark=tmp_path / "dark.npy")
    assert scan.dtype == np.float32
    assert np.array_equal(_stack(scan), (FRAMES - dark / 2).astype(np.float32))
    wide = _hdf5(tmp_path / "w.h5", np.full((1, 12, 9), 2**32 - 2, np.uint32))
    np.save(tmp_path / "dark.npy", dark)
    assert (open_scan("hdf5", wide, dark=tmp_path / "dark.npy").frame(0) == 2**31 - 1).all()


def test_nan_is_named_unless_masked(tmp_path: Path) -> None:
    frames = FRAMES.astype(np.float32)
    frames[3, 2, 2] = np.nan
    path = _hdf5(tmp_path / "f.h5", frames)
    scan = open_scan("hdf5", path)
    with pytest.raises(UserError, match="frame 3 holds 1 pixels that are NaN"):
        _stack(scan)
    np.save(tmp_path / "mask.npy", ~np.isfinite(frames[3]))
    assert open_scan("hdf5", path, mask=tmp_path / "mask.npy").frame(3)[2, 2] == 0


def test_range_outside_is_refused_at_once(tmp_path: Path) -> None:
    scan = open_scan("hdf5", _hdf5(tmp_path / "f.h5", FRAMES))
    for start, stop in ((-1, 2), (0, 6), (3, 2)):
        with pytest.raises(UserError, match="expected 0 <= start <= stop <= 5"):
            scan.frames(start, stop)
    with pytest.raises(UserError, match="expected 0 to 4"):
        scan.frame(5)
    assert list(scan.frames(5)) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (FRAMES[0, 0], "three dimensions"),
        (np.stack([FRAMES, FRAMES]), "three dimensions"),
        (FRAMES.astype(complex), "complex128 are not supported"),
        (np.array([[[b"a"]]]), "are not supported"),
        (FRAMES[:0], "at least one frame"),
    ],
)
def test_wrong_layout(tmp_path: Path, data: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_scan("hdf5", _hdf5(tmp_path / "f.h5", data, "frames"), dataset="frames")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "scan"
    with pytest.raises(UserError, match="no such file"):
        open_scan(name, path)
    path.mkdir()
    with pytest.raises(UserError, match="is not a file"):
        open_scan(name, path)
    path.rmdir()
    path.write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        open_scan(name, path)
    path.write_bytes(b"some text, no data" * 100)
    with pytest.raises(UserError, match="is not a readable"):
        open_scan(name, path)
    whole = tmp_path / "whole.npz"
    if name == "hexrd":
        _cache(whole, FRAMES)
    elif name == "images":
        EdfImage(data=FRAMES[0]).write(str(whole))
    else:
        write_frames(whole, FRAMES, FRAMES.shape, FRAMES.dtype)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match="truncated"):
        open_scan(name, path)


def test_corrupt_data_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_frames(path, FRAMES, FRAMES.shape, FRAMES.dtype)
    with h5py.File(path) as file:
        chunk = file["frames"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    with pytest.raises(UserError, match="frames 2 to 2 of 'frames' cannot be read"):
        _stack(open_scan("braggnn", path))


def test_missing_data_set_lists_those_there_are(tmp_path: Path) -> None:
    path = _hdf5(tmp_path / "f.h5", FRAMES)
    with pytest.raises(UserError, match=r"no data set 'frames'.*/entry/data \(5, 12, 9\)"):
        open_scan("braggnn", path)
    with pytest.raises(UserError, match=r"'entry' is a group; name a data set: /entry/data"):
        open_scan("hdf5", path, dataset="entry")
    with h5py.File(path, "a") as file:
        file["second"] = FRAMES
        file["loop"] = h5py.SoftLink("/")
    with pytest.raises(UserError, match="name the 3-D data set to read"):
        open_scan("hdf5", path)
    with pytest.raises(UserError, match="unknown; expected one of braggnn, hdf5, hexrd, imaged11, images"):
        open_scan("tiff", path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nframes": None}, "has no nframes"),
        ({"nframes": np.array(9)}, "no entry 8_data"),
        ({"dtype": np.array(b"complex64")}, "not supported"),
        ({"dtype": np.array(b"nonsense")}, "malformed"),
        ({"shape": np.array([12])}, "three dimensions"),
        ({"omega": np.zeros((4, 2))}, "omega in the file has shape"),
        ({"3_data": np.zeros(3, np.uint16)}, "frame 3: row, col, data have shapes"),
        ({"3_row": np.full(107, 12, np.uint16)}, None),
        ({"3_data": np.array([None, "x"], object)}, "entry '3_data' is missing or cannot be read"),
        ({"3_row": None}, "entry '3_row' is missing"),
    ],
)
def test_bad_caches(tmp_path: Path, change: dict, message: str | None) -> None:
    if "3_row" in change and change["3_row"] is not None:
        n = np.count_nonzero(FRAMES[3])
        change, message = {"3_row": np.full(n, 12, np.uint16)}, "frame 3: holds pixels outside"
    with pytest.raises(UserError, match=message):
        _stack(open_scan("hexrd", _cache(tmp_path / "c.npz", FRAMES, **change)))


def test_wrong_dark_mask_and_peaks(tmp_path: Path) -> None:
    path = _hdf5(tmp_path / "f.h5", FRAMES)
    _hdf5(tmp_path / "g.h5", FRAMES[0], "a")
    with h5py.File(tmp_path / "g.h5", "a") as file:
        file["b"] = FRAMES[1]
    np.save(tmp_path / "small.npy", np.zeros((3, 3)))
    np.save(tmp_path / "two.npy", np.full((12, 9), 2))
    np.save(tmp_path / "nan.npy", np.full((12, 9), np.nan))
    for key, name, message in (
        ("dark", "small.npy", r"has shape \(3, 3\); expected \(12, 9\)"),
        ("dark", "nan.npy", "holds NaN"),
        ("mask", "two.npy", "other values than 0"),
        ("mask", "none.npy", "no such file"),
        ("mask", "f.h5", "holds 5 images; expected one"),
        ("dark", "g.h5", "name the 2-D data set to read, or a 3-D one of several images; those in the file: /a, /b"),
    ):
        with pytest.raises(UserError, match=message):
            open_scan("hdf5", path, **{key: tmp_path / name})
    columns = {"peak_fidx": [0, 9], "peak_row": [1.0, 2.0], "peak_col": [1.0, 2.0], "npeaks": [1, 1]}
    with h5py.File(tmp_path / "p.h5", "w") as file:
        for name, values in columns.items():
            file[name] = values
    with pytest.raises(UserError, match="no data set 'deviations'"):
        read_peaks(tmp_path / "p.h5")
    for values, message in (([0.5], "differ in length"), ([0.5, np.nan], "holds NaN"), ([0.5, 0.5], "names frame 9")):
        with h5py.File(tmp_path / "p.h5", "a") as file:
            file.pop("deviations", None)
            file["deviations"] = values
        with pytest.raises(UserError, match=message):
            open_scan("hdf5", path, peaks=tmp_path / "p.h5")


def _data() -> Path:
    folder = os.environ.get("BRAGGNN_EDGE_DATA")
    if not folder:
        pytest.skip("BRAGGNN_EDGE_DATA does not name the folder of real data")
    return Path(folder)


def test_published_labels() -> None:
    peaks = read_peaks(_data() / "braggnn_labels/peaks-exp4train-psz11.hdf5")
    assert (len(peaks), int(peaks["valid"].sum())) == (77_267, 69_347)


def test_ruby_scan() -> None:
    scan = open_scan("hexrd", _data() / "chess_ruby/mruby-0129_000004_ff1_000012-cachefile.npz")
    assert (scan.shape, scan.dtype) == ((1440, 3888, 3072), np.uint16)
    assert scan.omega is not None
    assert np.allclose(np.diff(scan.omega), 0.25)
    frame = scan.frame(0)
    assert np.count_nonzero(frame) == 52
    assert frame[frame > 0].min() > 150
