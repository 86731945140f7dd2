"""Image files and series, bad pixels and bad frames: every one as its detector writes it."""

import bz2
import dataclasses
import gzip
import logging
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import fabio
import h5py
import hdf5plugin
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from fabio.tifimage import TifImage
from PIL import Image

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame
from braggnn_edge.frames.formats.braggnn import write_frames
from braggnn_edge.frames.formats.series import series
from braggnn_edge.frames.scan import Scan, marks, open_scan
from braggnn_edge.label.acquisition import external_files, open_spec
from braggnn_edge.label.spec import ScanSpec, check_scans

RNG = np.random.default_rng(11)
FRAMES = RNG.integers(0, 60000, (4, 14, 9)).astype(np.uint16)


def edf(path: Path, frames: np.ndarray) -> Path:
    image = EdfImage(data=frames[0])
    for frame in frames[1:]:
        image.append_frame(data=frame)
    image.write(str(path))
    return path


def cbf(path: Path, frame: np.ndarray) -> Path:
    CbfImage(data=frame.astype(np.int32)).write(str(path))
    return path


def tiff(path: Path, frame: np.ndarray) -> Path:
    TifImage(data=frame).write(str(path))
    return path


def mccd(path: Path, frame: np.ndarray) -> Path:
    """A MarCCD file: a TIFF directory, the detector's header of 3,072 bytes at 1,024, the pixels at 4,096."""
    rows, cols = frame.shape
    # Width, length, bits, no compression, black is zero, strip offset, samples, rows a strip, bytes a strip.
    tags = ((256, cols), (257, rows), (258, 16), (259, 1), (262, 1), (273, 4096), (277, 1), (278, rows))
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (279, frame.nbytes))]
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    path.write_bytes(start.ljust(4096, b"\0") + frame.astype("<u2").tobytes())
    return path


def ge(path: Path, frames: np.ndarray) -> Path:
    """A GE file with its own header (angiography detector: sizes in 2-byte fields)."""
    header = bytearray(8192)
    header[:10] = b"ADEPT".ljust(10, b"\0")
    with path.open("wb") as stream:
        stream.write(bytes(header))
        stream.write(frames.astype("<u2").tobytes())
    fields = fabio.GEimage.GE_HEADER_INFO
    values = {"StandardHeaderSizeInBytes": 8192, "NumberOfFrames": len(frames), "ImageDepthInBits": 16}
    values |= {"NumberOfRowsInFrame": frames.shape[1], "NumberOfColsInFrame": frames.shape[2]}
    offset, content = 0, bytearray(path.read_bytes())
    for name, size, _ in fields:
        if name in values:
            content[offset : offset + size] = values[name].to_bytes(size, "little")
        offset += size
    path.write_bytes(content)
    return path


def packed(path: Path) -> tuple[Path, Path]:
    """The file as .gz and .bz2; the plain one is taken away."""
    content = path.read_bytes()
    path.unlink()
    first, second = path.with_name(path.name + ".gz"), path.with_name(path.name + ".bz2")
    first.write_bytes(gzip.compress(content))
    second.write_bytes(bz2.compress(content))
    return first, second


def stack(scan: Scan) -> np.ndarray:
    return np.array([frame for _, frame in scan.frames()])


def test_multi_frame_files(tmp_path: Path) -> None:
    pages = [Image.fromarray(frame) for frame in FRAMES]
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    for path in (edf(tmp_path / "m.edf", FRAMES), ge(tmp_path / "m.ge2", FRAMES), tmp_path / "m.tif"):
        scan = pickle.loads(pickle.dumps(open_scan("images", path)))
        assert (scan.shape, scan.dtype, scan.omega) == (FRAMES.shape, np.uint16, None), path
        assert np.array_equal(stack(scan), FRAMES), path
        assert [index for index, _ in scan.frames(1, 3)] == [1, 2]
        assert np.array_equal(scan.frame(3), FRAMES[3])


