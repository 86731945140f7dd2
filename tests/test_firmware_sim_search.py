"""The search: trials, resuming, refused trials, two processes, foreign and old storages."""

import dataclasses
import hashlib
import json
import multiprocessing
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from builders import sloping_spots

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec
from firmware_sim.search import pareto
from firmware_sim.search import storage as search_storage
from firmware_sim.search import trials as search
from firmware_sim.search import watch as search_watch
from firmware_sim.search.material import Material, peaks_digest
from firmware_sim.search.sampler import NumberedSampler
from firmware_sim.search.space import choose, circuit_of, identity, parameters, table_of
from firmware_sim.search.spec import SearchSpec
from quant.training.circuit_spec import CircuitNetworkSpec, CircuitSpec, FrontEndSpec

torch.set_num_threads(1)
SIZE = 9
SHORT = LoopSpec(32, 3e-3, "one_cycle", max_iterations=20, evaluate_every=10, patience=0)
SPEC = SearchSpec(
    trials=3, startup=2, float_loop=SHORT, loop=SHORT, windows=(3, 5), centroids=("intensity",), convolutions=(0, 0),
    layers=(1, 2), units=(3, 5), widths=("channel", "layer"), budgeted=(True,),
    sparsity=(0.0, 0.3), channel_sparsity=(0.0, 0.2), lut_budget=(500, 2000),
)  # fmt: skip
CIRCUIT = CircuitSpec(FrontEndSpec(window=5), CircuitNetworkSpec(dense=(4,)))


TABLE = sloping_spots(400, SIZE)
MATERIAL = Material.of_table(TABLE)


def named(spec: SearchSpec = SPEC, seed: int = 1) -> dict:
    return identity(spec, CIRCUIT, MATERIAL.held, seed)


def searched(where: str, spec: SearchSpec = SPEC, workers: int = 1) -> tuple[optuna.Study, list[str]]:
    said: list[str] = []
    search.run(spec, CIRCUIT, MATERIAL, 1, where, said.append, workers)
    return search_storage.read_study(where, spec.study), said


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, optuna.Study, list[str]]:
    """Three trials in a database."""
    path = tmp_path_factory.mktemp("search") / "search.db"
    return path, *searched(f"sqlite:///{path}")


def test_trials_hold_their_circuit_and_what_it_measures(finished) -> None:
    _, study, said = finished
    trials = study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    for trial in trials:
        spec = circuit_of(trial.user_attrs["circuit"], "trial")
        assert spec.loop == SHORT
        assert spec.network.dense == tuple(trial.params[f"units_{i + 1}"] for i in range(trial.params["layers"]))
        assert "units_2" in trial.params
        assert (spec.front_end.window, spec.lut_budget) == (trial.params["window"], trial.params["lut_budget"])
        error, luts, latency = trial.values
        assert 0 < error < 0.5
        assert luts > 100
        assert latency > 1
    made, values, _ = search.measure(spec, MATERIAL, 1, SPEC.limit)
    assert list(values) == trials[-1].values
    assert made == {key: trials[-1].user_attrs[key] for key in ("made", "digest")}
    lines = [line for line in said if "of 3" in line]
    assert len(lines) == 3
    assert "error 0." in lines[0]
    assert "LUTs" in lines[0]
    assert "left" in lines[0]


def test_a_finished_study_is_continued_when_more_is_wanted(finished, tmp_path: Path) -> None:
    path = tmp_path / "more.db"
    path.write_bytes(finished[0].read_bytes())
    before = [trial.params for trial in finished[1].get_trials()]
    study, said = searched(f"sqlite:///{path}")
    assert len(study.get_trials()) == 3
    assert "3 trials finished" in said[0]
    study, _ = searched(f"sqlite:///{path}", dataclasses.replace(SPEC, trials=4))
    assert [trial.params for trial in study.get_trials()][:3] == before
    assert len(study.get_trials()) == 4


