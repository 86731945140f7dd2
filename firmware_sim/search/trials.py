"""A search for circuits that locate well and cost little: one training a trial, every trial in a shared storage.

Any number of processes and machines may work on one storage. What is finished counts, wherever it was done; a process
that is killed loses the trial it was at.
"""

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.metrics import distances, validation_figures
from braggnn_edge.training import train
from firmware_sim.search import storage as search_storage
from firmware_sim.search.material import Material, material
from firmware_sim.search.sampler import NumberedSampler
from firmware_sim.search.space import ORDERS, choose, identity, parameters, table_of
from firmware_sim.search.spec import SearchSpec
from firmware_sim.search.watch import Pace, Watch, alive
from hls.rtl.cmvm import Effort
from hls.rtl.trace import counted_luts, trace
from quant.contract import locator as locators
from quant.contract.locator import IntegerLocator
from quant.training.circuit_spec import CircuitSpec
from quant.training.compress import fit

#: Seconds between two looks at the trials of others, when there is nothing left to begin.
_POLL = 1.0

#: A circuit whose file is longer is not stored with its trial: MySQL's text columns end at 65,535 bytes.
_LONGEST = 60_000

#: Attributes of a trial.
CIRCUIT, MADE, DIGEST, FIGURES, REASON, AGAIN = "circuit", "made", "digest", "figures", "reason", "again"


def costs(circuit: IntegerLocator, limit: int) -> tuple[float, float]:
    """Look-up tables and latency (additions one after the other) of the traced circuit: counted, not synthesized."""
    traced = trace(circuit, limit=limit, effort=Effort(ORDERS))
    return counted_luts(traced), float(max(traced.latency))


def run(
    spec: SearchSpec,
    circuit: CircuitSpec,
    material: Material,
    seed: int,
    where: str,
    say: Callable[[str], None],
    workers: int = 1,
) -> None:
    """Work on the study until it has ``spec.trials`` trials, with ``workers`` processes, this one among them.

    circuit: where trials do not choose; material: what they learn from and are judged by; seed: of the run; where:
    from :func:`firmware_sim.search.storage.address`. A trial that cannot be is recorded with its reason, and counts.
    Raises UserError for a storage or study of another kind, before anything is written to it.
    """
    named = identity(spec, circuit, material.held, seed)
    study = search_storage.open_study(where, spec.study, named)
    study.sampler = NumberedSampler(spec.sampler, seed + spec.seed, spec.startup)
    work = _Work(spec, circuit, material, seed, where, named)
    say(f"search: study {spec.study!r} in {search_storage.shown(where)}, {_census(study)}, {spec.trials} wanted")
    if not study.get_trials(deepcopy=False) and (first := parameters(spec, circuit)) is not None:
        study.enqueue_trial(first, skip_if_exists=True)
    with _helpers((spec, circuit, material, seed, where), workers - 1):
        _trials(study, work, say)
    say(f"search: {_census(study)}; draw the front with `make pareto`")


