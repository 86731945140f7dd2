"""Merged reflections of one or several panels as spots for grains: where they lie, and how well that is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.geometry import Floats, Index, Instrument, Panel
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.peak_list import PeakFlag

#: A position is not believed to better than this, in px: spots wander a little while they rock.
_LEAST_SIGMA = 0.02
#: The standard deviation in px of positions that have none of their own.
_USUAL_SIGMA = 0.1
#: The standard deviation of omega in frames: of a reflection in one frame that of an even distribution, else this. It
#: is where the refinement begins; residuals say more.
_OMEGA_SIGMA = 0.1
#: Reflections whose position or omega means something else.
_NOT_USED = PeakFlag.CUT | PeakFlag.EDGE


@dataclass(frozen=True)
class Spots:
    """Spots (n,) of one scan.

    panel: number in the instrument; file, reflection: where the spot stands in the lists; row, col: px of the panel;
    sigma_row, sigma_col: px; omega, sigma_omega: radians, of a reflection far from the axis; frames: in how many it is
    seen; intensity: counts, NaN where not known; ranges: (m, 2) radians, what the scan covers; step: radians a frame.
    """

    panel: Index
    file: Index
    reflection: Index
    row: Floats
    col: Floats
    sigma_row: Floats
    sigma_col: Floats
    omega: Floats
    sigma_omega: Floats
    frames: Index
    intensity: Floats
    ranges: Floats
    step: float

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: NDArray) -> "Spots":
        """Those that are chosen, by number or by a mask."""
        names = [name for name in self.__dataclass_fields__ if name not in ("ranges", "step")]
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    @property
    def covered(self) -> float:
        """How much of a turn the scan covers, in degrees, at most 360."""
        return min(360.0, float(np.degrees(np.diff(self.ranges, axis=1).sum())))


def flipped(name: str, row: Floats, col: Floats, rows: int, cols: int) -> tuple[Floats, Floats, int, int]:
    """Positions and the size of a frame after flips, in the order of the letters of their name.

    v: up becomes down; h: left becomes right; t: rows become columns.
    """
    for letter in name:
        if letter == "v":
            row = rows - 1 - row
        elif letter == "h":
            col = cols - 1 - col
        elif letter == "t":
            row, col, rows, cols = col, row, cols, rows
        else:
            raise UserError(f"--flip {name}: expected letters of v (up-down), h (left-right) and t (transpose)")
    return row, col, rows, cols


def files_of(words: Sequence[str], instrument: Instrument) -> dict[str, Path]:
    """Files by the detectors of the instrument, from ``NAME=FILE``, or files alone in the instrument's order."""
    names = list(dict.fromkeys(panel.group for panel in instrument.panels))
    found: dict[str, Path] = {}
    for number, word in enumerate(words):
        name, equals, path = word.partition("=")
        if not equals or Path(word).is_file():
            if number >= len(names):
                raise UserError(
                    f"{len(words)} lists for the {len(names)} detectors of the instrument: {', '.join(names)}"
                )
            name, path = names[number], word
        if name not in names:
            raise UserError(f"{word}: the instrument has no detector {name!r}; expected one of {', '.join(names)}")
        if name in found:
            raise UserError(f"{word}: detector {name} has a list already; give each detector one")
        found[name] = Path(path)
    return found


@dataclass(frozen=True)
class Listed:
    """A list of reflections: rows (m,) of REFLECTIONS, where they come from, and the file that messages name."""

    rows: NDArray[np.void]
    about: peak_file.About
    path: Path


def load(
    files: Mapping[str, Path], instrument: Instrument, flip: str = "", weighted: bool = True
) -> tuple[Instrument, Spots]:
    """The spots of all lists, and the instrument with the sizes of its panels.

    weighted: whether the sigma of the lists is used. Raises UserError where a list does not know omega, or frames have
    another size than the instrument says.
    """
    lists = {name: Listed(*peak_file.load(path, "reflections"), path) for name, path in files.items()}
    if not weighted:
        for listed in lists.values():
            listed.rows["weighted_sigma_row"] = listed.rows["weighted_sigma_col"] = np.nan
    return placed(lists, instrument, flip)


