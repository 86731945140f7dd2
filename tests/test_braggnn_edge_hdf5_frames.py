"""HDF5 scans, masks and darks: what was never written, links in circles, data sets of other dimensions, patterns."""

import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from fabio.edfimage import EdfImage
from PIL import Image

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames import corrections
from braggnn_edge.frames.corrections import read_dark, read_mask
from braggnn_edge.frames.formats import files_of
from braggnn_edge.frames.formats.hdf5_tree import list_datasets
from braggnn_edge.frames.scan import Scan, open_scan
from braggnn_edge.label.acquisition import external_files
from braggnn_edge.label.spec import ScanSpec

FRAMES = np.random.default_rng(3).integers(1, 60000, (6, 8, 10)).astype(np.uint16)
SIZE = (8, 10)


def hdf5(path: Path, **data: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file[name] = values
    return path


def stack(scan: Scan) -> np.ndarray:
    return np.array([frame for _, frame in scan.frames()])


@pytest.mark.parametrize("chunks", [(1, 8, 10), (2, 4, 5), (4, 8, 10), (6, 8, 5)])
def test_frames_never_written_are_bad_frames(tmp_path: Path, chunks: tuple[int, int, int]) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        data = file.create_dataset("d", FRAMES.shape, "u2", chunks=chunks, compression="gzip", fillvalue=7)
        data[: chunks[0]] = FRAMES[: chunks[0]]
        if chunks[0] == 2:
            data[4, 5, 6] = 1  # one chunk of two frames that has neither of them whole
    scan, bad = open_scan("hdf5", tmp_path / "s.h5"), []
    found = dict(scan.frames(on_bad=lambda index, message: bad.append((index, message))))
    assert sorted(found) == list(range(chunks[0]))
    assert all(np.array_equal(found[index], FRAMES[index]) for index in found)
    assert [index for index, _ in bad] == list(range(chunks[0], 6))
    assert all("never written" in message for _, message in bad)
    # From the middle, too.
    assert [index for index, _ in scan.frames(chunks[0] - 1, on_bad=lambda *_: None)] == [chunks[0] - 1]


@pytest.mark.parametrize("options", [{"chunks": (1, 8, 10)}, {}, {"maxshape": (None, 8, 10)}])
def test_a_scan_without_any_frame_is_refused(tmp_path: Path, options: dict) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("d", FRAMES.shape, "u2", **options)
    with pytest.raises(UserError, match="none of the 6 frames of '/d' was ever written"):
        open_scan("hdf5", tmp_path / "s.h5")


def test_unwritten_frames_of_the_second_file_of_an_eiger(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as master:
        for k in (1, 2):
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(f"s{k}.h5", "d")
            with h5py.File(tmp_path / f"s{k}.h5", "w") as file:
                data = file.create_dataset("d", (3, 8, 10), "u2", chunks=(1, 8, 10))
                data[: 4 - k] = FRAMES[3 * k - 3 : 3 * k + 1 - k]
    bad: list[int] = []
    assert [i for i, _ in open_scan("hdf5", tmp_path / "m.h5").frames(on_bad=lambda i, _: bad.append(i))] == [
        0, 1, 2, 3, 4
    ]  # fmt: skip
    assert bad == [5]


def test_darks_and_masks_never_written_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        data = file.create_dataset("dark", (3, 8, 10), "u2", chunks=(1, 8, 10))
        data[0] = 5
        file.create_dataset("mask", SIZE, "u1")
    with pytest.raises(UserError, match="image 1 was declared but never written"):
        read_dark(f"{tmp_path}/c.h5:dark", SIZE)
    with pytest.raises(UserError, match=r"never written|ever written"):
        read_mask(f"{tmp_path}/c.h5:mask", SIZE)


def test_raw_numbers_in_another_file_that_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = [("a.raw", 16, 2 * 160), ("b.raw", 0, h5py.h5f.UNLIMITED)]
    with h5py.File("s.h5", "w") as file:
        file.create_dataset("d", FRAMES.shape, "u2", external=parts)[...] = FRAMES
    assert np.array_equal(stack(open_scan("hdf5", "s.h5")), FRAMES)
    assert files_of("hdf5", Path("s.h5"), None) == (Path("s.h5"), Path("a.raw"), Path("b.raw"))
    with Path("b.raw").open("r+b") as raw:
        raw.truncate(160 + 10)
    bad: list[int] = []
    found = dict(open_scan("hdf5", "s.h5").frames(on_bad=lambda index, _: bad.append(index)))
    assert bad == [3, 4, 5]
    assert all(np.array_equal(found[index], FRAMES[index]) for index in (0, 1, 2))
    Path("a.raw").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        open_scan("hdf5", "s.h5").frame(0)


def test_every_object_is_visited_once(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "g.h5", **{"entry/data/data": FRAMES})
    with h5py.File(path, "a") as file:
        for k in range(6):
            file[f"entry/link{k}"] = h5py.SoftLink("/entry")
            file[f"entry/hard{k}"] = file["entry"]
            file[f"entry/data/again{k}"] = file["entry/data/data"]
        file["entry/far"] = h5py.ExternalLink("other.h5", "/")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["back"] = h5py.ExternalLink("g.h5", "/entry")
        file["table"] = np.zeros((3, 2))
    before = time.process_time()
    assert np.array_equal(stack(open_scan("hdf5", path)), FRAMES)
    with h5py.File(path) as file:
        assert [entry.shape for entry in list_datasets(file)] == [FRAMES.shape, (3, 2)]
    assert time.process_time() - before < 2  # it was a power of the links


def test_thousands_of_data_sets_take_seconds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for k in range(3000):
            file[f"ff1/{k}"] = np.zeros((2, 9))
    before = time.process_time()
    with pytest.raises(UserError, match="name the 3-D data set to read; those in the file"):
        open_scan("hdf5", tmp_path / "many.h5")
    assert time.process_time() - before < 5  # 0.3 s


def test_data_sets_of_several_names_are_one(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "n.h5", **{"entry/instrument/detector/data": FRAMES})
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = file["entry/instrument/detector/data"]
        file["entry/data/soft"] = h5py.SoftLink("/entry/data/data")
    assert np.array_equal(stack(open_scan("hdf5", path)), FRAMES)
    with h5py.File(tmp_path / "e.h5", "w") as master:
        for k in (1, 2):
            hdf5(tmp_path / f"p{k}.h5", d=FRAMES[3 * k - 3 : 3 * k])
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(f"p{k}.h5", "d")
        master["entry/data/data"] = h5py.ExternalLink("p1.h5", "d")
        master["entry/instrument/detector/data"] = h5py.SoftLink("/entry/data")
    assert np.array_equal(stack(open_scan("hdf5", tmp_path / "e.h5")), FRAMES)


def test_nexus_says_which_of_several_is_meant(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "n.h5", **{"entry/data/data": FRAMES, "entry/data/flat": FRAMES * 0})
    with pytest.raises(UserError, match="name the 3-D data set to read; those in the file: /entry/data/data, "):
        open_scan("hdf5", path)
    with h5py.File(path, "a") as file:
        file["entry/data"].attrs["signal"] = "data"
    assert np.array_equal(stack(open_scan("hdf5", path)), FRAMES)


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (FRAMES[0], FRAMES[:1]),
        (FRAMES[:1], FRAMES[:1]),
        (FRAMES[None], FRAMES),
        (FRAMES[:, None], FRAMES),
        (FRAMES[None, :, None], FRAMES),
        (FRAMES[None, :1], FRAMES[:1]),
        (FRAMES.astype(">u2"), FRAMES),
    ],
)
@pytest.mark.parametrize("dataset", [None, "d"])
def test_other_dimensions_and_byte_orders(
    tmp_path: Path, data: np.ndarray, frames: np.ndarray, dataset: str | None
) -> None:
    path = hdf5(tmp_path / "s.h5", d=data)
    scan = open_scan("hdf5", path, dataset=dataset)
    assert (scan.shape, scan.dtype) == (frames.shape, np.dtype("u2"))
    assert scan.dtype.isnative
    assert all(frame.dtype.isnative for _, frame in scan.frames())
    assert np.array_equal(stack(scan), frames)
    if len(frames) > 2:
        assert [index for index, _ in scan.frames(1, 3)] == [1, 2]
        assert np.array_equal(scan.frame(4), frames[4])


