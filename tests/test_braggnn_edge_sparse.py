"""Sparse frames: ImageD11's files and HEXRD's caches, as their programs and as people write them."""

import dataclasses
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame, files_of
from braggnn_edge.frames.options import guessed_format
from braggnn_edge.frames.scan import Scan, open_scan
from braggnn_edge.label.acquisition import open_spec
from braggnn_edge.label.spec import ScanSpec

RNG = np.random.default_rng(9)
FRAMES = np.where(RNG.random((5, 30, 40)) < 0.03, RNG.integers(10, 60000, (5, 30, 40)), 0).astype(np.uint16)
FRAMES[2] = 0  # a frame without a pixel
FRAMES[4, -1, -1] = 65535


def stack(scan: Scan) -> np.ndarray:
    return np.array([frame for _, frame in scan.frames()])


def imaged11(path: Path, frames: np.ndarray = FRAMES, group: str = "1.1", mode: str = "w", **options: object) -> Path:
    """As ImageD11's segmenter writes it: lists that grow, in chunks, packed by LZF."""
    frame, row, col = np.nonzero(frames)
    with h5py.File(path, mode) as file:
        made = file.require_group(group)
        for name, values in (("row", row), ("col", col), ("intensity", frames[frame, row, col])):
            dtype = frames.dtype if name == "intensity" else np.uint16
            made.create_dataset(
                name, data=values.astype(dtype), chunks=(100,), maxshape=(None,), compression="lzf", shuffle=True
            )
        made.create_dataset("nnz", data=np.count_nonzero(frames, axis=(1, 2)).astype(np.uint32))
        made.attrs["itype"] = "uint16"
        for name, value in zip(("nframes", "shape0", "shape1"), frames.shape, strict=True):
            made.attrs[name] = value
        made.attrs["npx"] = len(row)
        for name, values in options.items():
            made[f"measurement/{name}"] = values
    return path


def test_imaged11_files(tmp_path: Path) -> None:
    path = imaged11(tmp_path / "s.h5", rot_center=10 + 0.5 * np.arange(5), rot=np.arange(5.0))
    scan = pickle.loads(pickle.dumps(open_scan("imaged11", path)))
    assert (scan.shape, scan.dtype) == (FRAMES.shape, np.uint16)
    assert np.array_equal(stack(scan), FRAMES)
    assert [index for index, _ in scan.frames(1, 3)] == [1, 2]
    assert np.array_equal(scan.frame(4), FRAMES[4])
    assert np.allclose(scan.omega, 10 + 0.5 * np.arange(5)[:, None] + [-0.25, 0.25])
    spec = ScanSpec("s", "imaged11", "s.h5", dataset="1.1")
    assert np.array_equal(stack(open_spec(spec, tmp_path, tmp_path)), FRAMES)
    assert open_scan("imaged11", imaged11(tmp_path / "f.h5", FRAMES.astype(np.float32))).dtype == np.float32


@pytest.mark.parametrize("name", ["rot", "diffrz", "diffrz_center"])
def test_rotation_of_imaged11_files(tmp_path: Path, name: str) -> None:
    path = imaged11(tmp_path / "s.h5", **{name: np.arange(5.0)[::-1]})
    scan = open_scan("imaged11", path)
    assert np.array_equal(scan.omega.mean(axis=1), np.arange(5.0)[::-1])
    assert "does not increase" in scan.omega_remark
    assert open_scan("imaged11", imaged11(tmp_path / "t.h5")).omega is None
    with pytest.raises(UserError, match=r"omega in the file has shape \(4, 2\)"):
        open_scan("imaged11", imaged11(tmp_path / "u.h5", rot=np.arange(4.0)))


