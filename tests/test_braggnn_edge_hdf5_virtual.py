"""Virtual data sets: every source found as HDF5 finds it, opened, mapped whole; else one error that names it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame, files_of
from braggnn_edge.frames.scan import Scan, open_scan

FRAMES = np.random.default_rng(5).integers(1, 60000, (6, 8, 10)).astype(np.uint16)
UNLIMITED = h5py.h5s.UNLIMITED


def source(path: Path, frames: np.ndarray, name: str = "d", **options: object) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=frames, **options)
    return path


def virtual(path: Path, shape: tuple[int, ...], *parts: tuple, name: str = "d", **options: object) -> Path:
    """A file with a virtual data set of parts (place, source file, its data set, its shape[, selection])."""
    layout = h5py.VirtualLayout(shape, np.uint16, **options)
    for place, file, dataset, size, *selection in parts:
        one = h5py.VirtualSource(file, dataset, size)
        layout[place] = one[selection[0]] if selection else one
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout)
    return path


def stack(scan: Scan) -> np.ndarray:
    return np.array([frame for _, frame in scan.frames()])


def halves(folder: Path, where: str = "", **options: object) -> Path:
    """A scan of two files of three frames each."""
    for k in (0, 1):
        source(folder / where / f"s{k}.h5", FRAMES[3 * k : 3 * k + 3], **options)
    names = [str(Path(where) / f"s{k}.h5") for k in (0, 1)]
    parts = [(slice(3 * k, 3 * k + 3), names[k], "d", (3, 8, 10)) for k in (0, 1)]
    return virtual(folder / "v.h5", FRAMES.shape, *parts)


@pytest.mark.parametrize("where", ["", "raw", "raw/deep", "../raw", "./"])
def test_sources_in_other_folders(tmp_path: Path, where: str) -> None:
    (tmp_path / "here").mkdir()
    path = halves(tmp_path / "here", where, **hdf5plugin.Bitshuffle())
    assert np.array_equal(stack(open_scan("hdf5", path)), FRAMES)
    assert [file.name for file in files_of("hdf5", path, None)] == ["v.h5", "s0.h5", "s1.h5"]
    assert all(file.is_file() for file in files_of("hdf5", path, None))


def moved(folder: Path, _: pytest.MonkeyPatch) -> Path:
    """Absolute names, and all files moved together: HDF5 looks beside the file for the last part of a name."""
    halves(folder / "a")
    (folder / "a/v.h5").unlink()
    parts = [(slice(3 * k, 3 * k + 3), str(folder / f"a/s{k}.h5"), "d", (3, 8, 10)) for k in (0, 1)]
    virtual(folder / "a/v.h5", FRAMES.shape, *parts)
    shutil.move(folder / "a", folder / "b")
    return folder / "b/v.h5"


def link_to_the_file(folder: Path, _: pytest.MonkeyPatch) -> Path:
    halves(folder / "a")
    (folder / "work").mkdir()
    (folder / "work/link.h5").symlink_to(folder / "a/v.h5")
    return folder / "work/link.h5"


def link_to_the_folder(folder: Path, _: pytest.MonkeyPatch) -> Path:
    halves(folder / "a")
    (folder / "linked").symlink_to(folder / "a")
    return folder / "linked/v.h5"


def prefix(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    halves(folder / "a")
    (folder / "c").mkdir()
    shutil.move(folder / "a/v.h5", folder / "c/v.h5")
    patch.setenv("HDF5_VDS_PREFIX", f"{folder}/none:{folder}/a")
    return folder / "c/v.h5"


def prefix_of_origin(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """HDF5 itself reads this form once, before its first file: the sources lie where it finds them without, too."""
    halves(folder / "a")
    (folder / "a/deep").mkdir()
    shutil.move(folder / "a/v.h5", folder / "a/deep/v.h5")
    patch.setenv("HDF5_VDS_PREFIX", "${ORIGIN}/..")
    patch.chdir(folder / "a")
    return folder / "a/deep/v.h5"


def working_directory(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    halves(folder / "a")
    (folder / "c").mkdir()
    shutil.move(folder / "a/v.h5", folder / "c/v.h5")
    patch.chdir(folder / "a")
    return folder / "c/v.h5"


def itself(folder: Path, _: pytest.MonkeyPatch) -> Path:
    path = source(folder / "v.h5", FRAMES, "raw/d")
    return virtual(path, FRAMES.shape, (slice(None), str(path), "raw/d", FRAMES.shape), name="a")


def nested(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / "in").mkdir()
    halves(folder / "in", "raw")
    return virtual(folder / "v.h5", FRAMES.shape, (slice(None), "in/v.h5", "d", FRAMES.shape), name="a")


def behind_links(folder: Path, _: pytest.MonkeyPatch) -> Path:
    source(folder / "raw/s.h5", FRAMES)
    with h5py.File(folder / "l.h5", "w") as file:
        file["soft"], file["far"] = h5py.SoftLink("/far"), h5py.ExternalLink("raw/s.h5", "d")
    return virtual(folder / "v.h5", FRAMES.shape, (slice(None), "l.h5", "soft", FRAMES.shape), name="a")


def quarters(folder: Path, _: pytest.MonkeyPatch) -> Path:
    """A panel of two modules of two files, the frames of which alternate."""
    parts = []
    for t in (0, 1):
        for m in (0, 1):
            name = f"m{t}{m}.h5"
            source(folder / name, FRAMES[t::2, :, 5 * m : 5 * m + 5])
            parts.append(((slice(t, None, 2), slice(None), slice(5 * m, 5 * m + 5)), name, "d", (3, 8, 5)))
    return virtual(folder / "v.h5", FRAMES.shape, *parts, name="a")


def images_one_by_one(folder: Path, _: pytest.MonkeyPatch) -> Path:
    for k in range(6):
        source(folder / f"i{k}.h5", FRAMES[k])
    return virtual(folder / "v.h5", FRAMES.shape, *((k, f"i{k}.h5", "d", (8, 10)) for k in range(6)), name="a")


def some_of_a_source(folder: Path, _: pytest.MonkeyPatch) -> Path:
    longer = np.concatenate([FRAMES[:1] * 0, np.repeat(FRAMES, 2, 0)])
    source(folder / "s.h5", longer)
    part = (slice(None), "s.h5", "d", longer.shape, (slice(1, None, 2), slice(None), slice(None)))
    return virtual(folder / "v.h5", FRAMES.shape, part, name="a")


def grown_source(folder: Path, _: pytest.MonkeyPatch) -> Path:
    """All of a source, which had as many frames as the virtual data set when this was made, and has more now."""
    virtual(folder / "v.h5", FRAMES.shape, (slice(None), "s.h5", "d", FRAMES.shape), name="a")
    source(folder / "s.h5", np.concatenate([FRAMES, FRAMES[:2]]))
    return folder / "v.h5"


def without_end(folder: Path, _: pytest.MonkeyPatch) -> Path:
    """Made while the scan had two frames; its source has grown since."""
    path = source(folder / "s.h5", FRAMES[:2], maxshape=(None, 8, 10), chunks=(1, 8, 10))
    layout = h5py.VirtualLayout((2, 8, 10), np.uint16, maxshape=(None, 8, 10))
    one = h5py.VirtualSource("s.h5", "d", (2, 8, 10), maxshape=(None, 8, 10))
    layout[0:UNLIMITED] = one[0:UNLIMITED]
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_virtual_dataset("a", layout)
    with h5py.File(path, "a") as file:
        file["d"].resize(6, axis=0)
        file["d"][...] = FRAMES
    return folder / "v.h5"


def printf(path: Path, file: bytes, dataset: bytes, frames: int = 6, block: int = 1) -> Path:
    """A virtual data set whose sources are numbered; only the low-level interface makes them."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((frames, 8, 10), (UNLIMITED, 8, 10))
    place = h5py.h5s.create_simple((frames, 8, 10), (UNLIMITED, 8, 10))
    place.select_hyperslab((0, 0, 0), (UNLIMITED, 1, 1), stride=(block, 1, 1), block=(block, 8, 10))
    plist.set_virtual(place, file, dataset, h5py.h5s.create_simple((block, 8, 10)))
    with h5py.File(path, "a") as made:
        h5py.h5d.create(made.id, b"a", h5py.h5t.NATIVE_UINT16, space, plist)
    return path


