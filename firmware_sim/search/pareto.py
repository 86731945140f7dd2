"""Stage "pareto": the circuits of a search that no other one beats in error, look-up tables and latency at once.

Of those better than the squared centroid, which needs no network; of all where none is.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import ArrayLike, NDArray
from optuna.trial import TrialState

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.training import train
from braggnn_edge.training.train import predict
from braggnn_edge.universal.locator import SHIPPED as UNIVERSAL
from braggnn_edge.universal.locator import universal_locator
from firmware_sim.search import figures as search_figures
from firmware_sim.search import point_file
from firmware_sim.search import storage as search_storage
from firmware_sim.search import trials as search
from firmware_sim.search.material import HeldOut, held_out
from firmware_sim.search.space import MEASURE, circuit_of, identity
from firmware_sim.search.spec import SearchSpec
from hls.rtl.synthesis import mapped_luts
from quant.contract import locator as locators
from quant.contract.locator import IntegerLocator
from quant.training.circuit_spec import CircuitSpec


@dataclass(frozen=True)
class Point:
    """A finished trial: its number, mean validation error in px, look-up tables and latency, and what was trained.

    figures: further ones of the validation, and ``seconds``; digest: of the circuit; made: its file, "" if not stored.
    """

    trial: int
    error: float
    luts: float
    latency: float
    circuit: CircuitSpec
    figures: Mapping[str, float]
    digest: str
    made: str

    @property
    def values(self) -> tuple[float, float, float]:
        """What it is judged by."""
        return self.error, self.luts, self.latency


def non_dominated(values: ArrayLike) -> NDArray[np.bool_]:
    """(n,) which of n points (n, objectives) no other one beats: as low in every objective and lower in one.

    Of equal points all are kept.
    """
    v = np.asarray(values, np.float64)
    return np.array([not ((v <= own).all(axis=1) & (v < own).any(axis=1)).any() for own in v], bool)


def points(study: optuna.Study) -> list[Point]:
    """The finished trials, by number; each circuit once, as it was first tried."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        kept = trial.user_attrs
        if search.AGAIN in kept:
            continue
        chosen = circuit_of(kept[search.CIRCUIT], f"trial {trial.number}")
        figures, made = kept.get(search.FIGURES, {}), kept.get(search.MADE, "")
        error, luts, latency = trial.values
        found.append(Point(trial.number, error, luts, latency, chosen, figures, kept.get(search.DIGEST, ""), made))
    return found


def fingerprint(spec: SearchSpec, where: str) -> str:
    """A hash of what a study has finished so far, for a stage that depends on it; UserError when there is no study."""
    study = search_storage.read_study(where, spec.study)
    trials = study.get_trials(deepcopy=False)
    done = [
        [trial.number, trial.values, trial.user_attrs.get(search.DIGEST)] for trial in trials if search.counts(trial)
    ]
    return hashlib.sha256(json.dumps(done).encode()).hexdigest()