def test_several_scans_in_one_file(tmp_path: Path) -> None:
    path = imaged11(tmp_path / "s.h5")
    imaged11(path, FRAMES[::-1], "sample/2.1", "a")
    with pytest.raises(UserError, match=r"name the group of the scan to read .*those in the file: .*1\.1/nnz"):
        open_scan("imaged11", path)
    for group, frames in (("1.1", FRAMES), ("/sample/2.1", FRAMES[::-1]), ("sample/2.1/", FRAMES[::-1])):
        assert np.array_equal(stack(open_scan("imaged11", path, dataset=group)), frames)
    with pytest.raises(UserError, match=r"has no group '3\.1' of a scan; those there are: .*sample/2\.1"):
        open_scan("imaged11", path, dataset="3.1")


def test_imaged11_files_with_virtual_lists(tmp_path: Path) -> None:
    pieces = [imaged11(tmp_path / f"p{k}.h5", part) for k, part in enumerate((FRAMES[:2], FRAMES[2:]))]
    with h5py.File(tmp_path / "s.h5", "w") as file:
        for name in ("nnz", "row", "col", "intensity"):
            sizes = [h5py.File(piece)[f"1.1/{name}"].shape[0] for piece in pieces]
            layout = h5py.VirtualLayout((sum(sizes),), np.uint32 if name == "nnz" else np.uint16)
            layout[: sizes[0]] = h5py.VirtualSource("p0.h5", f"1.1/{name}", (sizes[0],))
            layout[sizes[0] :] = h5py.VirtualSource("p1.h5", f"1.1/{name}", (sizes[1],))
            file.create_virtual_dataset(f"1.1/{name}", layout)
        for name, value in zip(("nframes", "shape0", "shape1"), FRAMES.shape, strict=True):
            file["1.1"].attrs[name] = value
    assert np.array_equal(stack(open_scan("imaged11", tmp_path / "s.h5")), FRAMES)
    assert files_of("imaged11", tmp_path / "s.h5", None) == (tmp_path / "s.h5", *pieces)
    pieces[1].unlink()
    with pytest.raises(UserError, match=r"its source file 'p1\.h5' is missing"):
        open_scan("imaged11", tmp_path / "s.h5")


def change(path: Path, what: str) -> None:
    with h5py.File(path, "a") as file:
        group = file["1.1"]
        if what == "attribute":
            del group.attrs["shape1"]
        elif what == "long nnz":
            del group["nnz"]
            group["nnz"] = np.zeros(6, np.uint32)
        elif what == "short lists":
            group["row"].resize(20, axis=0)
        elif what == "no list":
            del group["col"]
        elif what == "unwritten nnz":
            del group["nnz"]
            group.create_dataset("nnz", (5,), np.uint32, chunks=(5,))
        elif what == "outside":
            group["row"][-1] = 30
        elif what == "unwritten":
            size = group["col"].shape[0]
            values = group["col"][:30]
            del group["col"]
            group.create_dataset("col", (size,), np.uint16, chunks=(10,))[:30] = values


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("attribute", "has no attributes nframes, shape0 and shape1"),
        ("long nnz", r"its nnz is uint32 \(6,\); expected 5 numbers of pixels"),
        ("unwritten nnz", "expected 5 numbers of pixels, all written"),
        ("short lists", "1/row' has 20 entries, but the frames need"),
        ("no list", "has no data set '.*/col'"),
    ],
)
def test_incomplete_imaged11_files_are_refused(tmp_path: Path, what: str, message: str) -> None:
    change(imaged11(tmp_path / "s.h5"), what)
    with pytest.raises(UserError, match=message):
        open_scan("imaged11", tmp_path / "s.h5")


def test_frames_with_pixels_outside_or_unwritten_are_bad(tmp_path: Path) -> None:
    change(imaged11(tmp_path / "s.h5"), "outside")
    scan = open_scan("imaged11", tmp_path / "s.h5")
    assert np.array_equal(scan.frame(3), FRAMES[3])
    with pytest.raises(BadFrame, match="frame 4: holds pixels outside the panel of 30 x 40"):
        scan.frame(4)
    change(imaged11(tmp_path / "t.h5"), "unwritten")
    bad: list[int] = []
    found = dict(open_scan("imaged11", tmp_path / "t.h5").frames(on_bad=lambda index, _: bad.append(index)))
    counts = np.count_nonzero(FRAMES, axis=(1, 2))
    assert bad == [index for index in range(5) if counts[index] and counts[: index + 1].sum() > 30]
    assert not found[2].any()


