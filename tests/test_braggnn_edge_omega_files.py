"""The rotation that files say: NeXus and Eiger axes, headers of CBF, TIFF, MarCCD, EDF and SMV."""

import bz2
import struct
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage

from braggnn_edge.frames.formats import angles
from braggnn_edge.frames.scan import open_scan

FRAMES = np.arange(4 * 20 * 24, dtype=np.uint16).reshape(4, 20, 24)
STARTS = 10 + 0.5 * np.arange(4)
OMEGA = np.stack([STARTS, STARTS + 0.5], axis=1)
WIDE = np.stack([STARTS, STARTS + 0.4], axis=1)  # with a pause between the frames


def nexus(
    path: Path, axes: Mapping[str, object], units: Mapping[str, str] | None = None, data: str = "entry/data/data"
) -> Path:
    with h5py.File(path, "w") as file:
        file[data] = FRAMES
        for name, values in axes.items():
            file[name] = values
        for name, unit in (units or {}).items():
            file[name].attrs["units"] = unit
    return path


ZERO = np.zeros(4)
AXES = "entry/sample/goniometer"
MOVES = "entry/sample/transformations"


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({f"{AXES}/omega": STARTS, f"{AXES}/omega_end": STARTS + 0.4}, WIDE),
        ({f"{AXES}/omega": STARTS, f"{AXES}/omega_increment": 0.4}, WIDE),
        ({f"{AXES}/omega": STARTS, f"{AXES}/omega_range_average": [0.4]}, WIDE),
        ({f"{MOVES}/omega": STARTS, f"{MOVES}/omega_increment_set": np.full(4, 0.4)}, WIDE),
        ({f"{MOVES}/omega": STARTS}, OMEGA),
        ({f"{AXES}/omega": [10.0], f"{AXES}/omega_increment": [0.5]}, OMEGA),
        ({f"{AXES}/omega_start": 10.0, f"{AXES}/omega_increment": 0.5, f"{AXES}/omega_range_total": 2.0}, OMEGA),
        # The axes that do not move are not meant.
        (
            {f"{AXES}/{name}": values for name, values in (("phi", STARTS), ("omega", ZERO), ("chi", STARTS * 0 + 9))},
            OMEGA,
        ),
        ({f"{AXES}/{name}": values for name, values in (("omega", STARTS), ("phi", -STARTS))}, OMEGA),
        ({f"{AXES}/{name}": values for name, values in (("rot", STARTS), ("phi", -STARTS))}, None),
        ({"entry/measurement/rot_center": STARTS + 0.25, "entry/measurement/rot": STARTS}, OMEGA),
        ({"entry/sample/rotation_angle": STARTS}, OMEGA),
        ({"entry/sample/omega": STARTS[::-1].copy()}, OMEGA[::-1]),  # the end of a frame is the start of the next
        # The same axis twice, once with its ends.
        ({"entry/data/omega": STARTS, f"{MOVES}/omega": STARTS, f"{MOVES}/omega_end": STARTS + 0.4}, WIDE),
        ({"entry/data/omega": STARTS, "entry/other/omega": STARTS + 1}, None),
        ({"entry/data/omega": STARTS[:3]}, None),
        ({"entry/data/omega": STARTS * np.nan}, None),
        ({"entry/data/omega": ZERO}, None),
        ({"other/sample/omega": STARTS}, None),  # of another scan
        ({}, None),
    ],
)
def test_nexus_axes(tmp_path: Path, axes: Mapping[str, object], expected: np.ndarray | None) -> None:
    scan = open_scan("hdf5", nexus(tmp_path / "s.nxs", axes), dataset="entry/data/data")
    if expected is None:
        assert scan.omega is None
        assert "not known" in scan.omega_remark
    elif expected[1, 0] < expected[0, 0]:
        assert np.allclose(scan.omega, np.stack([STARTS[::-1], STARTS[::-1] - 0.5], axis=1))
        assert "does not increase" in scan.omega_remark
    else:
        assert np.allclose(scan.omega, expected, rtol=0, atol=1e-9)
        assert scan.omega_remark == ""