def numbered_files(folder: Path, _: pytest.MonkeyPatch) -> Path:
    for k in range(3):
        source(folder / f"raw/f_{k}.h5", FRAMES[2 * k : 2 * k + 2])
    return printf(folder / "v.h5", b"raw/f_%b.h5", b"d", block=2)


def numbered_datasets(folder: Path, _: pytest.MonkeyPatch) -> Path:
    with h5py.File(folder / "s.h5", "w") as file:
        for k in range(6):
            file[f"g/d{k}"] = FRAMES[k : k + 1]
    return printf(folder / "v.h5", b"s.h5", b"g/d%b")


WHOLE = [
    moved, link_to_the_file, link_to_the_folder, prefix, prefix_of_origin, working_directory,
    itself, nested, behind_links, quarters,
    images_one_by_one, some_of_a_source, grown_source, without_end, numbered_files, numbered_datasets,
]  # fmt: skip


@pytest.mark.parametrize("make", WHOLE)
def test_sources_are_found_as_hdf5_finds_them(
    tmp_path: Path, make: Callable[[Path, pytest.MonkeyPatch], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, monkeypatch)
    dataset = "d" if make in WHOLE[:6] else "a"
    scan = open_scan("hdf5", path, dataset=dataset)
    assert np.array_equal(stack(scan), FRAMES)
    files = files_of("hdf5", path, dataset)
    assert all(file.is_file() for file in files)
    assert len(files) > 1 or make is itself


def missing(folder: Path) -> tuple[Path, str]:
    path = halves(folder)
    (folder / "s1.h5").unlink()
    return path, r"its source file 's1\.h5' is missing"


def renamed(folder: Path) -> tuple[Path, str]:
    path = halves(folder)
    with h5py.File(folder / "s1.h5", "a") as file:
        file.move("d", "e")
    return path, r"source file 's1\.h5' has no data set 'd'"


def broken_link(folder: Path) -> tuple[Path, str]:
    path = halves(folder)
    with h5py.File(folder / "s1.h5", "a") as file:
        del file["d"]
        file["d"] = h5py.ExternalLink("gone.h5", "d")
    return path, r"source file 's1\.h5' has no data set 'd', or the link there is broken"


def a_group(folder: Path) -> tuple[Path, str]:
    path = halves(folder)
    with h5py.File(folder / "s1.h5", "a") as file:
        del file["d"]
        file.create_group("d")
    return path, r"has no data set 'd'"


def no_hdf5(folder: Path) -> tuple[Path, str]:
    path = halves(folder)
    (folder / "s0.h5").write_text("no HDF5")
    return path, r"'s0\.h5' is missing or not readable"


def nested_missing(folder: Path) -> tuple[Path, str]:
    (folder / "in").mkdir()
    halves(folder / "in")
    (folder / "in/s0.h5").unlink()
    virtual(folder / "v.h5", FRAMES.shape, (slice(None), "in/v.h5", "d", FRAMES.shape))
    return folder / "v.h5", r"its source in/v\.h5:d: its source file 's0\.h5' is missing"


def circle(folder: Path) -> tuple[Path, str]:
    for one, other in ("vw", "wv"):
        virtual(folder / f"{one}.h5", FRAMES.shape, (slice(None), f"{other}.h5", "d", FRAMES.shape))
    return folder / "v.h5", "its own source"


def no_source_for_a_frame(folder: Path) -> tuple[Path, str]:
    source(folder / "s.h5", FRAMES[:4])
    return virtual(folder / "v.h5", FRAMES.shape, (slice(4), "s.h5", "d", (4, 8, 10))), (
        "80 elements of frame or row 4 have no source, and some of 2 such in all"
    )


def no_source_for_columns(folder: Path) -> tuple[Path, str]:
    source(folder / "s.h5", FRAMES[:, :, :7])
    part = ((slice(None), slice(None), slice(7)), "s.h5", "d", (6, 8, 7))
    return virtual(
        folder / "v.h5", FRAMES.shape, part
    ), "24 pixels of every frame have no source, the first at row 0, column 7; HDF5 reads the fill value 0"


def no_source_for_a_corner_of_a_frame(folder: Path) -> tuple[Path, str]:
    source(folder / "s.h5", FRAMES)
    parts = [
        (slice(5), "s.h5", "d", FRAMES.shape, np.s_[:5]),
        (np.s_[5, :4], "s.h5", "d", FRAMES.shape, np.s_[5, :4]),
        (np.s_[5, 2:, :9], "s.h5", "d", FRAMES.shape, np.s_[5, 2:, :9]),
    ]
    return virtual(folder / "v.h5", FRAMES.shape, *parts), "4 elements of frame or row 5 have no source"


def source_too_small(folder: Path) -> tuple[Path, str]:
    path = halves(folder)
    source(folder / "s1.h5", FRAMES[:2])
    return path, r"source s1\.h5:d: has shape \(2, 8, 10\)"


def source_of_other_rows(folder: Path) -> tuple[Path, str]:
    path = halves(folder)
    source(folder / "s1.h5", np.zeros((3, 9, 10), np.uint16))  # HDF5 would shift the pixels
    return path, r"source s1\.h5:d: has shape \(3, 9, 10\), and 270 of its elements are to fill 240"


def selection_outside(folder: Path) -> tuple[Path, str]:
    source(folder / "s.h5", FRAMES)
    part = (slice(None), "s.h5", "d", (9, 8, 10), np.s_[3:9])
    return virtual(folder / "v.h5", FRAMES.shape, part), r"has shape \(6, 8, 10\), which is smaller than"


def gap_in_numbered_files(folder: Path) -> tuple[Path, str]:
    for k in (0, 1, 3):
        source(folder / f"f_{k}.h5", FRAMES[k : k + 1])
    return printf(folder / "v.h5", b"f_%b.h5", b"d"), r"source 'f_2\.h5' is missing, but 'f_3\.h5' is there"


BROKEN = [
    missing, renamed, broken_link, a_group, no_hdf5, nested_missing, circle, no_source_for_a_frame,
    no_source_for_columns, no_source_for_a_corner_of_a_frame, source_too_small, source_of_other_rows, selection_outside,
    gap_in_numbered_files,
]  # fmt: skip


@pytest.mark.parametrize("make", BROKEN)
def test_what_is_missing_is_an_error_that_names_it(tmp_path: Path, make: Callable[[Path], tuple[Path, str]]) -> None:
    path, message = make(tmp_path)
    with pytest.raises(UserError, match=message):
        open_scan("hdf5", path)


@pytest.mark.parametrize(
    ("dtype", "fill", "options", "good"),
    [
        ("u4", 2**32 - 1, {}, True),  # the largest value of the type, which marks bad pixels
        ("u4", 0, {}, False),
        ("u2", 65535, {}, False),
        ("u2", 65535, {"overflow_value": "bad"}, True),
        ("i4", -1, {}, False),
        ("i4", -1, {"negative": "bad"}, True),
        ("f4", np.nan, {}, False),
    ],
)
def test_gaps_between_modules_must_be_bad_pixels(
    tmp_path: Path, dtype: str, fill: float, options: dict, good: bool
) -> None:
    layout = h5py.VirtualLayout(FRAMES.shape, dtype)
    for module in (0, 1):
        frames = FRAMES[:, :, 6 * module : 6 * module + 4].astype(dtype)
        source(tmp_path / f"m{module}.h5", frames)
        layout[:, :, 6 * module : 6 * module + 4] = h5py.VirtualSource(f"m{module}.h5", "d", (6, 8, 4))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=fill)
    gap = np.zeros(FRAMES.shape[1:], bool)
    gap[:, 4:6] = True
    expected = np.where(gap, 0, FRAMES)
    if good:
        _, frame, valid = next(open_scan("hdf5", tmp_path / "v.h5", **options).frames_with_valid())
        assert np.array_equal(valid, ~gap)
        assert np.array_equal(frame, expected[0])
    else:
        with pytest.raises(UserError, match="16 pixels of every frame have no source, the first at row 0, column 4"):
            open_scan("hdf5", tmp_path / "v.h5", **options)
    np.save(tmp_path / "mask.npy", gap)
    assert np.array_equal(stack(open_scan("hdf5", tmp_path / "v.h5", mask=tmp_path / "mask.npy")), expected)
    gap[2, 4] = False
    np.save(tmp_path / "mask.npy", gap)
    if not good:
        with pytest.raises(UserError, match="1 pixels of every frame have no source, the first at row 2, column 4"):
            open_scan("hdf5", tmp_path / "v.h5", mask=tmp_path / "mask.npy", **options)
    path = source(tmp_path / "s.h5", FRAMES)
    with pytest.raises(
        UserError, match=r"dark .*v\.h5: is a virtual data set, and some of its elements have no source"
    ):
        open_scan("hdf5", path, dark=tmp_path / "v.h5")


