"""Sizes of the grains of all estimators, from the same spots and on one scale.

Intensities are measured once, and so are the positions by which peaks were merged. Spots are chosen there
(:mod:`braggnn_edge.grains.size`), the rings' factors are those of the fit's grains, and so is the scale. Sizes of
estimators then differ where their grains do, and not because one of them found a grain more.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from braggnn_edge.grains.compare import differences
from braggnn_edge.grains.grain_file import Result, matrices, positions
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.size import Places, micrometres, strengths


def sized(
    runs: Mapping[str, Mapping[str, Result]], reference: Result, scene: Scene, truth: Result | None, median_size: float
) -> dict[str, dict[str, Result]]:
    """The runs, by estimator and kind, with ``relative_volume`` and ``size``.

    reference: the fit's grains, whose median grain has the relative volume 1; scene: spots at the positions by which
    they were merged; truth: true grains, which say how large those of the reference are together; median_size: um, of
    the reference's median grain where the truth is not known, 0: not known.
    """
    extra = float(reference.settings["scales"]["extra"])
    of_fit = strengths(scene, _places(reference), extra)
    factors = of_fit.factors()
    volumes = np.exp(of_fit.volumes(factors))
    total = None
    if truth is not None:
        pairs = differences(scene.lattice, reference.grains, truth.grains).pairs
        total = float(np.pi / 6 * np.sum((truth.grains["size"][pairs[:, 1]] / 1e3) ** 3))
        volumes = volumes[pairs[:, 0]]
    um = micrometres(volumes, total, None if total is not None else median_size or None)

    def with_sizes(result: Result) -> Result:
        rows = result.grains.copy()
        rows["relative_volume"] = np.exp(strengths(scene, _places(result), extra).volumes(factors))
        rows["size"] = um * np.cbrt(rows["relative_volume"])
        return replace(result, grains=rows)

    return {name: {kind: with_sizes(one) for kind, one in kinds.items()} for name, kinds in runs.items()}


def _places(result: Result) -> Places:
    return list(zip(matrices(result.grains, "ub"), positions(result.grains) / 1e3, strict=True))