def test_a_dark_of_one_image_in_three_dimensions(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "s.h5", d=FRAMES)
    dark = hdf5(tmp_path / "dark.h5", dark=FRAMES[:1], table=np.zeros((3, 2)))
    for name in (dark, f"{dark}:dark"):
        assert np.array_equal(open_scan("hdf5", path, dark=name).dark, FRAMES[0])
    mask = hdf5(tmp_path / "mask.h5", mask=(FRAMES[:1] > 30000).astype(np.int8))
    assert np.array_equal(open_scan("hdf5", path, mask=mask).mask, FRAMES[0] > 30000)


#: The first image of a real stack of darks is often unusable: 900 among 100, 102, 98.
DARKS = np.stack([np.full(SIZE, value, np.uint16) for value in (900, 100, 102, 98, 101)])
DARKS[:, 2, 3] = [1, 2, 60000, 65535, 65535]


def dark_file(folder: Path, kind: str, darks: np.ndarray) -> str:
    if kind == "edf":
        image = EdfImage(data=darks[0])
        for one in darks[1:]:
            image.append_frame(data=one)
        image.write(str(folder / "dark.edf"))
    elif kind == "tif":
        pages = [Image.fromarray(one) for one in darks]
        pages[0].save(folder / "dark.tif", save_all=True, append_images=pages[1:])
    elif kind == "series":
        for old in folder.glob("dark_*.edf"):
            old.unlink()
        for number, one in enumerate(darks):
            EdfImage(data=one).write(str(folder / f"dark_{number}.edf"))
        return str(folder / "dark_*.edf")
    elif kind == "npy":
        np.save(folder / "dark.npy", darks)
    else:
        hdf5(folder / "dark.h5", **{"exchange/dark": darks})
        return str(folder / ("dark.h5" if kind == "h5" else "dark.h5:exchange/dark"))
    return str(folder / f"dark.{kind}")


