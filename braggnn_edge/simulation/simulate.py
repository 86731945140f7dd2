"""Far-field diffraction scans with known truth, written in the BraggNN layout beside a truth table.

Reflections are drawn on Debye-Scherrer rings, or are those of grains, and rock through the frames. In a frame from
rotation a to b a reflection of rocking width w (standard deviation) centred at c holds the share Phi((b - c) / w) -
Phi((a - c) / w) of its intensity, scaled so that a frame centred on it has the reflection's height. Each spot is a
tilted elliptical pseudo-Voigt integrated over the pixels (:mod:`braggnn_edge.fit.pseudo_voigt`). The detector then
counts Poisson photons, multiplies by the gain, adds read noise and hot pixels, blanks dead ones, rounds, saturates and
thresholds.

Every frame has its own random streams, keyed by (seed, frame): files are the same whatever the number of workers.
"""

import multiprocessing
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy.spatial import cKDTree

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.hdf5 import writing_hdf5
from braggnn_edge.fit.pseudo_voigt import PARAMETERS, render
from braggnn_edge.frames.formats.braggnn import create_frames
from braggnn_edge.simulation.reflections import draw_reflections, inside, share_of_frame
from braggnn_edge.simulation.spec import WINDOWS, SimulationSpec
from braggnn_edge.simulation.streams import NOISE, PANEL, SPOTS, stream
from braggnn_edge.simulation.truth import TRUTH_DTYPE, read_truth

__all__ = ["TRUTH_DTYPE", "SimulationSpec", "read_truth", "simulate"]

_TAIL = 1.0  # counts: a spot's window ends where its profile falls below this, or at the largest window


@dataclass(frozen=True)
class Panel:
    """What all frames share: smooth background (rows, cols) in counts, flat indices of dead and hot pixels."""

    background: np.ndarray
    dead: np.ndarray
    hot: np.ndarray


def make_panel(spec: SimulationSpec, seed: int) -> Panel:
    """The background and the bad pixels of a scan."""
    rng = stream(seed, PANEL)
    row, col = spec.beam()
    radius = np.hypot(np.arange(spec.rows)[:, None] - row, np.arange(spec.cols) - col)
    shape = 1 + spec.background_slope * np.cos(np.pi * radius / max(1.0, float(radius.max())))
    pixels = spec.rows * spec.cols
    dead = rng.choice(pixels, round(spec.dead * pixels), replace=False)
    hot = rng.choice(pixels, round(spec.hot * pixels), replace=False)
    return Panel(spec.background * shape, dead, hot)


