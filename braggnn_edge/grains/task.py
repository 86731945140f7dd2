"""One estimator's list to grains: found anew, or refined from the spots that the grains of another list had."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.diagnose import remarks
from braggnn_edge.grains.finding import INDEXERS, as_before
from braggnn_edge.grains.geometry import Instrument
from braggnn_edge.grains.grain_file import Result
from braggnn_edge.grains.grains import Grains, refined
from braggnn_edge.grains.index import IndexSpec, Seed
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.scales import Scales
from braggnn_edge.grains.spots import Listed, placed
from braggnn_edge.grains.table import tables


@dataclass(frozen=True)
class Task:
    """Lists of one estimator, by detector, and how grains are made of them.

    indexer: of :data:`braggnn_edge.grains.finding.INDEXERS`; seeds: grains to begin with, None: they are found;
    assignment: grains whose very spots are refined.
    """

    lists: Mapping[str, Listed]
    instrument: Instrument
    lattice: Lattice
    sample: float
    flip: str
    index: IndexSpec
    indexer: str = "own"
    seeds: Sequence[Seed] | None = None
    assignment: Result | None = None


@dataclass(frozen=True)
class Done:
    """The grains, none where there are none, without sizes, and what they began with."""

    result: Result
    seeds: Sequence[Seed]


def scene_of(task: Task) -> Scene:
    """The spots of a task with what is known of them."""
    sized, spots = placed(task.lists, task.instrument, task.flip)
    return Scene(sized, spots, task.lattice, task.sample)


def done(task: Task) -> Done:
    """Find and refine, or refine as assigned."""
    scene, seeds = scene_of(task), task.seeds
    if task.assignment is not None:
        try:
            found = as_before(scene, task.assignment, next(iter(task.lists.values())).path)
        except UserError:  # no grain has enough of its spots: none is a result too
            found = Grains([], (), np.zeros(0), Scales())
    else:
        seeds = INDEXERS[task.indexer](scene, task.index) if seeds is None else seeds
        found = refined(scene, seeds, task.index.least)
    unknown = np.full(len(found.grains), np.nan)  # sizes are not the estimator's, see scenario
    rows, spots = tables(scene, found, unknown, np.nan)
    panels = tuple(panel.name for panel in scene.instrument.panels)
    settings: dict[str, Any] = {
        "lattice": list(task.lattice.cell), "centring": task.lattice.centring, "sample": task.sample,
        "flip": task.flip, "index": asdict(task.index), "indexer": task.indexer, "fixed": task.assignment is not None,
        "scales": asdict(found.scales),
    }  # fmt: skip
    if task.assignment is None:
        settings["remarks"] = list(remarks(scene, found, task.lattice))
    names = tuple(listed.path.name for listed in task.lists.values())
    return Done(Result(rows, spots, names, panels, settings), seeds or ())