@pytest.mark.parametrize("kind", ["edf", "tif", "series", "npy", "h5", "h5 named"])
def test_the_dark_of_a_stack_is_its_median(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dark_file(tmp_path, kind, DARKS)
    path = hdf5(tmp_path / "s.h5", d=FRAMES)
    monkeypatch.setattr(corrections, "MEDIAN_BYTES", 5 * 3 * 10 * 2)  # three rows at a time
    scan = open_scan("hdf5", path, dark=name)
    expected = np.full(SIZE, 101)
    expected[2, 3] = 60000
    assert np.array_equal(scan.dark, expected)
    assert scan.dtype == np.int32
    assert np.array_equal(scan.frame(0), FRAMES[0].astype(int) - expected)
    assert set(corrections.files_of(name)) == set(tmp_path.glob("dark*"))
    even = read_dark(dark_file(tmp_path, kind, DARKS[:4]), SIZE)
    assert (even[0, 0], even[2, 3]) == (101, 30001)
    if kind == "series":
        return
    floats = DARKS.astype(np.float32)
    assert np.array_equal(read_dark(dark_file(tmp_path, kind, floats), SIZE), expected) or kind == "tif"
    if kind != "tif":
        floats[1, 0, 0] = np.nan
        with pytest.raises(UserError, match="holds NaN"):
            read_dark(dark_file(tmp_path, kind, floats), SIZE)


def test_the_dark_of_an_eiger_is_the_median_of_all_its_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as master:
        for k, part in enumerate((DARKS[:3], DARKS[3:]), 1):
            hdf5(tmp_path / f"p{k}.h5", d=part)
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(f"p{k}.h5", "d")
    name = f"{tmp_path}/m.h5:entry/data"
    assert np.array_equal(read_dark(name, SIZE), np.median(DARKS, axis=0))
    assert set(corrections.files_of(name)) == set(tmp_path.iterdir())


def test_medians_of_large_integers_do_not_overflow(tmp_path: Path) -> None:
    for dtype, values in ((np.uint64, [2**64 - 1, 2**64 - 3]), (np.int64, [-(2**63), -(2**63) + 3])):
        np.save(tmp_path / "d.npy", np.array(values, dtype)[:, None, None] * np.ones((1, 1, 1), dtype))
        assert int(read_dark(str(tmp_path / "d.npy"), (1, 1))[0, 0]) == sum(values) // 2
    np.save(tmp_path / "d.npy", np.full((1, 1), 2**64 - 1, np.uint64))
    scan = open_scan("hdf5", hdf5(tmp_path / "s.h5", d=np.full((1, 1, 1), 5, np.uint64)), dark=tmp_path / "d.npy")
    assert scan.frame(0)[0, 0] == -(2**31)  # clipped


@pytest.mark.parametrize("kind", ["edf", "tif", "series", "npy", "h5"])
def test_a_stack_is_no_mask(tmp_path: Path, kind: str) -> None:
    name = dark_file(tmp_path, kind, DARKS * 0)
    with pytest.raises(UserError, match=r"mask .*: holds 5 images; expected one"):
        read_mask(name, SIZE)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int8, np.float32])