@pytest.mark.parametrize(
    ("unit", "factor"), [("rad", np.pi / 180), ("radians", np.pi / 180), ("mrad", np.pi / 0.18), ("deg", 1)]
)
def test_units_of_axes(tmp_path: Path, unit: str, factor: float) -> None:
    axes = {f"{AXES}/omega": STARTS * factor, f"{AXES}/omega_end": STARTS + 0.4}
    path = nexus(tmp_path / "s.nxs", axes, {f"{AXES}/omega": unit, f"{AXES}/omega_end": "degrees"})
    assert np.allclose(open_scan("hdf5", path).omega, WIDE)


def test_axes_of_one_frame_of_links_and_by_their_kind(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "one.nxs", "w") as file:
        file["entry/data/data"], file["entry/sample/omega"] = FRAMES[0], [7.0]
        file["entry/sample/omega_end"] = [7.5]
    assert np.array_equal(open_scan("hdf5", tmp_path / "one.nxs").omega, [[7.0, 7.5]])
    path = nexus(tmp_path / "k.nxs", {f"{MOVES}/gonio": STARTS, "entry/instrument/detector/tilt": STARTS})
    with h5py.File(path, "a") as file:
        for name in (f"{MOVES}/gonio", "entry/instrument/detector/tilt"):
            file[name].attrs["transformation_type"] = "rotation"
        file["entry/data/gonio"] = h5py.SoftLink(f"/{MOVES}/gonio")
        file[f"{MOVES}/gonio_end"] = STARTS + 0.4
    assert np.allclose(open_scan("hdf5", path).omega, WIDE)
    with h5py.File(tmp_path / "root.h5", "w") as file:
        file["images"], file["sample/omega"] = FRAMES, STARTS
    assert np.allclose(open_scan("hdf5", tmp_path / "root.h5").omega, OMEGA)
    with h5py.File(tmp_path / "hexrd.h5", "w") as file:
        file["imageseries/images"] = FRAMES
        file["imageseries"].attrs["omega"] = WIDE
    assert np.array_equal(open_scan("hdf5", tmp_path / "hexrd.h5").omega, WIDE)


def test_axes_of_an_eiger_master_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as master:
        for k in (1, 2):
            with h5py.File(tmp_path / f"d{k}.h5", "w") as file:
                file["entry/data/data"] = FRAMES[2 * k - 2 : 2 * k]
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(f"d{k}.h5", "/entry/data/data")
        for name in ("chi", "kappa", "phi", "two_theta"):
            master[f"{AXES}/{name}"] = ZERO
            master[f"{AXES}/{name}_end"] = ZERO
            master[f"{AXES}/{name}_range_average"] = 0.0
        master[f"{AXES}/omega"], master[f"{AXES}/omega_end"] = STARTS, STARTS + 0.5
        master[f"{AXES}/omega_range_average"], master[f"{AXES}/omega_range_total"] = 0.5, 2.0
    assert np.array_equal(open_scan("hdf5", tmp_path / "m.h5").omega, OMEGA)
    assert open_scan("hdf5", tmp_path / "m.h5", dataset="entry/data/data_000002").omega is None


def cbf(path: Path, index: int, words: str) -> Path:
    CbfImage(data=FRAMES[index].astype(np.int32)).write(str(path))
    content = path.read_bytes()
    head = f"_array_data.header_contents\r\n;\r\n# Detector: PILATUS 6M, S/N 60-0100\r\n{words}\r\n;\r\n\r\n"
    path.write_bytes(
        content.replace(b"_array_data.data", head.replace("\r\n# ", "\r\n# ").encode() + b"_array_data.data", 1)
    )
    return path


