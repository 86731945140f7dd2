"""How a list of peaks or reflections is written, by the suffix of the file: our HDF5, CSV, other programs' layouts.

Positions in every layout are pixels counted from 0, the centre of the first pixel being 0.0, and frames are as they lie
in the scan's file: no layout turns or mirrors them. docs/reference/peak_lists.md has the columns.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.frames.formats.braggnn import PEAK_DTYPE, write_peaks
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.peak_file import About, Append
from braggnn_edge.peaks.peak_list import PEAKS, REFLECTIONS, PeakFlag

#: Columns of text by name, each with the format of its values.
_Columns = Mapping[str, tuple[str, NDArray]]


@dataclass(frozen=True)
class Context:
    """What a layout needs besides the rows. center: (row, col) of the beam, px; None: not known."""

    about: About
    center: tuple[float, float] | None = None


Writer = Callable[[Path, Context], AbstractContextManager[Append]]


def layout_of(path: Path, kind: str = "peaks") -> Writer:
    """What writes a file with this name, of "peaks" or "reflections"; UserError for a suffix that has no layout."""
    layouts = LAYOUTS if kind == "peaks" else REFLECTION_LAYOUTS
    if kind != "peaks" and path.name.endswith(".braggnn.h5"):
        raise UserError(
            f"output {path}: BraggNN's peaks file holds peaks of frames, no reflections; write it by locate"
        )
    for suffix, writer in layouts.items():
        if path.name.endswith(suffix) and path.name != suffix:
            return writer
    raise UserError(
        f"output {path}: its suffix stands for no layout; expected one of {', '.join(layouts)} behind a name"
    )


def writers(paths: Sequence[Path], kind: str = "peaks") -> tuple[tuple[Path, Writer], ...]:
    """The outputs of a command with what writes them; UserError for names that cannot be written, before any work."""
    outputs = tuple((path, layout_of(path, kind)) for path in paths)
    for path, _ in outputs:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise UserError(f"output {path}: expected the name of a file in a folder that exists")
    if len({path.absolute() for path, _ in outputs}) < len(outputs):
        raise UserError("two outputs have the same name; give each its own")
    return outputs


def beam_center(text: str | None) -> tuple[float, float] | None:
    """The (row, col) in px of an option ``--beam-center ROW,COL``."""
    if text is None:
        return None
    try:
        row, col = map(float, text.split(","))
    except ValueError:
        raise UserError(f"--beam-center {text}: expected ROW,COL, two numbers in px") from None
    return row, col


def _hdf5(kind: str) -> Writer:
    return lambda path, context: peak_file.writing(path, context.about, kind)


def _csv(dtype: np.dtype) -> Writer:
    """All columns by their names; numbers in full precision."""

    @contextlib.contextmanager
    def writing(path: Path, context: Context) -> Iterator[Append]:
        with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
            stream.write(",".join(dtype.names or ()) + "\n")

            def append(rows: NDArray[np.void]) -> None:
                stream.writelines(",".join(map(str, row)) + "\n" for row in rows.tolist())

            yield append

    return writing


def _table(
    separator: str,
    head: str,
    columns: Callable[[NDArray[np.void], int, Context], _Columns],
    dtype: np.dtype = PEAKS,
) -> Writer:
    """A writer of text: a line of names behind ``head``, and a line of numbers a row.

    columns: rows (n,) of ``dtype``, the number of the first of them, and the context, to columns (n,).
    """

    @contextlib.contextmanager
    def writing(path: Path, context: Context) -> Iterator[Append]:
        names = columns(np.empty(0, dtype), 0, context)
        line = separator.join(form for form, _ in names.values()) + "\n"
        with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
            stream.write(head + separator.join(names) + "\n")
            written = 0

            def append(rows: NDArray[np.void]) -> None:
                nonlocal written
                values = [column.tolist() for _, column in columns(rows, written, context).values()]
                stream.writelines(line % numbers for numbers in zip(*values, strict=True))
                written += len(rows)

            yield append

    return writing


def _imaged11_spot(rows: NDArray[np.void]) -> _Columns:
    """The first columns of ImageD11's columnfile, which peaks and reflections have: where a spot is, and how large."""
    return {
        "sc": ("%.5f", rows["row"]),
        "fc": ("%.5f", rows["col"]),
        "omega": ("%.5f", rows["omega"]),
        "Number_of_pixels": ("%d", rows["area"]),
        "avg_intensity": ("%.4f", rows["intensity"] / rows["area"]),
        "s_raw": ("%.5f", rows["row"]),
        "f_raw": ("%.5f", rows["col"]),
        "sigs": ("%.5f", rows["width_row"]),
        "sigf": ("%.5f", rows["width_col"]),
    }


def _imaged11(rows: NDArray[np.void], first: int, context: Context) -> _Columns:
    """Columns of ImageD11's columnfile that one frame has: s is slow, our row; f is fast, our col."""
    frames = context.about.shape[0]
    number = np.arange(first, first + len(rows))
    return {
        **_imaged11_spot(rows),
        "sum_intensity": ("%.4f", rows["intensity"]),
        "IMax_int": ("%.4f", rows["maximum"]),
        "IMax_s": ("%d", rows["pixel_row"]),
        "IMax_f": ("%d", rows["pixel_col"]),
        "IMax_o": ("%.5f", rows["omega"]),
        "Min_o": ("%.5f", rows["omega"]),
        "Max_o": ("%.5f", rows["omega"]),
        "onfirst": ("%d", rows["frame"] == 0),
        "onlast": ("%d", rows["frame"] == frames - 1),
        "spot3d_id": ("%d", number),
        # What columnfile reads besides, and we know:
        "frame": ("%d", rows["frame"]),
        "scan": ("%d", rows["scan"]),
        "sigma_s": ("%.5f", rows["sigma_row"]),
        "sigma_f": ("%.5f", rows["sigma_col"]),
        "background": ("%.4f", rows["background"]),
        "flags": ("%d", rows["flags"]),
    }