def expected_frame(
    spec: SimulationSpec, reflections: np.ndarray, panel: Panel, seed: int, frame: int
) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts (rows, cols) of a frame before noise, and its truth rows (:data:`TRUTH_DTYPE`)."""
    amplitude = reflections["height"] * share_of_frame(spec, reflections, frame)
    index = np.flatnonzero(amplitude > _TAIL)
    spots, amplitude = reflections[index], amplitude[index]
    position = np.stack([spots["row"], spots["col"]], 1)
    position += spec.jitter * stream(seed, SPOTS, frame).standard_normal(position.shape)
    image = panel.background.copy()
    total = add_spots(image, spots, amplitude, position, spec.window, spec.taper)
    kept = np.flatnonzero(inside(spec, position) & (amplitude >= spec.least_height))
    truth = np.empty(len(kept), TRUTH_DTYPE)
    truth["frame"], truth["reflection"], truth["grain"] = frame, index[kept], spots["grain"][kept]
    truth["row"], truth["col"] = position[kept].T
    truth["amplitude"], truth["total"] = amplitude[kept], total[kept]
    for name in ("fwhm_major", "fwhm_minor", "tilt", "eta"):
        truth[name] = spots[name][kept]
    row, col = np.rint(position[kept]).astype(np.int64).T
    truth["background"] = panel.background[row, col]
    truth["saturated"] = image[row, col] >= spec.saturation
    truth["neighbour"] = np.inf
    if len(kept) > 1:
        truth["neighbour"] = cKDTree(position[kept]).query(position[kept], k=2)[0][:, 1]
    return image, truth


def add_spots(
    image: np.ndarray,
    spots: np.ndarray,
    amplitude: np.ndarray,
    position: np.ndarray,
    largest: int,
    taper: bool = True,
) -> np.ndarray:
    """Add pixel-integrated spots to ``image`` (rows, cols); returns the counts (n,) that each has in its window.

    A window is the smallest of a few sizes, up to ``largest``, that holds the spot down to one count. In its core
    pixels are integrated, with more points for narrow spots; outside, where a Lorentzian tail r px away
    differs from its pixel mean by 1 / (4 r^2) of itself, the centre of the pixel stands for its mean. With ``taper``
    profiles in the largest window go smoothly to zero; without it bright ones end there in a step.
    """
    sizes = np.array([size for size in WINDOWS if size <= largest])
    half = largest // 2
    rows, cols = image.shape
    pad = 2 * half
    padded = np.zeros((rows + 2 * pad, cols + 2 * pad))
    corner = np.rint(position).astype(np.int64)
    parameters = np.zeros((len(spots), len(PARAMETERS)), np.float32)
    parameters[:, :2] = position - corner
    parameters[:, 2] = amplitude
    for column, name in enumerate(("fwhm_major", "fwhm_minor", "tilt", "eta"), 3):
        parameters[:, column] = spots[name]
    gauss = np.sqrt(np.log2(np.maximum(amplitude / _TAIL, 1.0)))
    lorentz = np.sqrt(np.maximum(spots["eta"] * amplitude / _TAIL - 1.0, 0.0))
    whole = np.searchsorted(sizes, spots["fwhm_major"] * np.maximum(gauss, lorentz) + 1).clip(0, len(sizes) - 1)
    core = np.searchsorted(sizes, 2.5 * spots["fwhm_major"] + 4).clip(0, whole)
    order = np.where(spots["fwhm_minor"] < 1.5, 5, 4)
    # A companion may lie outside; farther than half the largest window, it has no pixel inside.
    near = ((corner >= -half) & (corner < (rows + half, cols + half))).all(1)
    total = np.zeros(len(spots))
    for group in sorted(set(zip(whole[near].tolist(), core[near].tolist(), order[near].tolist(), strict=True))):
        size, fine = int(sizes[group[0]]), int(sizes[group[1]])
        members = np.flatnonzero(near & (whole == group[0]) & (core == group[1]) & (order == group[2]))
        for part in np.array_split(members, -(-len(members) * size * size // 250_000)):
            patches = _render(parameters[part], size, 1 if fine < size else group[2])
            if fine < size:
                edge = (size - fine) // 2
                patches[:, edge : edge + fine, edge : edge + fine] = _render(parameters[part], fine, group[2])
            if taper and size == largest:
                patches *= _taper(position[part] - corner[part], half)
            total[part] = patches.sum((1, 2))
            top = corner[part] + pad - size // 2
            steps = np.arange(size)
            flat = ((top[:, :1] + steps) * padded.shape[1])[:, :, None] + (top[:, 1:] + steps)[:, None, :]
            np.add.at(padded.reshape(-1), flat.ravel(), patches.ravel())
    image += padded[pad : pad + rows, pad : pad + cols]
    return total


def _taper(position: np.ndarray, half: int) -> np.ndarray:
    """(n, 2 half + 1, 2 half + 1) factors around the middle pixel, by the distance from ``position`` (n, 2).

    They are 1 up to 0.7 half, and go down to 0 at half as a squared cosine.
    """
    steps = np.arange(-half, half + 1)
    distance = np.hypot(steps[:, None] - position[:, 0, None, None], steps - position[:, 1, None, None])
    return np.cos(np.pi / 2 * ((distance / half - 0.7) / 0.3).clip(0, 1)) ** 2


def _render(parameters: np.ndarray, size: int, order: int) -> np.ndarray:
    """(n, size, size) float64; ``parameters`` (n, 8) float32 have positions relative to the centre pixel."""
    moved = parameters.copy()
    moved[:, :2] += size // 2
    return render(torch.from_numpy(moved), size, order).numpy().astype(np.float64)


def measure(spec: SimulationSpec, expected: np.ndarray, panel: Panel, seed: int, frame: int) -> np.ndarray:
    """The detector's answer (rows, cols) uint16 to ``expected`` counts."""
    rng = stream(seed, NOISE, frame)
    counts = spec.gain * rng.poisson(expected / spec.gain)
    if spec.read_noise:
        counts += spec.read_noise * rng.standard_normal(expected.shape, np.float32)
    flat = counts.reshape(-1)
    flat[panel.hot] += spec.hot_level
    flat[panel.dead] = 0
    result = np.rint(counts).clip(0, spec.saturation).astype(np.uint16)
    if spec.threshold:
        result[result <= spec.threshold] = 0
    return result