def test_the_same_seed_chooses_the_same_however_often_interrupted(finished, tmp_path: Path) -> None:
    where = f"journal:{tmp_path / 'search.log'}"
    for trials in (1, 3):
        study, _ = searched(where, dataclasses.replace(SPEC, trials=trials))
    assert [(t.params, t.values) for t in study.get_trials()] == [
        (t.params, t.values) for t in finished[1].get_trials()
    ]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_two_studies_of_one_seed_choose_alike(sampler: str) -> None:
    def chosen(seed: int) -> list[CircuitSpec]:
        study = optuna.create_study(directions=["minimize"] * 3, sampler=NumberedSampler(sampler, seed, 3))
        found = []
        for number in range(9):
            trial = study.ask()
            found.append(choose(trial, SearchSpec(), CIRCUIT))
            study.tell(trial, (found[-1].front_end.window, found[-1].lut_budget, number % 3))
        return found

    assert chosen(3) == chosen(3)
    assert chosen(3) != chosen(4)
    assert len(set(map(str, chosen(3)))) > 5


@pytest.mark.parametrize("budget", [0, 900])
def test_the_first_trial_is_the_circuit_itself_where_it_lies_in_the_space(budget: int, tmp_path: Path) -> None:
    network = CircuitNetworkSpec((), 3, (4,), 5, 6, "layer")
    circuit = CircuitSpec(FrontEndSpec(window=5, centroid="intensity", bits=5), network, lut_budget=budget)
    expected = dataclasses.replace(circuit, float_loop=SHORT, loop=SHORT)
    where, both = f"journal:{tmp_path / 'search.log'}", dataclasses.replace(SPEC, trials=1, budgeted=(True, False))
    search.run(both, circuit, MATERIAL, 1, where, lambda _: None)
    (trial,) = search_storage.read_study(where, "search").get_trials()
    assert circuit_of(trial.user_attrs["circuit"], "trial") == expected
    for outside in (
        dataclasses.replace(circuit, sparsity=0.31),
        dataclasses.replace(circuit, lut_budget=499),
        dataclasses.replace(circuit, network=dataclasses.replace(network, dense=(4, 6))),
        dataclasses.replace(circuit, network=dataclasses.replace(network, conv=(3,))),
        dataclasses.replace(circuit, front_end=dataclasses.replace(circuit.front_end, centroid="none")),
    ):
        assert parameters(both, outside) is None


def test_a_front_end_is_chosen_where_the_table_says_so() -> None:
    """Bits that the squared centroid leaves out, and subtraction; without choices they are those of the circuit."""
    circuit = dataclasses.replace(CIRCUIT, front_end=FrontEndSpec(window=5, discarded_bits=3, subtract=True))
    narrow = dataclasses.replace(SPEC, centroids=("squared", "intensity"), budgeted=(True, False))
    wide = dataclasses.replace(narrow, discarded_bits=(2, 6), subtract=(False, True))
    study = optuna.create_study(directions=["minimize"] * 3, sampler=NumberedSampler("random", 1, 3))
    found = {spec: [choose(study.ask(), spec, circuit).front_end for _ in range(60)] for spec in (narrow, wide)}
    assert {(f.centroid, f.discarded_bits, f.subtract) for f in found[narrow]} == {
        ("squared", 3, True), ("intensity", FrontEndSpec.discarded_bits, True),
    }  # fmt: skip
    assert {(f.discarded_bits, f.subtract) for f in found[wide] if f.centroid == "squared"} == {
        (2, False), (2, True), (6, False), (6, True),
    }  # fmt: skip
    assert {f.discarded_bits for f in found[wide] if f.centroid == "intensity"} == {FrontEndSpec.discarded_bits}
    assert parameters(wide, circuit) is None  # 3 bits are none of the choices
    found_at = parameters(dataclasses.replace(wide, discarded_bits=(3, 4)), circuit)
    assert found_at is not None
    assert (found_at["discarded_bits"], found_at["subtract"]) == (3, True)
    other = dataclasses.replace(circuit, front_end=dataclasses.replace(circuit.front_end, discarded_bits=6))
    assert identity(wide, circuit, MATERIAL.held, 1) == identity(wide, other, MATERIAL.held, 1)
    assert identity(narrow, circuit, MATERIAL.held, 1) != identity(narrow, other, MATERIAL.held, 1)
    assert "subtract" not in identity(narrow, circuit, MATERIAL.held, 1)["search"]