def placed(lists: Mapping[str, Listed], instrument: Instrument, flip: str = "") -> tuple[Instrument, Spots]:
    """:func:`load` of lists that are in memory, by the detectors of the instrument."""
    panels = list(instrument.panels)
    parts: list[Spots] = []
    for number, (name, listed) in enumerate(lists.items()):
        rows, about, path = listed.rows, listed.about, listed.path
        if (rows["scan"] != 0).any():
            raise UserError(f"{path}: holds reflections of several scans; expected one scan a list")
        ranges, step = _rotation(about, path)
        row, sigma_row = _place(rows, "row")
        col, sigma_col = _place(rows, "col")
        row, col, tall, wide = flipped(flip, row, col, about.shape[1], about.shape[2])
        if flip.count("t") % 2:
            sigma_row, sigma_col = sigma_col, sigma_row
        tiles = [place for place, panel in enumerate(panels) if panel.group == name]
        for place in tiles:
            panel = panels[place]
            panels[place] = replace(panel, rows=panel.rows or tall, cols=panel.cols or wide)
        _check_size([panels[place] for place in tiles], tall, wide, path)
        of, tile_row, tile_col = np.full(len(rows), -1), row.copy(), col.copy()
        for place in tiles:
            panel = panels[place]
            down, right = row - panel.first_row, col - panel.first_col
            on = (np.abs(down - (panel.rows - 1) / 2) <= panel.rows / 2) & (of < 0)
            on &= np.abs(right - (panel.cols - 1) / 2) <= panel.cols / 2
            of[on], tile_row[on], tile_col[on] = place, down[on], right[on]
        used = ((rows["flags"] & np.uint32(_NOT_USED)) == 0) & (of >= 0) & np.isfinite(rows["omega"])
        wide_omega = np.where(rows["frames"] == 1, 1 / np.sqrt(12), _OMEGA_SIGMA) * step
        parts.append(
            Spots(
                of,
                np.full(len(rows), number),
                np.arange(len(rows)),
                tile_row,
                tile_col,
                sigma_row,
                sigma_col,
                np.radians(rows["omega"]),
                wide_omega,
                rows["frames"].astype(np.int64),
                rows["intensity"],
                ranges,
                step,
            ).take(used)
        )
        if abs(step - parts[0].step) > 0.01 * step or abs(parts[-1].covered - parts[0].covered) > 1:
            raise UserError(f"{path}: its scan turns otherwise than that of the first list; expected one scan")
    return replace(instrument, panels=tuple(panels)), joined(parts)


def joined(parts: Sequence[Spots]) -> Spots:
    """Spots of several lists of one scan."""
    names = [name for name in Spots.__dataclass_fields__ if name not in ("ranges", "step")]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Spots(**columns, ranges=parts[0].ranges, step=parts[0].step)


def _rotation(about: peak_file.About, path: Path) -> tuple[Floats, float]:
    """What the scan covers, (m, 2) radians, and its step in radians; frames that were left out are not covered."""
    omega = np.radians(about.omega)
    if not len(omega) or not np.isfinite(omega).all():
        raise UserError(
            f"{path}: omega is not known, as the frames did not say it; merge their peaks again with it: "
            "`braggnn-edge merge peaks.h5 --omega-start DEG --omega-step DEG -o reflections.h5`"
        )
    low, high = omega.min(1), omega.max(1)
    step = float(np.median(high - low))
    if step <= 0:
        raise UserError(f"{path}: the frames do not turn (a step of {step:g} degrees); expected a rotation scan")
    kept = np.setdiff1d(np.arange(len(omega)), about.bad_frames)
    order = kept[np.argsort(low[kept], kind="stable")]
    low, high = low[order], high[order]
    new = np.flatnonzero(np.diff(low, prepend=-np.inf) > 1.5 * step)
    return np.stack([low[new], np.maximum.reduceat(high, new)], 1), step


def _place(rows: NDArray[np.void], axis: str) -> tuple[Floats, Floats]:
    """The position along an axis and its standard deviation: weighted by sigma where that is known, else plain."""
    sigma = rows[f"weighted_sigma_{axis}"]
    known = np.isfinite(sigma) & (sigma > 0) & np.isfinite(rows[f"weighted_{axis}"])
    place = np.where(known, rows[f"weighted_{axis}"], rows[axis])
    return place, np.hypot(np.where(known, sigma, _USUAL_SIGMA), _LEAST_SIGMA)


def _check_size(panels: Sequence[Panel], rows: int, cols: int, path: Path) -> None:
    tall = max(panel.first_row + panel.rows for panel in panels)
    wide = max(panel.first_col + panel.cols for panel in panels)
    if (tall, wide) != (rows, cols):
        raise UserError(
            f"{path}: its frames have {rows} x {cols} px, the instrument's {panels[0].group} {tall} x {wide}; expected "
            "the same: another detector, binned frames, or frames that are transposed (--flip t)"
        )