def simulate(
    spec: SimulationSpec,
    seed: int,
    frames_path: Path,
    truth_path: Path,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the frames (BraggNN layout, uint16) and the truth table of a scan; returns its number of rows.

    The bytes depend on ``spec`` and ``seed`` alone. Both files are written aside and renamed, the frames last;
    ``progress(done, frames)`` is called after every frame.
    """
    if workers < 1:
        raise UserError(f"workers = {workers}; expected at least 1")
    if seed < 0:
        raise UserError(f"seed = {seed}; expected 0 or more")
    reflections = draw_reflections(spec, seed)  # an error is raised here rather than in a worker
    for path in (frames_path, truth_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    truths = []
    with writing_hdf5(frames_path) as (file, check):
        data = create_frames(file, (spec.frames, spec.rows, spec.cols), np.dtype(np.uint16))
        for frame, (packed, truth) in enumerate(_frames(spec, seed, workers)):
            data.id.write_direct_chunk((frame, 0, 0), packed)
            check()
            truths.append(truth)
            if progress is not None:
                progress(frame + 1, spec.frames)
        table = np.concatenate(truths)
        with writing_hdf5(truth_path) as (truth_file, _):  # within, so that the frames appear last
            _columns(truth_file, table)
            _columns(truth_file.create_group("reflections"), reflections)
    return len(table)


def _columns(group: h5py.Group, table: np.ndarray) -> None:
    for name in table.dtype.names or ():
        group.create_dataset(name, data=table[name], shuffle=True, compression="gzip", compression_opts=1)


def _frames(spec: SimulationSpec, seed: int, workers: int) -> Iterator[tuple[bytes, np.ndarray]]:
    """(packed frame, truth rows) of every frame in order."""
    if workers == 1 or spec.frames == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a frame's tensors are small: threads only wait for each other
        try:
            yield from map(_FrameMaker(spec, seed), range(spec.frames))
        finally:
            torch.set_num_threads(threads)
        return
    # Spawned: torch's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (spec, seed)) as pool:
        yield from pool.imap(_make_frame, range(spec.frames))


class _FrameMaker:
    """Makes any frame of a scan; what the frames share is drawn once, the same in every process."""

    def __init__(self, spec: SimulationSpec, seed: int) -> None:
        self.spec, self.seed = spec, seed
        self.reflections, self.panel = draw_reflections(spec, seed), make_panel(spec, seed)

    def __call__(self, frame: int) -> tuple[bytes, np.ndarray]:
        """The frame as the bytes of its HDF5 chunk (byte shuffle, deflate level 1), and its truth rows."""
        expected, truth = expected_frame(self.spec, self.reflections, self.panel, self.seed, frame)
        image = measure(self.spec, expected, self.panel, self.seed, frame)
        shuffled = np.ascontiguousarray(image.reshape(-1).view(np.uint8).reshape(-1, 2).T)
        return zlib.compress(shuffled.tobytes(), 1), truth


_maker: _FrameMaker | None = None


def _start_worker(spec: SimulationSpec, seed: int) -> None:
    global _maker  # noqa: PLW0603  a pool's initializer has no other way to give a process its state
    torch.set_num_threads(1)
    _maker = _FrameMaker(spec, seed)


def _make_frame(frame: int) -> tuple[bytes, np.ndarray]:
    if _maker is None:
        raise RuntimeError("a worker was used before it was started")
    return _maker(frame)