def test_a_trial_that_cannot_be_is_recorded_and_counts(tmp_path: Path) -> None:
    """Windows of 3 px have no room for two convolutions; others are too large for the limit."""
    spec = dataclasses.replace(SPEC, windows=(3,), convolutions=(2, 2))
    study, said = searched(f"sqlite:///{tmp_path / 'a.db'}", spec)
    trials = study.get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL"] * 3
    assert all("2 convolutions of 3 px do not fit a window of 3 px" in trial.user_attrs["reason"] for trial in trials)
    assert "3 refused" in said[-1]
    study, _ = searched(f"sqlite:///{tmp_path / 'b.db'}", dataclasses.replace(SPEC, limit=10, trials=1))
    assert "the limit is 10" in study.get_trials()[0].user_attrs["reason"]


def test_a_circuit_that_is_known_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space of one circuit, and the kernel of a convolution that it has not; then one that is refused."""
    fixed = {"windows": (5,), "widths": ("layer",), "layers": (1, 1), "input_bits": (6, 6), "weight_bits": (6, 6)}
    fixed |= {
        "activation_bits": (6, 6),
        "lut_budget": (900, 900),
        "sparsity": (0.0, 0.0),
        "units": (4, 4),
        "kernels": (1, 3),
    }
    spec = dataclasses.replace(SPEC, **fixed, channel_sparsity=(0.0, 0.0))
    real, calls = search.fit, []
    monkeypatch.setattr(search, "fit", lambda *arguments: calls.append(1) or real(*arguments))
    study, said = searched(f"sqlite:///{tmp_path / 'search.db'}", spec)
    assert len(calls) == 1
    first, second, third = study.get_trials()
    assert first.values == second.values == third.values
    assert (second.user_attrs["again"], third.user_attrs["again"]) == (0, 0)
    assert "trial 2 (trial 0 again)" in "".join(said)
    assert [point.trial for point in pareto.points(study)] == [0]
    study, _ = searched(f"sqlite:///{tmp_path / 'refused.db'}", dataclasses.replace(spec, limit=10))
    reasons = [trial.user_attrs["reason"] for trial in study.get_trials()]
    assert len(calls) == 2
    assert reasons[1] == f"as trial 0: {reasons[0]}"


def test_an_interruption_loses_the_running_trial_alone(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, real, calls = f"sqlite:///{tmp_path / 'search.db'}", search.fit, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(search, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(where)
    study, _ = searched(where)
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.get_trials()[0].values == finished[1].get_trials()[0].values


def worker(where: str, path: str, stuck: bool) -> None:
    """Search in a process of its own, and write to ``path`` what it says; ``stuck``: in the first training."""
    search_watch.BEAT = 0.2
    if stuck:
        search.fit = lambda *_: time.sleep(60)
    Path(path).write_text("\n".join(searched(where)[1]))


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start :func:`worker`: from a server that has imported everything, as the search does."""
    for folder in Path(__file__).parents[:2]:
        monkeypatch.syspath_prepend(folder)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["firmware_sim.search.trials"])
    started = []

    def process(where: str, stuck: bool = False) -> Any:
        said = tmp_path / f"said_{len(started)}.txt"
        started.append(context.Process(target=worker, args=(where, str(said), stuck), daemon=True))
        started[-1].start()
        return started[-1]

    yield process
    for process_ in started:
        process_.kill()
        process_.join()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_processes_share_a_storage_and_one_is_killed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]
) -> None:
    """One begins a trial and is killed with it, another works meanwhile and makes up for it."""
    path = tmp_path / "search.store"
    where = f"sqlite:///{path}" if kind == "sqlite" else f"journal:{path}"
    monkeypatch.setattr(search_watch, "GRACE", 5.0)
    monkeypatch.setattr(search, "_POLL", 0.1)
    stuck = start(where, stuck=True)

    def beats() -> int:
        """Signs of life of the first trial; -1 before it has begun."""
        if not path.exists():
            return -1
        try:
            trials = search_storage.read_study(where, "search").get_trials()
        except UserError:
            return -1
        return trials[0].user_attrs.get("alive", 0) if trials else -1

    def kill() -> None:
        until(lambda: beats() >= 5)
        killed.set()
        stuck.kill()

    until(lambda: beats() >= 0)
    killed = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    study, said = searched(where)
    assert killed.is_set()  # it was waited for as long as it lived
    killer.join()
    trials = study.get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert any("trial 0 is lost" in line for line in said)


