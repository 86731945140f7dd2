"""TIFF in every compression and layout, GE files with an EDF header, packed files by any name, patterns in folders."""

import bz2
import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from fabio.edfimage import EdfImage
from PIL import Image

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.series import series
from braggnn_edge.frames.scan import Scan, open_scan

RNG = np.random.default_rng(4)
#: Spots on a weak background, in which a run is long enough for PackBits to matter.
FRAMES = np.where(RNG.random((3, 40, 48)) < 0.1, RNG.integers(1, 60000, (3, 40, 48)), 3).astype(np.uint16)


def stack(scan: Scan) -> np.ndarray:
    return np.array([frame for _, frame in scan.frames()])


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("compression", [None, "packbits", "lzw", "zlib", "deflate", "zstd"])
def test_tiff_compressions(tmp_path: Path, compression: str | None, dtype: str) -> None:
    frames = FRAMES.astype(dtype)
    path = tmp_path / "s.tif"
    for options in (
        {},  # one strip
        {"rowsperstrip": 7},
        {"tile": (16, 32)},
        {"bigtiff": True},
        {"byteorder": ">", "rowsperstrip": 7},
    ):
        if compression == "packbits" and options.get("byteorder") == ">" and np.dtype(dtype).itemsize > 1:
            continue  # tifffile does not write it
        tifffile.imwrite(path, frames, compression=compression, photometric="minisblack", metadata=None, **options)
        scan = open_scan("images", path, negative="data")
        assert (scan.shape, scan.dtype) == (frames.shape, frames.dtype), options
        assert np.array_equal(stack(scan), frames), options
        assert np.array_equal(scan.frame(2), frames[2]), options


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_deflate"])
def test_tiff_of_another_writer(tmp_path: Path, compression: str) -> None:
    for frame in (FRAMES[0], (FRAMES[0] & 255).astype(np.uint8), FRAMES[0] * 0):
        Image.fromarray(frame).save(tmp_path / "x.tif", compression=compression)
        assert np.array_equal(open_scan("images", tmp_path / "x.tif").frame(0), frame)


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_tiff_predictors_and_odd_bits(tmp_path: Path, compression: str) -> None:
    tifffile.imwrite(tmp_path / "p.tif", FRAMES, compression=compression, predictor=True, photometric="minisblack")
    assert np.array_equal(stack(open_scan("images", tmp_path / "p.tif")), FRAMES)
    floats = FRAMES.astype(np.float32) / 7
    tifffile.imwrite(tmp_path / "f.tif", floats, compression=compression, predictor=True, photometric="minisblack")
    assert np.array_equal(stack(open_scan("images", tmp_path / "f.tif")), floats)


def test_tiff_stacks_as_imagej_writes_them(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "j.tif", FRAMES, imagej=True)
    assert np.array_equal(stack(open_scan("images", tmp_path / "j.tif")), FRAMES)
    with tifffile.TiffWriter(tmp_path / "one.tif") as writer:  # one page, the pixels of the others behind it
        writer.write(FRAMES, photometric="minisblack", truncate=True)
    with tifffile.TiffFile(tmp_path / "one.tif") as file:
        assert len(file.pages) == 1
    assert np.array_equal(stack(open_scan("images", tmp_path / "one.tif")), FRAMES)


def test_tiff_masks_of_one_bit_and_small_copies(tmp_path: Path) -> None:
    mask = FRAMES[0] > 100
    Image.fromarray(mask).save(tmp_path / "mask.tif", compression="group4")
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        writer.write(FRAMES[0], photometric="minisblack")
        writer.write(FRAMES[0, ::2, ::2], photometric="minisblack", subfiletype=1)
        writer.write(FRAMES[1], photometric="minisblack")
    scan = open_scan("images", tmp_path / "s.tif", mask=tmp_path / "mask.tif")
    assert np.array_equal(stack(scan), np.where(mask, 0, FRAMES[:2]))


@pytest.mark.parametrize("options", [{"planarconfig": "separate"}, {"planarconfig": "contig"}])
def test_tiff_of_colours_is_refused(tmp_path: Path, options: dict) -> None:
    shape = (3, 20, 30) if options["planarconfig"] == "separate" else (20, 30, 3)
    tifffile.imwrite(tmp_path / "c.tif", np.zeros(shape, np.uint8), photometric="rgb", compression="zlib", **options)
    with pytest.raises(UserError, match=r"c\.tif.*no colours"):
        open_scan("images", tmp_path / "c.tif")