def run(
    spec: SearchSpec,
    circuit: CircuitSpec,
    held: HeldOut,
    beside: Mapping[str, float],
    seed: int,
    where: str,
    scenario: Path,
    name: str,
    directory: Path,
    say: Callable[[str], None],
    mapped: Callable[[IntegerLocator], int] | None = None,
) -> dict[str, Any]:
    """Write ``pareto.json``, ``pareto.png``, and of each point ``configs/point_NN.toml``, ``circuits/point_NN.json``.

    held: what the trials are judged by; beside: mean errors there, px, of other estimators, lines of the picture;
    scenario: the configuration file; name: of the run, which the points' configurations go back to; mapped: look-up
    tables by synthesis, asked for with ``spec.map``. Raises UserError where there is no finished trial, or none of this
    configuration.
    """
    study = search_storage.read_study(where, spec.study)
    search_storage.check(study, identity(spec, circuit, held, seed), where)
    everything = points(study)
    if not everything:
        raise UserError(f"search: no trial of study {spec.study!r} is finished; run `make search` first")
    references = {"centre_of_mass_squared": held.bar, **beside}
    useful = np.array([point.error < references["centre_of_mass_squared"] for point in everything])
    best = useful if useful.any() else np.ones(len(everything), bool)  # if none is, the front is of all
    best[best] = non_dominated([point.values for point, kept in zip(everything, best, strict=True) if kept])
    front = sorted((p for p, kept in zip(everything, best, strict=True) if kept), key=lambda p: (p.luts, p.error))
    behind = [p for p, kept in zip(everything, best, strict=True) if not kept]
    rows = []
    for folder in ("configs", "circuits"):
        (directory / folder).mkdir(exist_ok=True)
    for number, point in enumerate(front, 1):
        row = {"name": f"point_{number:02d}", **_row(point)}
        if point.made:
            path = directory / "circuits" / f"{row['name']}.json"
            with written_aside(path) as aside:
                aside.write_text(point.made + "\n")
            if spec.map and mapped is not None:
                row["mapped_luts"] = mapped(locators.load(path))
        rows.append(row)
        lines = (f"Trial {point.trial} of the study {spec.study!r}: {_sentence(row)}.", _AGAIN)
        point_file.write(directory / "configs" / f"{row['name']}.toml", scenario, name, seed, point.circuit, lines)
        say(f"  {row['name']}  {_sentence(row)}  {search.described(point.circuit)}")
    refused = [
        t for t in study.get_trials(deepcopy=False) if t.state == TrialState.FAIL and search.REASON in t.user_attrs
    ]
    dominated = [_row(point) for point in behind]
    document = {
        "study": spec.study,
        "seed": seed,
        "units": {
            "error": "px, mean over the validation patches",
            "luts": f"counted, {MEASURE}",
            "latency": "additions",
        },
        "references_px": references,
        "points": rows,
        "dominated": dominated,
        "refused": [{"trial": t.number, "reason": t.user_attrs[search.REASON]} for t in refused],
    }
    write_json(directory / "pareto.json", document)
    search_figures.front(rows, dominated, references, directory / "pareto.png")
    say(f"pareto: {len(front)} points of {len(everything)} finished trials: beaten by no other one")
    return document


#: The second line of every point's configuration.
_AGAIN = "`braggnn-edge qat --config` with this file trains it again; longer loops make it better."


def _row(point: Point) -> dict[str, Any]:
    return {
        "trial": point.trial,
        **dict(zip(search_storage.OBJECTIVES, point.values, strict=True)),
        **point.figures,
        "circuit": search.described(point.circuit),
        "digest": point.digest,
    }


def _sentence(row: Mapping[str, Any]) -> str:
    mapped = f", {row['mapped_luts']:,} mapped" if "mapped_luts" in row else ""
    return f"{row['error']:.4f} px, {row['luts']:,.0f} LUTs{mapped}, latency {row['latency']:g}"


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`run` on the study of the configuration, the best float network beside its points."""
    cfg, held = context.cfg, held_out(context)
    if cfg["circuit"].source == "family":
        offsets, name = universal_locator().locate(held.patches), "universal"
    else:
        offsets, name = predict(train.load_network(context.run / "train", "full"), held.patches), "float"
    beside = {name: float(distances(offsets, held.offsets).mean())}
    run(
        cfg["search"], cfg["circuit"], held, beside, cfg.seed, _storage(context), context.scenario, context.run.name,
        directory, context.say, lambda circuit: mapped_luts(circuit)["luts"],
    )  # fmt: skip


def files(context: Context) -> tuple[Path, ...]:
    """What the stage reads outside the run directory."""
    return (UNIVERSAL,) if context.cfg["circuit"].source == "family" else ()


def settings(context: Context, values: dict[str, Any]) -> dict[str, Any]:
    """What the front depends on: the trials, not where they are kept, which may hold a password."""
    chosen = {key: value for key, value in values["search"].items() if key != "storage"}
    return values | {"search": chosen, "trials": fingerprint(context.cfg["search"], _storage(context))}


def _storage(context: Context) -> str:
    return search_storage.address(context.cfg["search"].storage, context.run, context.cfg.folder)