def cache(path: Path, frames: np.ndarray = FRAMES, **change: object) -> Path:
    """HEXRD's npz of dense frames, with entries replaced, or removed by None."""
    entries: dict[str, object] = {"shape": np.array(frames.shape[1:]), "nframes": np.array(len(frames))}
    entries |= {"dtype": np.array(str(frames.dtype).encode()), "omega": np.arange(10.0).reshape(5, 2)}
    for i, frame in enumerate(frames):
        row, col = (axis.astype(np.uint16) for axis in np.nonzero(frame))
        entries |= {f"{i}_row": row, f"{i}_col": col, f"{i}_data": frame[row, col]}
    entries |= change
    np.savez_compressed(path, **{key: value for key, value in entries.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("omega", "expected"),
    [
        (np.arange(10).reshape(5, 2), np.arange(10.0).reshape(5, 2)),
        (np.arange(10.0, dtype=np.float32).reshape(5, 2), np.arange(10.0).reshape(5, 2)),
        (np.array([None, None], object), None),
        (np.full((5, 2), np.nan), None),
        (None, None),
    ],
)
def test_rotation_of_caches(tmp_path: Path, omega: object, expected: np.ndarray | None) -> None:
    scan = open_scan("hexrd", cache(tmp_path / "c.npz", omega=omega))
    assert expected is None if scan.omega is None else np.array_equal(scan.omega, expected)
    assert np.array_equal(stack(scan), FRAMES)


def test_caches_of_other_types_and_lists(tmp_path: Path) -> None:
    swapped = open_scan("hexrd", cache(tmp_path / "s.npz", FRAMES.astype(">u2")))
    assert swapped.dtype.isnative
    assert np.array_equal(stack(swapped), FRAMES)
    empty = np.array([])  # of floats, as numpy makes an empty list
    change = {"2_row": empty, "2_col": empty, "2_data": empty}
    change |= {"0_row": np.array([3, 3, 1]), "0_col": np.array([4, 4, 2]), "0_data": np.array([3, 4, 9])}
    expected = FRAMES.copy()
    expected[0] = 0
    expected[0, 3, 4], expected[0, 1, 2] = 7, 9  # a pixel that is listed twice holds the sum, as HEXRD reads it
    assert np.array_equal(stack(open_scan("hexrd", cache(tmp_path / "t.npz", **change))), expected)
    scan = open_scan("hexrd", cache(tmp_path / "u.npz", **(change | {"0_data": np.array([3, 4, 70000])})))
    with pytest.raises(BadFrame, match="data that fit uint16"):
        scan.frame(0)


def fch5(path: Path, **change: object) -> Path:
    """HEXRD's frame cache in HDF5."""
    frame, row, col = np.nonzero(FRAMES)
    counts = np.bincount(frame, minlength=5)
    ends = np.cumsum(counts)
    entries = {
        "shape": FRAMES.shape[1:],
        "nframes": 5,
        "dtype": "uint16",
        "metadata/omega": np.arange(10.0).reshape(5, 2),
    }
    entries |= {"data": FRAMES[frame, row, col][:, None], "indices": np.stack([row, col], 1).astype(np.uint16)}
    entries |= {"frame_ids": np.stack([ends - counts, ends], 1).reshape(-1)} | change
    with h5py.File(path, "w") as file:
        file.attrs["HEXRD_FRAMECACHE_VERSION"] = 1
        for name, value in entries.items():
            if value is not None:
                file[name] = value
    return path


def test_hexrd_caches_in_hdf5(tmp_path: Path) -> None:
    scan = open_scan("hexrd", fch5(tmp_path / "c.fch5"))
    assert (scan.shape, scan.dtype) == (FRAMES.shape, np.uint16)
    assert np.array_equal(stack(scan), FRAMES)
    assert np.array_equal(scan.omega, np.arange(10.0).reshape(5, 2))
    assert open_scan("hexrd", fch5(tmp_path / "d.fch5", **{"metadata/omega": None})).omega is None
    for change, message in (
        ({"dtype": "nonsense"}, "malformed"),
        ({"frame_ids": np.zeros(9, int)}, "malformed"),
        ({"data": np.zeros((9, 1), np.uint16)}, "'data' has 9 entries, but the frames need"),
        ({"indices": None}, "no data set 'indices'"),
    ):
        with pytest.raises(UserError, match=message):
            open_scan("hexrd", fch5(tmp_path / "e.fch5", **change))
    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["d"] = FRAMES
    with pytest.raises(UserError, match="is an HDF5 file without HEXRD_FRAMECACHE_VERSION = 1"):
        open_scan("hexrd", tmp_path / "h.h5")


def test_marks_and_masks_hold_for_sparse_frames(tmp_path: Path) -> None:
    mask = np.zeros(FRAMES.shape[1:], bool)
    mask[:10] = True
    np.save(tmp_path / "m.npy", mask)
    spec = ScanSpec("s", "imaged11", str(imaged11(tmp_path / "s.h5")), mask=str(tmp_path / "m.npy"))
    assert np.array_equal(stack(open_spec(spec, tmp_path, tmp_path)), np.where(mask, 0, FRAMES))
    kept = dataclasses.replace(spec, overflow_value="bad")
    assert open_spec(kept, tmp_path, tmp_path).frame(4)[-1, -1] == 0


def test_the_kind_of_an_hdf5_file_is_told_by_its_content(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["entry/data"], file["table/nnz"] = FRAMES, [1, 2]
    assert guessed_format(imaged11(tmp_path / "s.h5")) == "imaged11"
    assert guessed_format(fch5(tmp_path / "c.h5")) == "hexrd"
    assert guessed_format(tmp_path / "plain.h5") == "hdf5"


@pytest.mark.parametrize(("format", "write"), [("imaged11", imaged11), ("hexrd", cache), ("hexrd", fch5)])
def test_sparse_files_say_which_pixels_they_store(tmp_path: Path, format: str, write) -> None:
    path = write(tmp_path / "file.npz")
    mask = np.zeros(FRAMES.shape[1:], bool)
    mask[:, 10:20] = True
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "dark.npy", np.ones(mask.shape, np.uint16))
    plain, masked = open_scan(format, path), open_scan(format, path, mask=tmp_path / "mask.npy", overflow_value="bad")
    for index, frame, valid, stored in plain.frames_with_stored():
        assert valid is None
        assert np.array_equal(stored, np.flatnonzero(FRAMES[index]))
        assert np.array_equal(frame, FRAMES[index])
    for index, frame, valid, stored in masked.frames_with_stored():
        good = ~mask & (FRAMES[index] < 65535)
        assert np.array_equal(valid, good)
        assert np.array_equal(frame, np.where(good, FRAMES[index], 0))
        assert np.array_equal(stored, np.flatnonzero(FRAMES[index]))
    # With a dark every pixel may differ from 0.
    darkened = open_scan(format, path, dark=tmp_path / "dark.npy")
    assert all(stored is None for *_, stored in darkened.frames_with_stored())


def test_a_bad_pixel_in_a_sparse_frame_of_floats_is_told(tmp_path: Path) -> None:
    frames = FRAMES.astype(np.float32)
    frames[1, 3, 4] = np.nan
    scan = open_scan("imaged11", imaged11(tmp_path / "f.h5", frames))
    bad: list[int] = []
    assert [index for index, *_ in scan.frames_with_stored(on_bad=lambda index, _: bad.append(index))] == [0, 2, 3, 4]
    assert bad == [1]