@pytest.mark.parametrize("kind", ["cbf", "tif", "mccd", "edf"])
def test_series_is_in_natural_order_and_packed_files_are_read(tmp_path: Path, kind: str, capsys) -> None:
    write = {"cbf": cbf, "edf": lambda path, frame: edf(path, frame[None]), "mccd": mccd, "tif": tiff}[kind]
    for number, frame in zip((2, 10, 9, 100), FRAMES[[0, 2, 1, 3]], strict=True):
        write(tmp_path / f"s_{number}.{kind}", frame)
    scan = open_scan("images", tmp_path / f"s_*.{kind}")
    assert [path.name for path in scan.source.files] == [f"s_{n}.{kind}" for n in (2, 9, 10, 100)]
    assert np.array_equal(stack(scan), FRAMES)
    assert scan.dtype == (np.int32 if kind == "cbf" else np.uint16)
    for name in packed(tmp_path / f"s_9.{kind}"):
        assert np.array_equal(open_scan("images", name).frame(0), FRAMES[1])
    assert capsys.readouterr().out == ""  # fabio prints when it unpacks a TIFF


def test_series_of_multi_frame_files_may_end_early(tmp_path: Path) -> None:
    ge(tmp_path / "a_1.ge2", FRAMES[:2])
    ge(tmp_path / "a_2.ge2", FRAMES[2:3])
    scan = open_scan("images", tmp_path / "a_*.ge2")
    assert scan.shape[0] == 3
    assert np.array_equal(stack(scan), FRAMES[:3])
    ge(tmp_path / "a_2.ge2", FRAMES[:3])
    with pytest.raises(UserError, match=r"a_2\.ge2: holds 3 frames, a_1\.ge2 holds 2"):
        stack(open_scan("images", tmp_path / "a_*.ge2"))
    ge(tmp_path / "a_3.ge2", FRAMES[:2])
    ge(tmp_path / "a_2.ge2", FRAMES[2:3])
    scan, bad = open_scan("images", tmp_path / "a_*.ge2"), []
    assert [index for index, _ in scan.frames(on_bad=lambda index, message: bad.append((index, message)))] == [
        0, 1, 2, 4, 5
    ]  # fmt: skip
    assert bad[0][0] == 3
    assert "a_2.ge2: holds 1 frames, number 1 is missing" in bad[0][1]


def test_memory_is_bounded_by_a_frame(tmp_path: Path) -> None:
    frames = np.zeros((30, 200, 300), np.uint16)  # 120 kB a frame, 3.6 MB together
    for path in (edf(tmp_path / "m.edf", frames), ge(tmp_path / "m.ge2", frames)):
        scan = open_scan("images", path)
        next(scan.frames())
        tracemalloc.start()
        assert sum(1 for _ in scan.frames()) == 30
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The last frame lives while the new one is read, as bytes and as an array; 0.5 MB for 30 headers and Python.
        assert peak < 4 * frames[0].nbytes + 500_000, path


def test_patterns(tmp_path: Path) -> None:
    for name in ("x7.cbf", "x07.cbf", "x8.cbf", "y[1].cbf", "z.cbf"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "x9.cbf").mkdir()
    assert [path.name for path in series(tmp_path / "x*.cbf")] == ["x07.cbf", "x7.cbf", "x8.cbf"]
    assert series(tmp_path / "y[1].cbf") == (tmp_path / "y[1].cbf",)  # a file of that name, no pattern
    with pytest.raises(UserError, match=r"w\*\.cbf: no file matches this pattern"):
        series(tmp_path / "w*.cbf")
    (tmp_path / "z.cbf.bz2").write_bytes(b"1")
    with pytest.raises(UserError, match=r"z\.cbf and z\.cbf\.bz2 are the same frame twice"):
        series(tmp_path / "z*")
    (tmp_path / "x8.cbf").write_bytes(b"")
    with pytest.raises(UserError, match=r"x8\.cbf: the file is empty"):
        series(tmp_path / "x*.cbf")


def test_change_of_shape_or_type_always_stops(tmp_path: Path) -> None:
    tiff(tmp_path / "a1.tif", FRAMES[0])
    for other, message in ((FRAMES[0][:, :8], r"uint16 \(14, 8\)"), (FRAMES[0].astype(np.uint32), r"uint32 \(14, 9\)")):
        tiff(tmp_path / "a2.tif", other)
        scan = open_scan("images", tmp_path / "a*.tif")
        for on_bad in (None, lambda *_: None):
            with pytest.raises(UserError, match=rf"a2\.tif: its frame is {message}, but .* \(14, 9\) in a1\.tif"):
                list(scan.frames(on_bad=on_bad))