PILATUS = (
    "# Wavelength 0.9795 A\r\n# Start_angle {start:.4f} deg.\r\n# Angle_increment {width:.4f} deg.\r\n# Phi 0.0 deg."
)


def test_cbf_headers(tmp_path: Path) -> None:
    for index, start in enumerate(STARTS):
        cbf(tmp_path / f"s_{index}.cbf", index, PILATUS.format(start=start, width=0.4))
    scan = open_scan("images", tmp_path / "s_*.cbf")
    assert np.array_equal(scan.frame(2), FRAMES[2])
    assert np.allclose(scan.omega, WIDE)
    (tmp_path / "s_1.cbf").write_bytes(b"###CBF: damaged")  # it lies on the line of the others
    assert np.allclose(open_scan("images", tmp_path / "s_*.cbf").omega, WIDE)
    cbf(tmp_path / "s_3.cbf", 3, PILATUS.format(start=99.0, width=0.4))  # which are no line now
    assert open_scan("images", tmp_path / "s_*.cbf").omega is None
    cbf(tmp_path / "one.cbf", 0, "# Omega 3.0 deg.\r\n# Omega_increment 0.1 deg.")
    assert np.allclose(open_scan("images", tmp_path / "one.cbf").omega, [[3.0, 3.1]])
    cbf(tmp_path / "none.cbf", 0, "# Omega 3.0 deg.")
    assert open_scan("images", tmp_path / "none.cbf").omega is None
    assert np.array_equal(
        open_scan("images", tmp_path / "none.cbf", omega_start=1.0, omega_step=2.0).omega, [[1.0, 3.0]]
    )


def test_packed_series_are_sampled_where_they_lie_on_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(angles, "_FEW", 5)
    read: list[str] = []
    right = angles.header_angles
    monkeypatch.setattr(angles, "header_angles", lambda path: (read.append(path.name), right(path))[1])
    starts = np.arange(12) / 8
    for index, start in enumerate(starts):
        path = cbf(tmp_path / f"s_{index}.cbf", 0, PILATUS.format(start=start, width=0.125))
        (tmp_path / f"s_{index}.cbf.bz2").write_bytes(bz2.compress(path.read_bytes()))
        path.unlink()
    scan = open_scan("images", tmp_path / "s_*.cbf.bz2")
    assert np.allclose(scan.omega, np.stack([starts, starts + 0.125], axis=1))
    assert len(read) == 4
    (tmp_path / "s_11.cbf.bz2").unlink()
    path = cbf(tmp_path / "s_12.cbf", 0, PILATUS.format(start=50.0, width=0.125))
    (tmp_path / "s_12.cbf.bz2").write_bytes(bz2.compress(path.read_bytes()))
    path.unlink()
    omega = open_scan("images", tmp_path / "s_*.cbf.bz2").omega
    assert np.allclose(omega[-2:, 0], [1.25, 50.0])
    assert len(read) == 4 + 4 + 12


def test_tiff_headers(tmp_path: Path) -> None:
    for index, start in enumerate(STARTS):
        words = PILATUS.format(start=start, width=0.4).replace("\r\n", "\n")
        tifffile.imwrite(tmp_path / f"s_{index}.tif", FRAMES[index], description=words, metadata=None)
    assert np.allclose(open_scan("images", tmp_path / "s_*.tif").omega, WIDE)