def test_masks_and_darks_may_be_virtual(tmp_path: Path) -> None:
    path = source(tmp_path / "scan.h5", FRAMES)
    mask = np.zeros((8, 10), np.uint16)
    mask[3, 4] = 1
    source(tmp_path / "raw/m.h5", np.stack([mask * 0, mask]))
    source(tmp_path / "raw/dark.h5", FRAMES[:3])
    virtual(tmp_path / "vm.h5", (8, 10), (slice(None), "raw/m.h5", "d", (2, 8, 10), np.s_[1]))
    virtual(tmp_path / "vd.h5", (3, 8, 10), (slice(None), "raw/dark.h5", "d", (3, 8, 10)))
    scan = open_scan("hdf5", path, dark=tmp_path / "vd.h5", mask=f"{tmp_path}/vm.h5:d")
    assert np.array_equal(scan.mask, mask == 1)
    assert np.array_equal(scan.dark, np.sort(FRAMES[:3], axis=0)[1])
    for name, key, parts in (
        ("half.h5", "mask", ((np.s_[:4], "raw/m.h5", "d", (2, 8, 10), np.s_[1, :4]),)),
        ("gone.h5", "dark", ((np.s_[:], "raw/none.h5", "d", (8, 10)),)),
    ):
        virtual(tmp_path / name, (8, 10), *parts)
        with pytest.raises(UserError, match=r"have no source|is missing"):
            open_scan("hdf5", path, **{key: tmp_path / name})


def test_frames_never_written_in_a_source_are_bad_frames(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        data = file.create_dataset("d", (3, 8, 10), "u2", chunks=(1, 4, 10))
        data[0], data[2, :4], data[1] = FRAMES[0], FRAMES[2, :4], FRAMES[1]
    parts = [(np.s_[0:6:2], "s.h5", "d", (3, 8, 10)), (np.s_[1:6:2], "t.h5", "d", (3, 8, 10))]
    source(tmp_path / "t.h5", FRAMES[3:])
    scan = open_scan("hdf5", virtual(tmp_path / "v.h5", FRAMES.shape, *parts))
    bad: list[int] = []
    found = dict(scan.frames(on_bad=lambda index, _: bad.append(index)))
    assert bad == [4]
    assert sorted(found) == [0, 1, 2, 3, 5]
    assert np.array_equal(found[5], FRAMES[5])
    assert np.array_equal(found[2], FRAMES[1])
    with pytest.raises(BadFrame, match="frame 4 of '/d' was declared but never written"):
        scan.frame(4)