def test_wrong_files(tmp_path: Path) -> None:
    write_frames(tmp_path / "f.h5", FRAMES, FRAMES.shape, FRAMES.dtype)
    with pytest.raises(UserError, match=r'is an HDF5 file; read it with format = "hdf5"'):
        open_scan("images", tmp_path / "f.h5")
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / "colour.tif")
    with pytest.raises(UserError, match=r"colour\.tif.*no colours"):
        open_scan("images", tmp_path / "colour.tif")
    with pytest.raises(UserError, match="image files have no data sets"):
        open_scan("images", tmp_path / "f.h5", dataset="a")
    (tmp_path / "text.gz").write_bytes(b"no gzip at all")
    with pytest.raises(UserError, match=r"text\.gz: is not a readable image"):
        open_scan("images", tmp_path / "text.gz")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("kind", ["cbf", "edf", "tif", "ge2", "cbf.bz2", "edf.gz"])
def test_truncated_frames_are_left_out_or_stop(tmp_path: Path, kind: str, share: float, caplog) -> None:
    write = {"cbf": cbf, "tif": tiff, "ge2": lambda p, f: ge(p, f[None]), "edf": lambda p, f: edf(p, f[None])}
    for number, frame in enumerate(FRAMES):
        path = write[kind.split(".", maxsplit=1)[0]](tmp_path / f"s{number}.{kind.split('.', maxsplit=1)[0]}", frame)
        if "." in kind:
            for made in packed(path):
                if made.suffix != path.with_suffix("." + kind).suffix:
                    made.unlink()
    for number in (0, 2):  # the first one too: the shape is then that of the second
        path = tmp_path / f"s{number}.{kind}"
        path.write_bytes(path.read_bytes()[: max(1, int(path.stat().st_size * share))])
    scan = open_scan("images", tmp_path / f"s*.{kind}", name="mine")
    bad: list[tuple[int, str]] = []
    with caplog.at_level(logging.WARNING):
        found = list(scan.frames(on_bad=lambda index, message: bad.append((index, message))))
    assert not caplog.records
    assert [index for index, _ in found] == [1, 3]
    assert np.array_equal([frame for _, frame in found], FRAMES[[1, 3]])
    assert [index for index, _ in bad] == [0, 2]
    assert bad[1][1].startswith(f"scan 'mine', frame 2: {tmp_path}/s2.{kind}: ")
    with pytest.raises(BadFrame, match=r"scan 'mine', frame 2: .*s2\."):
        list(scan.frames(1))


def test_checksum_of_a_cbf_is_heeded(tmp_path: Path) -> None:
    path = cbf(tmp_path / "a.cbf", FRAMES[0])
    content = bytearray(path.read_bytes())
    content[content.index(b"\x0c\x1a\x04\xd5") + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="Checksum"):
        open_scan("images", path)


def test_no_frame_at_all_names_the_first_file(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"t{number}.cbf").write_bytes(b"###CBF: VERSION 1.5\r\n" * 50)
        (tmp_path / f"u{number}.cbf").write_bytes(b"?##CBF: VERSION 1.5\r\n" * 50)
    with pytest.raises(UserError, match=r"could not identify .*u1\.cbf\)"):  # and does not read it for ever
        open_scan("images", tmp_path / "u*.cbf")
    with pytest.raises(UserError, match=r"t1\.cbf: .*the file ends too early"):
        open_scan("images", tmp_path / "t*.cbf")