@dataclass(frozen=True)
class _Work:
    """What a process needs for its trials; the names are those of :func:`run`."""

    spec: SearchSpec
    circuit: CircuitSpec
    material: Material
    seed: int
    where: str
    identity: dict[str, Any]


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial has a result or was refused; a lost one, or one that was interrupted, is made up for."""
    return trial.state == TrialState.COMPLETE or (trial.state == TrialState.FAIL and REASON in trial.user_attrs)


def _census(study: optuna.Study) -> str:
    trials = study.get_trials(deepcopy=False)
    done = sum(trial.state == TrialState.COMPLETE for trial in trials)
    refused = sum(counts(trial) for trial in trials) - done
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    lost = sum(trial.state == TrialState.FAIL for trial in trials) - refused
    parts = ((refused, "refused"), (running, "running"), (lost, "lost"))
    return f"{done} trials finished" + "".join(f", {count} {name}" for count, name in parts if count)


def _trials(study: optuna.Study, work: _Work, say: Callable[[str], None]) -> None:
    """Begin a trial while one is wanted; at the end wait for those of others, and make up for lost ones."""
    parent = multiprocessing.parent_process()
    watch, pace = Watch(study, say), Pace()
    while parent is None or parent.is_alive():
        trials = study.get_trials(deepcopy=False)
        watch.look(trials)
        finished = sum(counts(trial) for trial in trials)
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        if finished >= work.spec.trials:
            return
        if finished + running >= work.spec.trials:
            time.sleep(_POLL)
            continue
        search_storage.check(study, work.identity, work.where)
        line = _one(study, work)
        now = sum(counts(trial) for trial in study.get_trials(deepcopy=False))
        say(f"  {now} of {work.spec.trials}  {line}{pace.left(now, work.spec.trials)}")


def _one(study: optuna.Study, work: _Work) -> str:
    """One trial, recorded; a line about it."""
    before = study.get_trials(deepcopy=False)
    trial = study.ask()
    began = time.monotonic()
    try:
        with alive(trial):
            chosen = choose(trial, work.spec, work.circuit)
            described_as = table_of(chosen)
            trial.set_user_attr(CIRCUIT, described_as)
            known = next((t for t in before if counts(t) and t.user_attrs.get(CIRCUIT) == described_as), None)
            if known is not None and REASON in known.user_attrs:
                raise UserError(f"as trial {known.number}: {known.user_attrs[REASON]}")
            if known is None:
                made, values, figures = measure(chosen, work.material, work.seed, work.spec.limit)
                kept = made | {FIGURES: figures | {"seconds": round(time.monotonic() - began, 1)}}
            else:  # a sampler may propose again what it found good, or change what a circuit has not
                values = tuple(known.values)
                kept = {key: known.user_attrs[key] for key in (FIGURES, DIGEST)} | {AGAIN: known.number}
        for key, value in kept.items():
            trial.set_user_attr(key, value)
        # Small circuits that are worse than no network at all are a front of their own; samplers are told to avoid it.
        trial.set_constraint("error above the squared centroid's", values[0] - work.material.held.bar)
        study.tell(trial, values)
    except UserError as error:
        reason = " ".join(str(error).split())
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial.set_user_attr(REASON, reason[:2000])
            study.tell(trial, state=TrialState.FAIL)
        return f"trial {trial.number} refused: {reason}"
    except optuna.exceptions.UpdateFinishedTrialError:
        return f"trial {trial.number}: another process had given it up, for want of a sign of life"
    except BaseException:  # an interruption, a full disk, a mistake: the trial is not left to be waited for
        with contextlib.suppress(Exception):
            study.tell(trial, state=TrialState.FAIL)
        raise
    error_px, luts, latency = values
    name = f"trial {trial.number}" if known is None else f"trial {trial.number} (trial {known.number} again)"
    return f"{name}  error {error_px:.4f} px  {luts:,.0f} LUTs  latency {latency:g}  {described(chosen)}"


def measure(
    chosen: CircuitSpec, material: Material, seed: int, limit: int
) -> tuple[dict[str, str], tuple[float, float, float], dict[str, float]]:
    """Train a circuit and measure it: what it is, (error, LUTs, latency), and further figures.

    error: mean distance of its integer answers on the validation peaks, px. Raises UserError where the stage "circuit"
    would, or where it is too large to trace.
    """
    with tempfile.TemporaryDirectory(prefix="search-") as folder:
        made, _, _ = fit(chosen, material.examples, material.teacher, seed, Path(folder), lambda _: None)
        path = Path(folder) / "locator.json"
        locators.save(made, path)
        text = path.read_text().strip()
    held = material.held
    answers = made.locate(held.patches)
    for checked in (train.check_learned, train.check_directions):
        checked(answers, held.offsets, "circuit")
    figures = validation_figures(distances(answers, held.offsets))
    if made.centroid is not None:
        base = made.output.values(made.centroid.codes(made.pixels(made.codes(held.patches))))
        alone = float(distances(base, held.offsets).mean())
        if not figures["score"] < alone:
            raise UserError(
                f"circuit: its mean error of {figures['score']:.4f} px is not below the centroid's {alone:.4f} px: the "
                "network has not learned"
            )
    luts, latency = costs(made, limit)
    stored = {DIGEST: made.digest} | ({MADE: text} if len(text) <= _LONGEST else {})
    return stored, (figures.pop("score"), luts, latency), figures


def described(spec: CircuitSpec) -> str:
    """A circuit in a few words: ``squared, 7 px, conv 4, dense 24-12, bits 6/5/5 channel``."""
    net, front_end = spec.network, spec.front_end
    centroid = "no centroid" if front_end.centroid == "none" else front_end.centroid
    shape = [
        f"{kind} {'-'.join(map(str, sizes))}" for kind, sizes in (("conv", net.conv), ("dense", net.dense)) if sizes
    ]
    bits = f"bits {front_end.bits}/{net.weight_bits}/{net.activation_bits} {net.widths}"
    return ", ".join([centroid, f"{front_end.window} px", *shape, bits])


@contextlib.contextmanager
def _helpers(arguments: tuple[Any, ...], count: int) -> Iterator[None]:
    """Further processes at the same study; UserError when one ended badly."""
    # A forked process would share the database's connection; a spawned one needs seconds to import all this.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    threads = max(1, torch.get_num_threads() // (count + 1))
    processes = [context.Process(target=_help, args=(arguments, threads), daemon=True) for _ in range(count)]
    before = torch.get_num_threads()
    if processes:
        torch.set_num_threads(threads)
    for process in processes:
        process.start()
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.join()
        torch.set_num_threads(before)
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise UserError(
            f"search: {len(failed)} of its processes stopped (exit {failed[0]}); run the same command again"
        )


def _help(arguments: tuple[Any, ...], threads: int) -> None:
    """The life of a further process."""
    torch.set_num_threads(threads)
    spec, circuit, material, seed, where = arguments
    named = identity(spec, circuit, material.held, seed)
    with contextlib.suppress(KeyboardInterrupt):
        study = search_storage.open_study(where, spec.study, named)
        study.sampler = NumberedSampler(spec.sampler, seed + spec.seed, spec.startup)
        _trials(study, _Work(spec, circuit, material, seed, where, named), lambda line: print(line, flush=True))


def work(context: Context) -> None:
    """The command: :func:`run` on the peaks of the label stage, or on patches of the family."""
    cfg = context.cfg
    where = search_storage.address(cfg["search"].storage, context.run, cfg.folder)
    run(cfg["search"], cfg["circuit"], material(context), cfg.seed, where, context.say, context.workers)
    if not cfg["search"].storage:
        context.say(f"finished: {context.run / 'search.db'}")
