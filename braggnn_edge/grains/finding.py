"""Work of the command ``grains``: lists of reflections from files to a table of grains in files."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains import grain_file, imaged11, instrument
from braggnn_edge.grains.crystal import lattice_of
from braggnn_edge.grains.diagnose import remarks, why_nothing
from braggnn_edge.grains.grain_file import Result, matrices, positions
from braggnn_edge.grains.grains import Grains, refined, refined_as_assigned
from braggnn_edge.grains.index import IndexSpec, Seed, index
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.size import micrometres, relative_volumes
from braggnn_edge.grains.spots import files_of, load
from braggnn_edge.grains.table import FLAG_WORDS, tables

Say = Callable[[str], None]

#: Indexers by the names of ``--indexer``.
INDEXERS: Mapping[str, Callable[[Scene, IndexSpec], list[Seed]]] = {"own": index, "imaged11": imaged11.index}


def work(arguments: Namespace, say: Say) -> None:
    """The command: read lists and instrument, find the grains, refine them, write them, and say what they are."""
    outputs = grain_file.writers(arguments.output)
    lattice = lattice_of(arguments.lattice, arguments.centring)
    spec = IndexSpec(arguments.completeness, arguments.least, arguments.most)
    for name in ("sample", "total_volume", "median_size"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < np.inf:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected a positive number")
    if arguments.total_volume is not None and arguments.median_size is not None:
        raise UserError("--total-volume and --median-size both say how large the grains are; give one of them")
    geometry = instrument.read(arguments.instrument)
    if arguments.omega_sign is not None:
        geometry = replace(geometry, omega_sign=float(arguments.omega_sign))
    files = files_of(arguments.lists, geometry)
    read = {arguments.instrument, *files.values()} | ({arguments.assignment} - {None})
    if taken := {path.absolute() for path, _ in outputs} & {path.absolute() for path in read}:
        raise UserError(f"output {min(taken)} is a file that is read; give the result another name")
    sized, spots = load(files, geometry, arguments.flip, weighted=not arguments.equal_weights)
    if not len(spots):
        raise UserError(
            f"{', '.join(map(str, files.values()))}: no reflections that can be used; find more peaks first"
        )
    scene = Scene(sized, spots, lattice, arguments.sample)
    grain_file.check([path for path, _ in outputs], scene)
    if arguments.assignment is not None:
        found = as_before(scene, grain_file.load(arguments.assignment), arguments.assignment)
    else:
        found = refined(scene, INDEXERS[arguments.indexer](scene, spec), spec.least)
        if not found.grains:
            raise UserError(why_nothing(scene, files, geometry, arguments.flip, spec))
    volumes = relative_volumes(scene, [(one.ub, one.position) for one in found.grains], found.scales.extra)
    um = micrometres(volumes, arguments.total_volume, arguments.median_size)
    rows, own = tables(scene, found, volumes, um)
    panels = tuple(panel.name for panel in sized.panels)
    lists = tuple(path.name for path in files.values())
    result = Result(rows, own, lists, panels, _settings(arguments, found), scene)
    for path, write in outputs:
        write(path, result)
    for line in (*described(scene, result), *remarks(scene, found, lattice)):
        say(f"  {line}")
    say("finished: " + ", ".join(str(path) for path, _ in outputs))


def _settings(arguments: Namespace, found: Grains) -> dict[str, Any]:
    """What the grains depend on, in JSON; files by their names alone."""
    names = ("lattice", "centring", "sample", "completeness", "least", "most", "flip", "omega_sign", "total_volume",
             "median_size", "indexer", "equal_weights")  # fmt: skip
    settings = {name: getattr(arguments, name) for name in names}
    settings |= {
        name: getattr(arguments, name) and getattr(arguments, name).name for name in ("instrument", "assignment")
    }
    return settings | {"scales": asdict(found.scales)}


def as_before(scene: Scene, before: Result, path: Path) -> Grains:
    """Grains of an earlier result, refined from the same rows of the lists, with the same indices."""
    lists, reflection = before.spots["list"].astype(np.int64), before.spots["reflection"]
    width = int(max(reflection.max(initial=0), scene.spots.reflection.max(initial=0))) + 1
    key, order = lists * width + reflection, np.argsort(scene.spots.file * width + scene.spots.reflection)
    mine = (scene.spots.file * width + scene.spots.reflection)[order]
    at = np.minimum(np.searchsorted(mine, key), max(len(mine) - 1, 0))
    here = mine[at] == key
    hkl = np.stack([before.spots[name] for name in "hkl"], -1).astype(np.int64)
    owner, number = np.full(len(scene.spots), -1), np.full(len(scene.spots), -1)
    owner[order[at[here]]] = before.spots["grain"][here]
    number[order[at[here]]] = scene.number_of(hkl[here])
    starts = zip(matrices(before.grains, "ub"), positions(before.grains) / 1e3, strict=True)
    found = refined_as_assigned(scene, dict(zip(before.grains["grain"].tolist(), starts, strict=True)), owner, number)
    if not found.grains:
        raise UserError(
            f"{path}: {here.mean() if len(here) else 0:.0%} of its spots are in the lists, and no grain has 8 of them; "
            "expected the grains of these lists"
        )
    return found


def described(scene: Scene, result: Result) -> Iterator[str]:
    """Sentences for the user."""
    rows = result.grains
    place = np.sqrt(sum(np.square(rows[f"sigma_position_{axis}"]) for axis in "xyz"))
    grains = f"{len(rows):,} grain{'s' if len(rows) != 1 else ''}"
    yield (
        f"{len(scene.spots):,} spots make {grains} with {np.median(rows['spots']):.0f} spots each (median), "
        f"{len(result.spots) / len(scene.spots):.0%} of all"
    )
    yield (
        f"residuals {np.median(np.hypot(rows['rms_row'], rows['rms_col'])) / np.sqrt(2):.3f} px and "
        f"{np.median(rows['rms_omega']):.3f} degrees; standard deviation of a position {np.median(place):.1f} um; "
        f"completeness {np.median(rows['completeness']):.0%} (all medians)"
    )
    for flag, words in FLAG_WORDS.items():
        if count := int(((rows["flags"] & flag) != 0).sum()):
            yield f"{flag.name}: {count:,} grain{'s' if count != 1 else ''} {words}"
