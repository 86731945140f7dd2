"""Patches of a wide family of spots and detectors, drawn directly, with their true positions: for locators that travel.

A scan of one experiment teaches a network that experiment. Here every patch has a detector, a background and a spot of
its own. Most spots are tilted elliptical pseudo-Voigts (:mod:`braggnn_edge.fit.pseudo_voigt`). Others are made of
several sub-spots: rough, skewed or flat-topped ones. Their position is the centre of mass of their sub-spots, as the
paper defines a position (Liu et al., IUCrJ 9 (2022) 104-113). A patch is centred on a bright pixel, as in use
(:mod:`braggnn_edge.simulation.family_crops`), and the truth is that of the spot nearest to it.

Patches come in shards of :data:`SHARD`, each with a random stream of its own, keyed by (seed, shard): a patch is the
same however many are drawn, and whatever the number of processes.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.pseudo_voigt import render
from braggnn_edge.simulation.family_crops import brightest, by_window_rule, reachable, with_bad_lines, with_bad_pixels
from braggnn_edge.simulation.family_spec import FamilySpec

#: Patches of one random stream.
SHARD = 8192
#: Side of the window that spots are rendered in, px; patches are cut from it.
_WINDOW = 19
#: Largest number of sub-spots of a spot.
_SUB_SPOTS = 6
_CENTRE = _WINDOW // 2
#: Columns of the renderer's parameters.
_ROW, _COL, _HEIGHT, _MAJOR, _MINOR, _TILT, _ETA = range(7)

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Patches:
    """counts (n, size, size) float32, whole numbers; offsets (n, 2) float32: true (row, col), px from the centre pixel.

    fwhm (n,): of the minor axis, px, of the spot or, of one with sub-spots, of the shape that they fill; height (n,):
    of the spot without its background, photons. By the component rule both are of the spot that is drawn first, even
    where its neighbour is the brighter one; by the window rule they are of the spot whose position is given.
    """

    counts: NDArray[np.float32]
    offsets: NDArray[np.float32]
    fwhm: NDArray[np.float32]
    height: NDArray[np.float32]

    @staticmethod
    def joined(some: "list[Patches]") -> "Patches":
        return Patches(*(np.concatenate([getattr(one, name) for one in some]) for name in Patches.__annotations__))

    def __getitem__(self, which: slice) -> "Patches":
        return Patches(*(getattr(self, name)[which] for name in Patches.__annotations__))


def draw(
    spec: FamilySpec,
    seed: int,
    patches: int,
    first: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Patches:
    """``patches`` patches of the family from shard ``first`` on; the same for the same spec, seed and first shard.

    progress: called as ``progress(done, patches)`` after each shard. Raises UserError for a number below 1.
    """
    if patches < 1 or workers < 1:
        raise UserError(f"family: {patches} patches by {workers} processes; expected at least 1 of each")
    found: list[Patches] = []
    starts = range(0, patches, SHARD)
    tasks = [(spec, seed, first + k, min(SHARD, patches - start)) for k, start in enumerate(starts)]
    for one in _shards(tasks, min(workers, len(tasks))):
        found.append(one)
        if progress is not None:
            progress(min(len(found) * SHARD, patches), patches)
    return Patches.joined(found)


#: Specification, seed, number of a shard, and how many of its patches are wanted.
_Task = tuple[FamilySpec, int, int, int]


def _shards(tasks: list[_Task], workers: int) -> Iterator[Patches]:
    if workers == 1:
        yield from map(_shard, tasks)
        return
    # Spawned, as torch's threads do not survive a fork; a Pool would start processes that cannot start for ever.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_shard, tasks)


def _shard(task: _Task) -> Patches:
    """The first patches of a shard: those that are not wanted come behind them and are not drawn."""
    spec, seed, shard, wanted = task
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(shard,)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one order of operations whatever the machine
    try:
        found: list[Patches] = []
        missing = wanted
        while missing > 0:  # what no finder would take for a peak is drawn again
            found.append(_drawn(spec, rng, SHARD // 4)[:missing])
            missing -= len(found[-1].counts)
        return Patches.joined(found)
    finally:
        torch.set_num_threads(threads)


def _drawn(spec: FamilySpec, rng: np.random.Generator, n: int) -> Patches:
    """Up to n patches: those whose centre pixel is that of a spot and stands out of the noise."""
    shape = _shapes(spec, rng, n)
    shape[:, _HEIGHT] = _log_uniform(rng, spec.heights, n)
    shape[:, :2] = _CENTRE + rng.uniform(-0.5, 0.5, (n, 2))
    image, position = _spots(spec, rng, shape)
    windowed = dimmer = np.zeros(n, bool)
    if spec.window_rule:  # no random numbers without a share
        windowed, dimmer = rng.random(n) < spec.window_rule, rng.random(n) < 0.5
    image, positions, sizes = _with_neighbours(spec, rng, shape, image, position, windowed & dimmer)
    counts, above = _measured(spec, rng, image)
    pixel = brightest(counts)
    kept = reachable(counts).max((1, 2)) > above
    if spec.window_rule:
        pixel[windowed], kept[windowed] = by_window_rule(rng, counts[windowed], above[windowed])
    # The truth is that of the spot which is nearest to the centre pixel.
    distance = np.linalg.norm(positions - pixel[:, None], axis=2)
    nearest = distance.argmin(1)
    offset = positions[np.arange(n), nearest] - pixel
    kept &= np.abs(offset).max(1) < np.maximum(2.5, 0.75 * shape[:, _MAJOR])
    half = spec.size // 2
    windows = np.lib.stride_tricks.sliding_window_view(counts, (spec.size, spec.size), axis=(1, 2))
    patches = windows[np.arange(n), pixel[:, 0] - half, pixel[:, 1] - half]
    patches = with_bad_lines(spec, rng, with_bad_pixels(spec, rng, patches))
    fwhm, height = sizes[np.arange(n), np.where(windowed, nearest, 0)].T
    single = (offset, fwhm, height)
    return Patches(patches[kept].astype(np.float32), *(one[kept].astype(np.float32) for one in single))


def _shapes(spec: FamilySpec, rng: np.random.Generator, n: int) -> Float:
    """(n, 8) parameters with widths, tilt and eta; the rest is 0."""
    shape = np.zeros((n, 8))
    low, high = spec.fwhm
    minor = spec.fwhm_median * np.exp(spec.fwhm_spread * rng.standard_normal(n))
    shape[:, _MINOR] = np.clip(minor, low, high)
    aspect = np.exp(np.abs(spec.aspect_spread * rng.standard_normal(n)))
    streak = rng.random(n) < spec.streaks
    aspect[streak] = rng.uniform(*spec.streak_aspect, int(streak.sum()))
    shape[:, _MAJOR] = np.clip(shape[:, _MINOR] * aspect, shape[:, _MINOR], max(high, 1.2 * spec.size))
    shape[:, _TILT] = rng.uniform(0, np.pi, n)
    shape[:, _ETA] = rng.uniform(*spec.eta, n)
    return shape


def _spots(spec: FamilySpec, rng: np.random.Generator, shape: Float) -> tuple[Float, Float]:
    """Images (n, _WINDOW, _WINDOW) in photons without background, and positions (n, 2) px in them."""
    image, position = _rendered(shape), shape[:, :2].copy()
    kinds = rng.choice(4, len(shape), p=[1 - spec.rough - spec.skewed - spec.flat, spec.rough, spec.skewed, spec.flat])
    some = np.flatnonzero(kinds)
    if len(some) == 0:
        return image, position
    parent, kind = shape[some], kinds[some]
    m, k = len(some), np.arange(_SUB_SPOTS)
    number = rng.integers(2, _SUB_SPOTS + 1, m)
    spread = (parent[:, _MAJOR] / 2.355 * rng.uniform(*spec.roughness, m))[:, None]
    # Places along the parent's axes: scattered when rough, in a chain that fades when skewed, evenly when flat-topped.
    along = rng.standard_normal((m, _SUB_SPOTS)) * spread
    across = rng.standard_normal((m, _SUB_SPOTS)) * spread * (parent[:, _MINOR] / parent[:, _MAJOR])[:, None]
    share = _log_uniform(rng, (0.15, 1.0), (m, _SUB_SPOTS))
    chain = k * 0.8 * spread
    even = (k - (number[:, None] - 1) / 2) * np.minimum(spread, 0.4 * parent[:, _MINOR, None])
    along = np.select([kind[:, None] == 2, kind[:, None] == 3], [chain, even], along)
    across = np.where(kind[:, None] >= 2, 0.0, across)
    share = np.select([kind[:, None] == 2, kind[:, None] == 3], [rng.uniform(0.3, 0.8, (m, 1)) ** k, 1.0], share)
    share = np.where(k < number[:, None], share, 0.0)
    cos, sin = np.cos(parent[:, _TILT, None]), np.sin(parent[:, _TILT, None])
    place = parent[:, None, :2] + np.stack([sin * along + cos * across, cos * along - sin * across], 2)
    width = rng.uniform(0.5, 1.0, (m, _SUB_SPOTS))
    # The mass is what the truth is the centre of: height times area.
    sub = np.repeat(parent[:, None], _SUB_SPOTS, 1)
    sub[:, :, _HEIGHT] *= share
    sub[:, :, _MINOR] = np.maximum(sub[:, :, _MINOR] * width, spec.fwhm[0])
    sub[:, :, _MAJOR] = np.maximum(sub[:, :, _MAJOR] * width, sub[:, :, _MINOR])
    mass = share * sub[:, :, _MAJOR] * sub[:, :, _MINOR]
    mean = (mass[:, :, None] * place).sum(1) / mass.sum(1)[:, None]
    sub[:, :, :2] = place - (mean - parent[:, :2])[:, None]  # the centre of mass where the parent's was
    lit = share > 0
    rendered = np.zeros((m, _SUB_SPOTS, _WINDOW, _WINDOW), np.float32)
    rendered[lit] = _rendered(sub[lit])
    image[some] = rendered.sum(1)
    return image, position


def _with_neighbours(
    spec: FamilySpec, rng: np.random.Generator, shape: Float, image: Float, position: Float, dimmer: NDArray[np.bool_]
) -> tuple[Float, Float, Float]:
    """Images with the neighbours that some spots have; of both, positions (n, 2, 2) and sizes (n, 2, 2).

    A position is far away where there is no neighbour; a size is the FWHM of the minor axis and the height. dimmer
    (n,): of which spots the neighbour is the brighter one.
    """
    n = len(shape)
    positions = np.stack([position, np.full((n, 2), 1e6)], 1)
    sizes = np.repeat(shape[:, None, [_MINOR, _HEIGHT]], 2, 1)
    some = np.flatnonzero(rng.random(n) < spec.neighbours)
    near = _shapes(spec, rng, len(some))
    scale = shape[some, _MINOR] * np.exp(0.15 * rng.standard_normal(len(some))) / near[:, _MINOR]
    near[:, _MINOR : _MINOR + 1] *= scale[:, None]  # of the same sample, so of nearly the same width
    near[:, _MINOR] = np.clip(near[:, _MINOR], *spec.fwhm)
    near[:, _MAJOR] = np.maximum(near[:, _MAJOR] * scale, near[:, _MINOR])
    ratio = _log_uniform(rng, spec.neighbour_ratio, len(some))
    near[:, _HEIGHT] = image[some].max((1, 2)) * np.where(dimmer[some], 1.0, ratio)
    image[some] *= np.where(dimmer[some], ratio, 1.0)[:, None, None]
    sizes[some, 0, 1] *= np.where(dimmer[some], ratio, 1.0)
    angle = rng.uniform(0, 2 * np.pi, len(some))
    step = rng.uniform(*spec.neighbour_distance, len(some))[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    near[:, :2] = position[some] + step
    positions[some, 1], sizes[some, 1] = near[:, :2], near[:, [_MINOR, _HEIGHT]]
    image[some] += _rendered(near)
    return image, positions, sizes


def _measured(spec: FamilySpec, rng: np.random.Generator, image: Float) -> tuple[Float, Float]:
    """Counts of images in photons, and (n,) the least count that stands out of the noise, both by detectors drawn."""
    n = len(image)
    background = np.where(rng.random(n) < spec.dark, 0.0, _log_uniform(rng, spec.background, n))
    gain = _log_uniform(rng, spec.gain, n)
    noise = np.where(rng.random(n) < spec.counting, 0.0, rng.uniform(*spec.read_noise, n))
    photons = rng.poisson(image + background[:, None, None])
    counts = photons * gain[:, None, None] + noise[:, None, None] * rng.standard_normal(image.shape)
    level = background * gain
    suppressed = rng.random(n) < spec.zero_suppressed
    subtracted = rng.random(n) < np.where(suppressed, 0.7, 0.2)
    counts -= np.where(subtracted, level, 0.0)[:, None, None]
    top = counts[:, _CENTRE - 2 : _CENTRE + 3, _CENTRE - 2 : _CENTRE + 3].max((1, 2))
    least = np.maximum(3 * noise, top * _log_uniform(rng, spec.suppression, n))
    counts[suppressed[:, None, None] & (counts < least[:, None, None])] = 0.0
    full = rng.random(n) < spec.saturated
    limit = np.where(full, top * rng.uniform(0.3, 1.0, n), np.inf)
    counts = np.rint(np.clip(counts, 0.0, np.maximum(limit, 1.0)[:, None, None]))
    above = np.where(subtracted, 0.0, level) + 4 * np.sqrt(gain**2 * background + noise**2) + 1
    return counts, np.minimum(above, np.where(full, 0.9 * np.rint(limit), np.inf))


def _rendered(shape: Float) -> Float:
    """(n, _WINDOW, _WINDOW) photons of spots; narrow ones with more quadrature points."""
    found = np.empty((len(shape), _WINDOW, _WINDOW))
    order = np.select([shape[:, _MINOR] < 1.2, shape[:, _MINOR] < 3.0], [5, 3], 2)
    for one in (5, 3, 2):
        of = np.flatnonzero(order == one)
        if len(of):
            found[of] = render(torch.from_numpy(shape[of].astype(np.float32)), _WINDOW, one).numpy()
    return found


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], n: int | tuple[int, ...]) -> Float:
    return np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), n))