def test_frames_of_damaged_hdf5_and_npz_files_and_nan_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_frames(path, FRAMES.astype(np.float32), FRAMES.shape, np.dtype(np.float32))
    with h5py.File(path, "a") as file:
        file["frames"][3, 2, 2] = np.inf
        chunk = file["frames"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    cache = {"shape": np.array(FRAMES.shape[1:]), "nframes": np.array(4), "dtype": np.array(b"uint16")}
    for index, frame in enumerate(FRAMES):
        row, col = np.nonzero(frame)
        outside = 90 if index == 1 else 0
        cache |= {f"{index}_row": row + outside, f"{index}_col": col, f"{index}_data": frame[row, col]}
    del cache["3_row"]
    np.savez(tmp_path / "c.npz", **cache)
    for name, file in (("braggnn", path), ("hexrd", tmp_path / "c.npz")):
        bad: list[tuple[int, str]] = []
        found = list(open_scan(name, file).frames(0, 4, lambda index, message, bad=bad: bad.append((index, message))))
        assert [index for index, _ in found] == [0, 2]
        assert np.array_equal([frame for _, frame in found], FRAMES[[0, 2]])
        assert [index for index, _ in bad] == [1, 3]
        assert all(file.name in message for _, message in bad)


def test_negative_pixels_are_bad_in_integer_images(tmp_path: Path) -> None:
    raw = FRAMES[0].astype(np.int32)
    raw[3], raw[4, 4] = -1, -2
    path = cbf(tmp_path / "a.cbf", raw)
    mask = np.zeros(raw.shape, bool)
    mask[0, 0] = True
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "dark.npy", np.full(raw.shape, 5))
    for options, dark, expected in (
        ({}, 0, raw >= 0),
        ({"mask": tmp_path / "mask.npy"}, 0, (raw >= 0) & ~mask),
        ({"mask": tmp_path / "mask.npy", "dark": tmp_path / "dark.npy"}, 5, (raw >= 0) & ~mask),
    ):
        index, frame, valid = next(open_scan("images", path, **options).frames_with_valid())
        assert index == 0
        assert np.array_equal(valid, expected)
        assert np.array_equal(frame, np.where(expected, raw - dark, 0))
        assert np.array_equal(open_scan("images", path, **options).frame(0), frame)
    _, frame, valid = next(open_scan("images", path, negative="data").frames_with_valid())
    assert valid is None
    assert np.array_equal(frame, raw)
    spec = ScanSpec("a", "images", "a.cbf")
    assert np.array_equal(next(open_spec(spec, tmp_path, tmp_path).frames_with_valid())[2], raw >= 0)
    kept = dataclasses.replace(spec, negative="data")
    assert next(open_spec(kept, tmp_path, tmp_path).frames_with_valid())[2] is None
    good = cbf(tmp_path / "good.cbf", FRAMES[0])
    assert next(open_scan("images", good).frames_with_valid())[2] is None


def test_what_marks_mean() -> None:
    signed, real, wide, short = (np.dtype(name) for name in ("i4", "f4", "u4", "u2"))
    assert marks("images", signed, "auto", "auto") == (True, False)
    assert marks("images", real, "auto", "auto") == (False, False)  # what a subtracted dark leaves
    assert marks("hdf5", signed, "auto", "auto") == (False, False)
    assert marks("hdf5", wide, "auto", "auto") == (False, True)
    assert marks("hdf5", short, "auto", "auto") == (False, False)  # saturated
    assert marks("hdf5", short, "bad", "bad") == (True, True)
    assert marks("images", signed, "data", "data") == (False, False)


def eiger(folder: Path, frames: np.ndarray, per_file: int) -> Path:
    """A master file and its data files as an Eiger writes them: bitshuffle and LZ4, external links, a pixel mask."""
    master = folder / "scan_master.h5"
    with h5py.File(master, "w") as file:
        for number, start in enumerate(range(0, len(frames), per_file), 1):
            name = f"scan_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as part:
                part.create_dataset(
                    "entry/data/data", data=frames[start : start + per_file], chunks=(1, *frames.shape[1:]),
                    **hdf5plugin.Bitshuffle(cname="lz4"),
                )  # fmt: skip
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
        mask = np.zeros(frames.shape[1:], np.uint32)
        mask[1], mask[2, 3] = 1, 16
        file["entry/instrument/detector/detectorSpecific/pixel_mask"] = mask
    return master