@pytest.mark.parametrize("place", ["pixel_mask", "entry/instrument/detector/pixel_mask"])
@pytest.mark.parametrize("named", [True, False])
def test_nexus_masks(tmp_path: Path, dtype: type, place: str, named: bool) -> None:
    values = np.zeros(SIZE, dtype)
    values[1], values[2, 3] = 1, 16
    if np.dtype(dtype).kind == "i":
        values[4, 4] = -128
    path = hdf5(tmp_path / "m.h5", **{place: values, "entry/flatfield": np.ones(SIZE, np.float32), "d": FRAMES})
    scan = open_scan("hdf5", path, dataset="d", mask=f"{path}:{place}" if named else path)
    assert np.array_equal(scan.mask, values != 0)


def test_nexus_masks_behind_links_and_others(tmp_path: Path) -> None:
    values = np.zeros(SIZE, np.int32)
    values[1] = 4
    hdf5(tmp_path / "m.h5", pixel_mask=values, mask=values, good=values // 4)
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["a"], file["far"] = h5py.SoftLink("/far"), h5py.ExternalLink("m.h5", "pixel_mask")
    assert np.array_equal(read_mask(f"{tmp_path}/l.h5:a", SIZE), values != 0)
    with pytest.raises(UserError, match="other values than 0"):
        read_mask(f"{tmp_path}/m.h5:mask", SIZE)
    assert np.array_equal(read_mask(f"{tmp_path}/m.h5:good", SIZE), values != 0)
    spec = ScanSpec("s", "hdf5", "s.h5", mask="l.h5:a")
    assert external_files((spec,), tmp_path) == tuple(tmp_path / name for name in ("s.h5", "l.h5", "m.h5"))


def test_patterns_and_dangling_links_say_what_they_need(tmp_path: Path) -> None:
    hdf5(tmp_path / "a1.h5", d=FRAMES)
    for name in ("hdf5", "braggnn", "hexrd"):
        with pytest.raises(UserError, match='Patterns are for format = "images"; to read several HDF5 files'):
            open_scan(name, tmp_path / "a*.h5")
    (tmp_path / "gone.h5").symlink_to(tmp_path / "none.h5")
    with pytest.raises(UserError, match=r"gone\.h5: is a link to .*none\.h5, which is not there"):
        open_scan("hdf5", tmp_path / "gone.h5")
    assert files_of("hdf5", tmp_path / "gone.h5", None) == (tmp_path / "gone.h5",)
    folder = tmp_path / "run[1]*?"
    folder.mkdir()
    hdf5(folder / "a[2].h5", d=FRAMES)
    assert open_scan("hdf5", folder / "a[2].h5").shape == FRAMES.shape


def test_odd_objects_beside_the_frames_do_no_harm(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "s.h5", d=FRAMES)
    with h5py.File(path, "a") as file:
        file.create_dataset("null", data=h5py.Empty("f"))
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((3,)))  # numpy has no such type
        h5py.h5g.create(file.id, b"no utf \xff\xfe")
        file["type"], file["loop"] = np.dtype("f8"), h5py.SoftLink("/loop")
        file["text"] = np.array(["a"], dtype=h5py.string_dtype())
    assert np.array_equal(stack(open_scan("hdf5", path)), FRAMES)
    with pytest.raises(UserError, match="has no data set 'e'; the data sets there are: /d"):
        open_scan("hdf5", path, dataset="e")