def _imaged11_reflections(rows: NDArray[np.void], first: int, context: Context) -> _Columns:
    """Columns of ImageD11's columnfile of peaks that are merged over frames."""
    low, high = _omega_range(rows, context)
    frames = context.about.shape[0]
    return {
        **_imaged11_spot(rows),
        "sigo": ("%.5f", rows["spread_omega"]),
        "sum_intensity": ("%.4f", rows["intensity"]),
        "IMax_int": ("%.4f", rows["maximum"]),
        "Min_o": ("%.5f", low),
        "Max_o": ("%.5f", high),
        "onfirst": ("%d", rows["first_frame"] == 0),
        "onlast": ("%d", rows["last_frame"] == frames - 1),
        "spot3d_id": ("%d", np.arange(first, first + len(rows))),
        "frames": ("%d", rows["frames"]),
        "scan": ("%d", rows["scan"]),
        "sigma_s": ("%.5f", rows["sigma_row"]),
        "sigma_f": ("%.5f", rows["sigma_col"]),
        "background": ("%.4f", rows["background"]),
        "flags": ("%d", rows["flags"]),
    }


def _omega_range(rows: NDArray[np.void], context: Context) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest omega of the frames in which reflections (m,) are seen, that of a frame its middle.

    Of a reflection that goes over the end of a turn the largest lies beyond it. NaN where omega is not known.
    """
    middle = context.about.omega.mean(axis=1)
    if not len(middle):
        return np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    first, last = middle[rows["first_frame"]], middle[rows["last_frame"]]
    over = np.sign(middle[-1] - middle[0]) * 360.0 * (rows["first_frame"] > rows["last_frame"])
    return np.minimum(first, last + over), np.maximum(first, last + over)


def _midas(rows: NDArray[np.void], first: int, context: Context) -> _Columns:
    """Columns of MIDAS's ``Result_StartNr_1_EndNr_N.csv``, as its far-field programs write and read it."""
    row, col = np.full(2, np.nan) if context.center is None else context.center
    down, left = rows["row"] - row, col - rows["col"]
    radius = np.hypot(down, left)
    # MIDAS counts eta from the positive z axis, here downwards along the rows, and negative for positive y.
    with np.errstate(invalid="ignore", divide="ignore"):
        eta = np.degrees(np.arccos(down / radius)) * np.where(left > 0, -1.0, 1.0)
    width = np.sqrt((rows["width_row"] ** 2 + rows["width_col"] ** 2) / 2)
    return {
        "SpotID": ("%d", np.arange(first + 1, first + 1 + len(rows))),
        "IntegratedIntensity": ("%.6f", rows["intensity"]),
        "Omega(degrees)": ("%.6f", rows["omega"]),
        "YCen(px)": ("%.6f", rows["col"]),
        "ZCen(px)": ("%.6f", rows["row"]),
        "IMax": ("%.6f", rows["maximum"] - rows["background"]),
        "MinOme(degrees)": ("%.6f", rows["omega"]),
        "MaxOme(degress)": ("%.6f", rows["omega"]),  # spelt as MIDAS spells it
        "SigmaR": ("%.6f", width),
        "SigmaEta": ("%.6f", width),
        "NrPx": ("%d", rows["area"]),
        "NrPxTot": ("%d", rows["area"]),
        "Radius(px)": ("%.6f", radius),
        "Eta(degrees)": ("%.6f", eta),
    }


def _midas_reflections(rows: NDArray[np.void], first: int, context: Context) -> _Columns:
    """The columns of :func:`_midas` of peaks that are merged over frames, as they are in that program's file."""
    found = dict(_midas(rows, first, context))
    found["MinOme(degrees)"], found["MaxOme(degress)"] = (("%.6f", omega) for omega in _omega_range(rows, context))
    return found


@contextlib.contextmanager
def _braggnn(path: Path, context: Context) -> Iterator[Append]:
    """The peaks file of the BraggNN project, from memory: 19 bytes a peak.

    ``deviations``, of which upstream keeps 0 to below 1, is the distance in px from the brightest pixel.
    """
    pieces = [np.empty(0, PEAK_DTYPE)]

    def append(rows: NDArray[np.void]) -> None:
        peak = np.zeros(len(rows), PEAK_DTYPE)
        for name in ("frame", "row", "col"):
            peak[name] = rows[name]
        peak["npeaks"] = np.where(rows["flags"] & PeakFlag.DOUBLE, 2, 1)
        peak["deviation"] = np.hypot(rows["row"] - rows["pixel_row"], rows["col"] - rows["pixel_col"])
        pieces.append(peak)

    yield append
    write_peaks(path, np.concatenate(pieces))


#: Layouts of peaks and of reflections by suffix; of two that fit, the first is meant.
LAYOUTS: Mapping[str, Writer] = {
    ".braggnn.h5": _braggnn,
    ".midas.csv": _table(" ", "", _midas),
    **dict.fromkeys((".h5", ".hdf5", ".nxs"), _hdf5("peaks")),
    ".csv": _csv(PEAKS),
    ".flt": _table(" ", "# ", _imaged11),
}
REFLECTION_LAYOUTS: Mapping[str, Writer] = {
    ".midas.csv": _table(" ", "", _midas_reflections, REFLECTIONS),
    **dict.fromkeys((".h5", ".hdf5", ".nxs"), _hdf5("reflections")),
    ".csv": _csv(REFLECTIONS),
    ".flt": _table(" ", "# ", _imaged11_reflections, REFLECTIONS),
}