@pytest.mark.parametrize("dtype", [np.uint32, np.uint16])
def test_eiger_master_file(tmp_path: Path, dtype: type) -> None:
    frames = FRAMES.astype(dtype)
    frames[:, 5] = np.iinfo(dtype).max
    master = eiger(tmp_path, frames, 3)
    mask = f"{master}:entry/instrument/detector/detectorSpecific/pixel_mask"
    spec = ScanSpec("eiger", "hdf5", str(master), mask=mask, overflow_value="bad" if dtype is np.uint16 else "auto")
    files = [master, tmp_path / "scan_data_000001.h5", tmp_path / "scan_data_000002.h5"]
    assert external_files((spec,), tmp_path) == tuple(files)
    scan = open_spec(spec, tmp_path, tmp_path)
    assert (scan.shape, scan.dtype) == (frames.shape, dtype)
    expected = np.ones(frames.shape[1:], bool)
    expected[[1, 5]] = expected[2, 3] = False
    for index, frame, valid in scan.frames_with_valid():
        assert np.array_equal(valid, expected)
        assert np.array_equal(frame, np.where(expected, frames[index], 0))
    assert index == 3
    assert np.array_equal(scan.frame(3)[6:], frames[3][6:])  # the second file, alone
    assert open_scan("hdf5", master, dataset="entry/data").shape == frames.shape
    assert open_scan("hdf5", master, dataset="entry/data/data_000002").shape[0] == 1
    files[2].unlink()
    for dataset in (None, "entry/data"):
        with pytest.raises(UserError, match=r"entry/data/data_000002' links to .*scan_data_000002\.h5"):
            open_scan("hdf5", master, dataset=dataset)
    files[1].unlink()
    with pytest.raises(UserError, match=r"entry/data/data_000001' links to"):
        open_scan("hdf5", master)


def test_eiger_files_of_two_shapes_are_refused(tmp_path: Path) -> None:
    master = eiger(tmp_path, FRAMES, 2)
    with h5py.File(tmp_path / "scan_data_000002.h5", "w") as file:
        file["entry/data/data"] = FRAMES[:, :8]
    with pytest.raises(UserError, match=r"data_000002' is uint16 \(8, 9\), but the scan began with uint16 \(14, 9\)"):
        open_scan("hdf5", master)


def test_external_files_are_all_of_a_series_and_behind_virtual_data(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        cbf(tmp_path / f"c{number}.cbf", FRAMES[0])
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"] = FRAMES
    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
    layout[:] = h5py.VirtualSource("raw.h5", "frames", FRAMES.shape)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_virtual_dataset("frames", layout)
    scans = (ScanSpec("a", "images", "c*.cbf"), ScanSpec("b", "braggnn", "master.h5"))
    expected = ["c1.cbf", "c2.cbf", "c10.cbf", "master.h5", "raw.h5"]
    assert external_files(scans, tmp_path) == tuple(tmp_path / name for name in expected)


def test_masks_and_darks_may_be_images(tmp_path: Path) -> None:
    mask = np.zeros(FRAMES.shape[1:], np.uint8)
    mask[2] = 1
    edf(tmp_path / "mask.edf", mask[None])
    tiff(tmp_path / "dark.tif", FRAMES[1])
    path = edf(tmp_path / "f.edf", FRAMES)
    scan = open_scan("images", path, mask=tmp_path / "mask.edf", dark=tmp_path / "dark.tif")
    assert np.array_equal(scan.frame(0), np.where(mask, 0, FRAMES[0].astype(int) - FRAMES[1]))


def test_labelling_alone_needs_no_three_parts() -> None:
    scans = (ScanSpec("a", use=("test",)),)
    check_scans(scans, training=False)
    with pytest.raises(UserError, match="no scan is used for 'train'"):
        check_scans(scans)


def test_thaumatin() -> None:
    folder = os.environ.get("BRAGGNN_EDGE_DATA")
    if not folder:
        pytest.skip("BRAGGNN_EDGE_DATA does not name the folder of real data")
    scan = open_scan("images", Path(folder) / "dls_thaumatin" / "*.cbf.bz2")
    assert (scan.shape, scan.dtype) == ((2, 2527, 2463), np.int32)
    _, frame, valid = next(scan.frames_with_valid(0, 1))
    # 5 x 12 modules with gaps of 7 columns and 17 rows (-1), and 625 dead pixels (-2)
    gaps = 4 * 7 * 2527 + 11 * 17 * 2463 - 4 * 7 * 11 * 17
    assert (~valid).sum() == gaps + 625
    assert not frame[~valid].any()
    assert (frame.min(), frame.max()) == (0, 114_000)
