"""Work of the stage "grains": all peaks of a scenario's scan, by every estimator, to grains that are compared.

Peaks are found, fitted and cut by the label stage, and merged into reflections once. Every estimator then gives the
position of each peak, and grains are found and refined from its reflections alone (free), and from the spots that the
grains of the fit have (fixed). Nothing is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.config import resolve_path
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context, asked_for
from braggnn_edge.evaluation.figures import look
from braggnn_edge.grains import grain_file, imaged11, instrument
from braggnn_edge.grains.crystal import Lattice, lattice_of
from braggnn_edge.grains.diagnose import why_nothing
from braggnn_edge.grains.estimates import TRUTH, Estimate, estimates, networks, subject
from braggnn_edge.grains.geometry import Instrument
from braggnn_edge.grains.grain_file import Result
from braggnn_edge.grains.index import IndexSpec
from braggnn_edge.grains.kept import Kept, file_name
from braggnn_edge.grains.merged import Merged, merged
from braggnn_edge.grains.outcome import SHARES, Outcome, save_arrays, summarized
from braggnn_edge.grains.pictures import draw
from braggnn_edge.grains.screen import lines
from braggnn_edge.grains.sized import sized
from braggnn_edge.grains.spec import FIT, KINDS, TRIVIAL, GrainSpec
from braggnn_edge.grains.spots import Listed, files_of
from braggnn_edge.grains.task import Done, Task, scene_of
from braggnn_edge.label.acquisition import open_spec
from braggnn_edge.label.spec import ScanSpec
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.peak_file import About
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.report.grains_section import grains_page

#: mm: how far from the origin grains may lie where the configuration does not say it.
_SAMPLE = 0.5


@dataclass(frozen=True)
class Setting:
    """What is known before the peaks are: scans by detector, geometry, lattice; true grains, None where not known."""

    scans: dict[str, ScanSpec]
    instrument: Instrument
    lattice: Lattice
    sample: float  # mm
    truth: Result | None


def check(context: Context) -> None:
    """Refuse scans, a lattice, an instrument or networks that cannot be used; what is simulated is looked at later."""
    spec = context.cfg["grains"]
    chosen = _chosen(context)
    simulated = chosen[0] if len(chosen) == 1 and _has_grains(chosen[0]) else None
    for key in ("instrument", "lattice"):
        if not getattr(spec, key) and simulated is None:
            raise UserError(
                f"grains: {key} is not known; give it in [grains]: only one scan that is simulated from grains has its "
                "own"
            )
    made = simulated.simulate.grains if simulated else None
    if made and 0 < spec.sample < made.reach:
        raise UserError(
            f"grains: sample {spec.sample:g} mm, but the box of the simulated grains reaches {made.reach:.3g} mm from "
            "the origin; expected at least that, or 0 for as far as they lie"
        )
    if spec.instrument:
        geometry = instrument.read(resolve_path(spec.instrument, context.cfg.folder))
        _by_detector(spec, chosen, geometry)
    if spec.lattice:
        lattice_of(spec.lattice, spec.centring or "P")
    if spec.indexer == "imaged11":
        imaged11.require("grains: indexer", 'indexer = "own"')
    networks(context)


def _chosen(context: Context) -> list[ScanSpec]:
    """The scans that are used, in the order of the table; UserError for a name that there is not."""
    scans = {scan.name: scan for scan in context.cfg["scan"]}
    names = [word.rpartition("=")[2] for word in context.cfg["grains"].scans] or list(scans)
    for name in names:
        if name not in scans:
            raise UserError(f"grains: there is no scan {name!r}; expected one of {', '.join(scans)}")
    return [scans[name] for name in names]


def _has_grains(scan: ScanSpec) -> bool:
    """Whether a scan is simulated from grains."""
    return scan.format == "simulated" and scan.simulate.grains is not None


def _by_detector(spec: GrainSpec, chosen: list[ScanSpec], geometry: Instrument) -> dict[str, ScanSpec]:
    words = spec.scans or tuple(scan.name for scan in chosen)
    by_name = {scan.name: scan for scan in chosen}
    return {name: by_name[str(path)] for name, path in files_of(words, geometry).items()}


def setting_of(context: Context) -> Setting:
    """Read instrument and truth, which a simulated scan has in the folder of the data stage."""
    spec, chosen, data = context.cfg["grains"], _chosen(context), context.run / "data"
    own = chosen[0] if len(chosen) == 1 and _has_grains(chosen[0]) else None
    path = data / f"{own.name}_instrument.toml" if own else Path()
    geometry = instrument.read(resolve_path(spec.instrument, context.cfg.folder) if spec.instrument else path)
    if spec.omega_sign:
        geometry = replace(geometry, omega_sign=float(spec.omega_sign))
    made = own.simulate.grains if own else None
    cell = spec.lattice or (made.lattice if made else ())
    centring = spec.centring or (made.centring if made else "P")
    truth = grain_file.load(data / f"{own.name}_grains.h5") if own else None
    sample = spec.sample or (1.02 * made.reach if made else _SAMPLE)
    return Setting(_by_detector(spec, chosen, geometry), geometry, lattice_of(cell, centring), sample, truth)


def work(context: Context, directory: Path) -> None:
    """The stage: grains by every estimator, their comparison, and pictures, in ``directory``."""
    spec, say = context.cfg["grains"], context.say
    setting = setting_of(context)
    table = load_table(context.run / "label" / "peaks.h5")
    gains = [scan.detector.gain for scan in context.cfg["scan"]]
    kept = Kept(directory / "kept", say)
    found = {
        name: kept.estimate(look(name).label, make)
        for name, make in estimates(table, spec.estimators, networks(context), gains)
        if name != TRUTH or setting.truth is not None
    }
    lists: dict[str, Merged] = {}
    for detector, scan in setting.scans.items():
        name = "reflections" if len(setting.scans) == 1 else f"reflections_{detector}"
        one = merged(table, table.scans.index(scan.name), _about(context, scan), directory / f"{name}.h5")
        peak_file.save(one.path, one.rows, one.about)
        lists[detector] = one
    peaks, reflections = (sum(len(getattr(one, name)) for one in lists.values()) for name in ("peaks", "rows"))
    say(f"  {peaks:,} peaks make {reflections:,} reflections")
    outcome = _refined(context, setting, lists, found, kept)
    document = summarized(outcome, spec.least_size)
    document |= {"scans": {name: scan.name for name, scan in setting.scans.items()}, "peaks": peaks,
                 "reflections": reflections}  # fmt: skip
    for name, runs in outcome.runs.items():
        for kind, result in runs.items():
            grain_file.LAYOUTS[".h5"](directory / f"{file_name(name)}_{kind}.h5", result)
    save_arrays(outcome, directory / "grains.npz")
    draw(outcome, document, directory / "figures")
    write_json(directory / "grains.json", document)
    missing = [stage.name for stage in asked_for("report", context.cfg) if not _is_there(context, stage.name)]
    with written_aside(directory / "grains.html") as aside:
        aside.write_text(grains_page(document, context.run.name, directory / "figures", missing), encoding="utf-8")
    kept.removed()
    for line in lines(document):
        say(f"  {line}".rstrip())


def _is_there(context: Context, stage: str) -> bool:
    return stage == "grains" or (context.run / stage / "manifest.json").is_file()


def _about(context: Context, scan: ScanSpec) -> About:
    opened = open_spec(scan, context.run / "data", context.cfg.folder)
    if opened.omega is None:
        raise UserError(f"scan {scan.name!r}: omega is not known; give omega_start and omega_step in its [[scan]]")
    return About((scan.name,), opened.shape, opened.omega, (), {"merged_by": "label"}, "braggnn-edge grains")


def _refined(
    context: Context, setting: Setting, lists: dict[str, Merged], found: dict[str, Estimate], kept: Kept
) -> Outcome:
    """Grains of every estimator: free, plain (without sigma, where it knows sigma) and fixed."""
    spec, say = context.cfg["grains"], context.say
    index = IndexSpec(spec.completeness, spec.least)

    def task(name: str, weighted: bool, **more: Any) -> Task:
        at = {detector: one.at(found[name], weighted) for detector, one in lists.items()}
        return Task(at, setting.instrument, setting.lattice, setting.sample, spec.flip, index, spec.indexer, **more)

    def grains(kind: str, tasks: Mapping[str, Task]) -> dict[str, Done]:
        names = {name: f"{look(name).label}, {KINDS[kind]}" for name in tasks}
        done = kept.all_done({names[name]: one for name, one in tasks.items()}, context.workers)
        return {name: done[names[name]] for name in tasks}

    free = {name: task(name, weighted=True) for name in found}
    say(f"  grains from the positions of {len(free)} estimators")
    begun = grains("free", free)
    runs: dict[str, dict[str, Result]] = {name: {"free": one.result} for name, one in begun.items()}
    if not len(runs[FIT]["free"].grains):
        scene = scene_of(free[FIT])
        files = {detector: one.path for detector, one in lists.items()}
        why = why_nothing(scene, files, setting.instrument, spec.flip, index)
        raise UserError(
            f"grains: {why}. The options are keys of the same names in [grains], those of omega in [[scan]]"
        )
    plain = {
        name: task(name, weighted=False, seeds=begun[name].seeds) for name in found if found[name].sigma is not None
    }
    runs |= _joined(runs, "plain", grains("plain", plain))
    fixed = {}
    for name, one in free.items():
        if name not in (FIT, TRUTH):
            kind = "free" if found[name].sigma is not None else "plain"
            fixed[name] = replace(one, assignment=runs[FIT][kind])
    runs |= _joined(runs, "fixed", grains("fixed", fixed))
    fewer = _fewer(free, plain, runs[FIT]["plain"], context, kept)
    used = {name: [listed.rows for listed in one.lists.values()] for name, one in free.items()}
    merged_at = {detector: Listed(one.rows, one.about, one.path) for detector, one in lists.items()}
    scene = scene_of(replace(free[FIT], lists=merged_at))
    runs = sized(runs, runs[FIT]["free"], scene, setting.truth, spec.median_size)
    truth = None if setting.truth is None else setting.truth.grains
    pixel = 1e3 * float(np.mean([panel.pixel for panel in setting.instrument.panels]))
    return Outcome(setting.lattice, runs, used, truth, pixel, fewer)


def _fewer(
    free: Mapping[str, Task], plain: Mapping[str, Task], whole: Result, context: Context, kept: Kept
) -> dict[str, list[Result]]:
    """Grains from shares of the spots that the fit's have, the same for all, with equal weights.

    Those of the fit, of the estimator that pictures are about, and of the first trivial one: it takes as long as all
    else.
    """
    rng = np.random.default_rng((context.cfg.seed, 18))
    order = rng.random(len(whole.spots))
    parts = [replace(whole, spots=whole.spots[order < share]) for share in SHARES]
    names = dict.fromkeys([FIT, subject(list(free)), *[name for name in TRIVIAL[::-1] if name in free][:1]])
    tasks = {
        f"{look(name).label}, from {share:.0%} of the spots": replace(plain.get(name, free[name]), assignment=part)
        for name in names
        for share, part in zip(SHARES, parts, strict=True)
    }
    results = [one.result for one in kept.all_done(tasks, context.workers).values()]
    return {name: results[i * len(parts) : (i + 1) * len(parts)] for i, name in enumerate(names)}


def _joined(runs: dict[str, dict[str, Result]], kind: str, more: dict[str, Done]) -> dict[str, dict[str, Result]]:
    return {name: runs[name] | {kind: one.result} for name, one in more.items()}