def mccd(path: Path, index: int, moved: Mapping[str, tuple[float, float]], axis: int = 4, order: str = "<") -> Path:
    """A MarCCD file; the header gives angles in units of 1/1000 degree."""
    rows, cols = FRAMES.shape[1:]
    tags = {256: cols, 257: rows, 258: 16, 259: 1, 262: 1, 273: 4096, 277: 1, 278: rows, 279: 2 * rows * cols}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4)
    head = bytearray(3072)
    struct.pack_into(f"{order}I16s", head, 0, 2, b"MMX")
    struct.pack_into(f"{order}I", head, 28, 1234 if order == "<" else 4321)
    names = ("twotheta", "omega", "chi", "kappa", "phi", "delta", "gamma")
    for place, which in ((668, 0), (700, 1)):
        values = [round(1000 * moved.get(name, (1.5, 1.5))[which]) for name in names]
        struct.pack_into(f"{order}7i", head, place, *values)
    struct.pack_into(f"{order}i", head, 732, axis)
    path.write_bytes(start.ljust(1024, b"\0") + bytes(head) + FRAMES[index].astype(f"{order}u2").tobytes())
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["s_{}.mccd", "s_{}.0001", "s_{}.tif"])
def test_marccd_headers(tmp_path: Path, name: str, order: str) -> None:
    for index, (start, end) in enumerate(WIDE):
        mccd(tmp_path / name.format(index), index, {"phi": (start, end)}, order=order)
    scan = open_scan("images", tmp_path / name.format("*"))
    assert np.array_equal(scan.frame(1), FRAMES[1])
    assert np.allclose(scan.omega, WIDE)
    mccd(tmp_path / "o.mccd", 0, {"omega": (3.0, 3.5)}, axis=1, order=order)
    assert np.allclose(open_scan("images", tmp_path / "o.mccd").omega, [[3.0, 3.5]])
    # Two that moved: the one that the header names, or none.
    mccd(tmp_path / "o.mccd", 0, {"omega": (3.0, 3.5), "phi": (1.0, 2.0)}, axis=1, order=order)
    assert np.allclose(open_scan("images", tmp_path / "o.mccd").omega, [[3.0, 3.5]])
    mccd(tmp_path / "o.mccd", 0, {"omega": (3.0, 3.5), "phi": (1.0, 2.0)}, axis=2, order=order)
    assert open_scan("images", tmp_path / "o.mccd").omega is None


def edf(path: Path, headers: list[dict[str, str]]) -> Path:
    image = EdfImage(data=FRAMES[0], header=headers[0])
    for index, header in enumerate(headers[1:], 1):
        image.append_frame(data=FRAMES[index], header=header)
    image.write(str(path))
    return path


CENTRED = np.stack([STARTS - 0.25, STARTS + 0.25], axis=1)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (lambda angle: {"motor_mne": "pz omega dx", "motor_pos": f"1.0 {angle} 3"}, CENTRED),
        (lambda angle: {"motor_mne": "diffrz omega", "motor_pos": f"{angle} 7"}, CENTRED),
        (lambda angle: {"motor_mne": "phi omega", "motor_pos": f"{-angle} {angle}"}, None),  # which of the two?
        (lambda angle: {"motor_mne": "omega dx", "motor_pos": f"{angle}"}, None),  # a list that does not fit
        (lambda angle: {"motor_mne": "omega", "motor_pos": "nonsense"}, None),
        (lambda angle: {"motor_mne": "omega", "motor_pos": "3"}, None),
        (lambda angle: {"Omega": f"{angle}", "OmegaStep": "0.4"}, CENTRED * 0.8 + STARTS[:, None] * 0.2),
        (lambda angle: {"Start_angle": f"{angle} deg", "Angle_increment": "0.4 deg"}, WIDE),
        (lambda angle: {"OSC_START": f"{angle}", "OSC_RANGE": "0.4"}, WIDE),
        (lambda angle: {"title": "none"}, None),
    ],
)
@pytest.mark.parametrize("many", [True, False])
def test_edf_headers(tmp_path: Path, header: object, expected: np.ndarray | None, many: bool) -> None:
    headers = [header(angle) for angle in STARTS]
    if many:
        path = edf(tmp_path / "s.edf", headers)
    else:
        for index, one in enumerate(headers):
            edf(tmp_path / f"s_{index}.edf", [one])
        path = tmp_path / "s_*.edf"
    scan = open_scan("images", path)
    assert scan.shape == (4, 20, 24)
    if expected is None:
        assert scan.omega is None
    else:
        assert np.allclose(scan.omega, expected)