def test_two_processes_begin_one_storage_together(tmp_path: Path, start: Callable[..., Any]) -> None:
    where = f"sqlite:///{tmp_path / 'search.db'}"
    both = [start(where) for _ in range(2)]
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0]
    trials = search_storage.read_study(where, "search").get_trials()
    assert all(search.counts(trial) for trial in trials)
    assert len(trials) in (3, 4)  # both may ask for the last one at the same moment
    assert len({json.dumps(trial.params) for trial in trials}) == len(trials)
    said = "".join((tmp_path / f"said_{number}.txt").read_text() for number in range(2))
    assert said.count("of 3  trial") == len(trials)


def test_helpers_work_on_the_same_study(tmp_path: Path) -> None:
    study, _ = searched(f"sqlite:///{tmp_path / 'search.db'}", dataclasses.replace(SPEC, trials=2), workers=2)
    assert all(search.counts(trial) for trial in study.get_trials())


def changed(path: Path, statement: str) -> str:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    return sha256(path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE alembic_version SET version_num = 'v9.9.9.a'", "has optuna's schema v9.9.9.a"),
        ("UPDATE alembic_version SET version_num = 'v2.6.0.a'", "has optuna's schema v2.6.0.a .* needs v3"),
        (
            "UPDATE study_user_attributes SET value_json = replace(value_json, '\"version\": 1', '\"version\": 7') "
            "WHERE key = 'braggnn_edge'",
            "is of version 7 of this search, expected 1",
        ),
        ("DELETE FROM study_user_attributes WHERE key = 'braggnn_edge'", "was not made by a search of circuits"),
    ],
)
def test_a_storage_of_another_version_is_refused_and_left_as_it_is(
    finished, tmp_path: Path, statement: str, message: str
) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(finished[0].read_bytes())
    digest = changed(path, statement)
    for attempt in (searched, lambda where: search_storage.read_study(where, "search")):
        with pytest.raises(UserError, match=f"(?s){message}"):
            attempt(f"sqlite:///{path}")
    assert sha256(path) == digest
    assert sorted(tmp_path.iterdir()) == [path]


def test_another_space_other_peaks_and_another_seed_are_refused(finished, tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(finished[0].read_bytes())
    where, digest = f"sqlite:///{path}", sha256(path)
    longer = dataclasses.replace(SPEC, loop=dataclasses.replace(SHORT, max_iterations=21))
    with pytest.raises(UserError, match=r"other values of \[search\] loop, and its trials cannot be compared"):
        search_storage.open_study(where, "search", named(longer))
    with pytest.raises(UserError, match="other values of seed"):
        search_storage.open_study(where, "search", named(seed=2))
    with pytest.raises(UserError, match="other values of the peaks"):
        search_storage.open_study(where, "search", named() | {"data": peaks_digest(sloping_spots(401, SIZE))})
    penalized = dataclasses.replace(CIRCUIT, lut_penalty=0.02)
    with pytest.raises(UserError, match=r"other values of \[circuit\] lut_penalty"):
        search_storage.open_study(where, "search", identity(SPEC, penalized, MATERIAL.held, 1))
    elsewhere = dataclasses.replace(CIRCUIT, lut_budget=9, loop=LoopSpec(), network=CircuitNetworkSpec(dense=(2,)))
    assert identity(SPEC, elsewhere, MATERIAL.held, 1) == named()  # trials choose these
    assert sha256(path) == digest
    for free in ({"trials": 9}, {"sampler": "random"}, {"map": True}, {"startup": 5}):
        search_storage.open_study(where, "search", named(dataclasses.replace(SPEC, **free)))
    search_storage.open_study(where, "another", named(longer))
    assert len(search_storage.read_study(where, "search").get_trials()) == 3


def test_storages_that_are_something_else_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_storage, "_PATIENCE", 0.3)
    foreign = tmp_path / "foreign.db"
    digest = changed(foreign, "CREATE TABLE things (name TEXT)")
    text, journal = tmp_path / "text.db", tmp_path / "text.log"
    for path in (text, journal):
        path.write_text("no storage\n" * 100)
    for where, message in (
        (f"sqlite:///{foreign}", "holds tables, but not those of a search"),
        (f"sqlite:///{text}", "cannot be read .*not a database"),
        (f"journal:{journal}", "cannot be used"),
        (f"sqlite:///{tmp_path}/none/search.db", "the folder of .* does not exist"),
        ("nothing://me:secret@localhost/x", r"needs a driver that is not installed"),
    ):
        with pytest.raises(UserError, match=f"(?s){message}") as caught:
            search_storage.open_study(where, "search", named())
        assert "secret" not in str(caught.value)
    assert sha256(foreign) == digest
    assert text.read_text() == journal.read_text() == "no storage\n" * 100
    with pytest.raises(UserError, match=r"no study 'search' in .* run `make search` first"):
        search_storage.read_study(f"sqlite:///{tmp_path / 'missing.db'}", "search")
    assert not (tmp_path / "missing.db").exists()