def one_strip(payload: bytes, compression: int, rows: int, cols: int, count: int | None = None) -> bytes:
    """A TIFF file of 16-bit pixels in one strip, with its directory behind it."""
    tags = {256: cols, 257: rows, 258: 16, 259: compression, 262: 1, 273: 8, 277: 1, 278: rows}
    tags[279] = len(payload) if count is None else count
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(payload)) + payload + struct.pack("<H", len(tags)) + entries + bytes(4)


PACK: dict[int, Callable[[bytes], bytes]] = {
    5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode
}  # fmt: skip


@pytest.mark.parametrize("compression", PACK)
def test_strips_that_are_short_or_missing_are_bad_frames(tmp_path: Path, compression: int) -> None:
    rows, cols = FRAMES.shape[1:]
    path = tmp_path / "s.tif"
    whole = PACK[compression](FRAMES[0].tobytes())
    path.write_bytes(one_strip(whole, compression, rows, cols))
    assert np.array_equal(open_scan("images", path).frame(0), FRAMES[0])
    for content in (
        one_strip(PACK[compression](FRAMES[0, :-1].tobytes()), compression, rows, cols),
        one_strip(whole[: len(whole) // 2], compression, rows, cols),
        one_strip(whole, compression, rows, cols, count=0),
        one_strip(whole, compression, rows, cols)[:-40],
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"s\.tif: is not a readable image, or is truncated"):
            open_scan("images", path)


def ge_edf(path: Path, frames: np.ndarray, end: int = 8192, count: int | None = None, declared: bool = True) -> Path:
    """A GE file as the newer acquisition writes it: an EDF header of 8,192 bytes, then all frames.

    end: where the closing bracket is, if before the end of the header; declared: whether it says its size.
    """
    _, rows, cols = frames.shape
    count = len(frames) if count is None else count
    order = "High" if frames.dtype.byteorder == ">" else "Low"
    kind = "SignedInteger" if frames.dtype.kind == "i" else "UnsignedShort"
    size = "EDF_HeaderSize =       8192 ; \r\n" if declared else ""
    head = (
        f"{{EDF_DataBlockID = 1.Image.Psd ; \r\n{size}HeaderID = EH:000001:000000:000000 ; "
        f"\r\nByteOrder = {order}ByteFirst ; \r\nNum_Images = {count} ; \r\nDataType = {kind} ; \r\nImage = 1 ; "
        f"\r\nDim_1 = {cols} ; \r\nDim_2 = {rows} ; \r\nSize = {frames[0].nbytes} ; \r\n"
    )
    path.write_bytes((head.ljust(end - 2) + "}\n").ljust(8192).encode() + frames.tobytes())
    return path


NAMES = ["s.ge5", "s.GE5", "s.ge", "s.edf.ge5", "s.edf", "s.EDF", "s.raw", "s", "s.ge5.gz", "s.GE5.GZ", "s.edf.bz2",
         "s.BZ2", "packed.ge5", "packed.edf", "packed"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_ge_files_with_an_edf_header_by_any_name(tmp_path: Path, name: str) -> None:
    path = ge_edf(tmp_path / name, FRAMES)
    if name.lower().endswith(".gz") or name.startswith("packed"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif name.lower().endswith(".bz2"):
        path.write_bytes(bz2.compress(path.read_bytes()))
    scan = open_scan("images", path)
    assert (scan.shape, scan.dtype) == (FRAMES.shape, np.uint16)
    assert np.array_equal(stack(scan), FRAMES)
    assert np.array_equal(scan.frame(2), FRAMES[2])
    if len(FRAMES) > 1:
        dark = open_scan("images", path, dark=path).dark
        assert np.array_equal(dark, np.median(FRAMES, axis=0))


@pytest.mark.parametrize("name", ["s.ge3", "s.edf"])
def test_ge_files_with_an_edf_header_of_other_types(tmp_path: Path, name: str) -> None:
    for frames in (FRAMES.astype(">u2"), FRAMES.astype("<i4"), FRAMES[:, :, :-1].copy()):
        assert np.array_equal(stack(open_scan("images", ge_edf(tmp_path / name, frames), negative="data")), frames)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("end", [512, 1024, 8192])
def test_ge_files_whose_header_ends_early(tmp_path: Path, end: int, declared: bool) -> None:
    frames = FRAMES.copy()
    frames[0, 0, :4] = 0x2020  # pixels that look like blanks
    for kept in (FRAMES, frames):
        path = ge_edf(tmp_path / "s.edf", kept, end, declared=declared)
        assert np.array_equal(stack(open_scan("images", path)), kept)


def test_ge_files_whose_header_has_no_sizes(tmp_path: Path) -> None:
    frames = np.zeros((2, 2048, 2048), np.uint16)
    frames[:, 5, 7] = 3, 4
    path = tmp_path / "s.ge"
    path.write_bytes(b"{\nNum_Images = 2 ;\n".ljust(8190) + b"}\n" + frames.tobytes())
    scan = open_scan("images", path)
    assert scan.shape == frames.shape
    assert [int(frame[5, 7]) for _, frame in scan.frames()] == [3, 4]


def test_ge_files_that_were_cut_off_miss_frames(tmp_path: Path) -> None:
    path = ge_edf(tmp_path / "s.ge5", FRAMES[:2], count=4)
    path.write_bytes(path.read_bytes()[:-5])
    bad: list[int] = []
    scan = open_scan("images", path)
    assert [index for index, _ in scan.frames(on_bad=lambda index, _: bad.append(index))] == [0]
    assert (scan.shape[0], bad) == (4, [1, 2, 3])


@pytest.mark.parametrize("name", ["e.edf", "e.ge1", "e.EDF.GZ", "e"])
def test_edf_files_with_a_header_for_each_frame_stay_edf(tmp_path: Path, name: str) -> None:
    image = EdfImage(data=FRAMES[0], header={"Num_Images": "3"})
    for frame in FRAMES[1:]:
        image.append_frame(data=frame)
    image.write(str(tmp_path / "plain.edf"))
    content = (tmp_path / "plain.edf").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    assert np.array_equal(stack(open_scan("images", tmp_path / name)), FRAMES)
    # One file of many, each of which says how many there are.
    path = ge_edf(tmp_path / "one.edf", FRAMES[:1], count=3)
    assert np.array_equal(stack(open_scan("images", path)), FRAMES[:1])


@pytest.mark.parametrize("folder", ["run[1]", "a*", "what?", "[ab]/x[0-9]"])
def test_only_what_the_user_wrote_is_a_pattern(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / folder, tmp_path / folder.translate(str.maketrans({"[": "", "]": "", "*": "b", "?": "x"}))
    for place, number in ((own, 0), (other, 1), (tmp_path / "run1", 1), (tmp_path / "ab", 1), (tmp_path / "a/x5", 1)):
        place.mkdir(parents=True, exist_ok=True)
        EdfImage(data=FRAMES[number]).write(str(place / "f_1.edf"))
    assert np.array_equal(stack(open_scan("images", own / "f_*.edf")), FRAMES[:1])
    assert series(own / "**/f_[0-9].edf") == (own / "f_1.edf",)
    monkeypatch.chdir(own)
    assert series(Path("f_*.edf")) == (Path("f_1.edf"),)
    monkeypatch.chdir(tmp_path)
    assert series(Path(folder) / "f_?.edf") == (Path(folder) / "f_1.edf",)
    with pytest.raises(UserError, match="no such file"):
        series(own / "f_7.edf")
    with pytest.raises(UserError, match="no file matches this pattern"):
        series(own / "none/f_*.edf")


def test_folders_may_be_patterns_and_links_must_lead_somewhere(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"run{number}").mkdir()
        EdfImage(data=FRAMES[number]).write(str(tmp_path / f"run{number}/f.edf"))
    assert np.array_equal(stack(open_scan("images", tmp_path / "run[12]/f.edf")), FRAMES[1:])
    (tmp_path / "run2/g.edf").symlink_to(tmp_path / "run2/f.edf")
    assert len(series(tmp_path / "run*/*.edf")) == 3
    (tmp_path / "run2/h.edf").symlink_to(tmp_path / "run2/gone.edf")
    with pytest.raises(UserError, match=r"h\.edf: is a link to .*gone\.edf, which is not there"):
        open_scan("images", tmp_path / "run*/*.edf")
    with pytest.raises(UserError, match=r"h\.edf: is a link to .*gone\.edf, which is not there"):
        open_scan("images", tmp_path / "run2/h.edf")