def test_what_a_killed_write_left_is_taken_back(finished, tmp_path: Path) -> None:
    """A process killed within a transaction leaves SQLite's journal beside a file that is half written."""
    path = tmp_path / "search.db"
    path.write_bytes(finished[0].read_bytes())
    script = (
        "import os, sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('PRAGMA cache_size = 1')\n"
        "c.execute('CREATE TABLE big (x)')\nc.execute('BEGIN')\n"
        "c.executemany('INSERT INTO big VALUES (?)', [('y' * 3000,)] * 300)\n"
        "c.execute('UPDATE trials SET number = 99')\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert (tmp_path / "search.db-journal").exists()
    study, _ = searched(f"sqlite:///{path}")
    assert [trial.number for trial in study.get_trials()] == [0, 1, 2]


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folder = tmp_path / "run", tmp_path / "configs"
    assert search_storage.address("", run, folder) == f"sqlite:///{run}/search.db"
    assert search_storage.address("journal:/a/b.log", run, folder) == "journal:/a/b.log"
    assert search_storage.address("journal:b.log", run, folder) == f"journal:{folder}/b.log"
    assert search_storage.address("sqlite:///b.db", run, folder) == f"sqlite:///{folder}/b.db"
    monkeypatch.setenv("WORD", "secret")
    where = search_storage.address("postgresql://me:$WORD@host/trials", run, folder)
    assert where == "postgresql://me:secret@host/trials"
    assert search_storage.shown(where) == "postgresql://me:***@host/trials"
    monkeypatch.setenv("WORD", "a$b")
    assert search_storage.address("postgresql://me:$WORD@host/t", run, folder) == "postgresql://me:a$b@host/t"
    with pytest.raises(UserError, match="uses an environment variable that is not set"):
        search_storage.address("postgresql://me:$UNSET_WORD@host/trials", run, folder)
    for wrong in ("search.db", "journal:", "sqlite:search.db"):
        with pytest.raises(UserError, match="is not understood"):
            search_storage.address(wrong, run, folder)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trials": 0}, "trials 0"),
        ({"startup": 1}, "startup 1"),
        ({"windows": (7, 8)}, "must be odd"),
        ({"widths": ()}, "one or more different"),
        ({"kernels": (3, 3)}, "one or more different"),
        ({"discarded_bits": (4, 4)}, r"discarded_bits \(4, 4\) must be different values, or none"),
        ({"units": (9, 8)}, r"units \[9, 8\] is not a range"),
        ({"weight_bits": (1, 8)}, "within 2 to 8"),
        ({"sparsity": (0.0, 1.0)}, "within 0.0 to 0.99"),
    ],
)
def test_a_space_that_cannot_be_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchSpec(**wrong)


def test_a_circuit_survives_the_storage() -> None:
    spec = dataclasses.replace(CIRCUIT, sparsity=0.1 + 0.2, network=CircuitNetworkSpec((3,), 3, (5, 4)))
    assert circuit_of(json.loads(json.dumps(table_of(spec))), "here") == spec
    with pytest.raises(UserError, match="here: unknown key 'colour'"):
        circuit_of(table_of(spec) | {"colour": 1}, "here")
