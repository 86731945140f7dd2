"""The front of a search: dominance by hand, files of its points, what a point's configuration trains."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from builders import sloping_spots

from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import tables
from braggnn_edge.training.spec import LoopSpec
from firmware_sim.search import figures as search_figures
from firmware_sim.search import pareto, point_file
from firmware_sim.search import storage as search_storage
from firmware_sim.search import trials as search
from firmware_sim.search.material import Material
from firmware_sim.search.space import choose, identity, table_of
from firmware_sim.search.spec import SearchSpec
from quant.contract import locator as locators
from quant.training import compress
from quant.training.circuit_spec import CircuitNetworkSpec, CircuitSpec, FrontEndSpec
from quant.training.examples import Examples

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
SIZE = 9
SHORT = LoopSpec(32, 3e-3, "one_cycle", max_iterations=20, evaluate_every=10, patience=0)
SPEC = SearchSpec(
    trials=2, startup=2, float_loop=SHORT, loop=SHORT, windows=(5,), centroids=("intensity",), convolutions=(0, 0),
    layers=(1, 1), units=(5, 8), widths=("channel", "layer"), budgeted=(True,), lut_budget=(800, 3000),
)  # fmt: skip
CIRCUIT = CircuitSpec(FrontEndSpec(window=5), CircuitNetworkSpec(dense=(4,)))


TABLE = sloping_spots(400, SIZE)
MATERIAL = Material.of_table(TABLE)


def test_dominance_by_hand() -> None:
    values = [
        (0.10, 1000, 20),  # on the front
        (0.08, 2000, 25),  # on the front
        (0.08, 2000, 25),  # its equal stays too
        (0.08, 2000, 26),  # as good as those, slower
        (0.09, 3000, 10),  # worse and larger than the second, but faster
        (0.11, 1500, 30),  # beaten by the first in all
        (0.05, 9000, 40),  # the best
        (0.10, 1000, 21),  # beaten by the first in latency alone
    ]
    assert pareto.non_dominated(values).tolist() == [True, True, True, False, True, False, True, False]
    assert pareto.non_dominated([]).tolist() == []
    assert pareto.non_dominated([(1.0, 2.0, 3.0)]).tolist() == [True]


def test_dominance_is_that_of_optuna() -> None:
    values = np.random.default_rng(1).integers(0, 6, (60, 3)).astype(float)
    study = optuna.create_study(directions=["minimize"] * 3)
    for value in values:
        study.add_trial(optuna.trial.create_trial(values=value.tolist()))
    assert pareto.non_dominated(values).nonzero()[0].tolist() == [trial.number for trial in study.best_trials]


def test_envelope_by_hand() -> None:
    rows = [{"luts": 1, "error": 5}, {"luts": 2, "error": 6}, {"luts": 3, "error": 4}, {"luts": 3, "error": 3}]
    assert [(row["luts"], row["error"]) for row in search_figures.lower_envelope(rows)] == [(1, 5), (3, 3)]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that extends one of the project's, with a circuit of its own."""
    path = tmp_path_factory.mktemp("configs") / "scene.toml"
    path.write_text(
        f'extends = "{ROOT}/configs/smoke.toml"\nseed = 1\n[circuit]\nsparsity = 0.9\nshift = 1\n'
        "network = { dense = [7] }\n"
    )
    return path


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_every_circuit_survives_its_file(sampler: str, scenario: Path, tmp_path: Path) -> None:
    wide = SearchSpec(convolutions=(0, 2), layers=(0, 3), kernels=(1, 3), windows=(5, 7, 9))
    study = optuna.create_study(directions=["minimize"] * 3)
    for number in range(12):
        trial = study.ask()
        circuit = choose(trial, wide, dataclasses.replace(CIRCUIT, lut_penalty=1e-5, teacher=0.1 + 0.2))
        study.tell(trial, (number, 1, 1))
        path = tmp_path / "point.toml"
        point_file.write(path, scenario, "scene", 5, circuit, ("A comment.",))
        found = config.load(path, tables())
        assert found["circuit"] == circuit
        assert (found.name, found.seed) == ("scene", 5)
        assert found.folder == scenario.parent  # where relative paths of the scenario start from
        assert found["scan"] == config.load(scenario, tables())["scan"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with two real trials, three by hand, one refused and one lost."""
    where = f"sqlite:///{tmp_path_factory.mktemp('run')}/search.db"
    search.run(SPEC, CIRCUIT, MATERIAL, 1, where, lambda _: None)
    study = search_storage.read_study(where, "search")
    for values in ((0.3, 1e6, 99.0), (1e-5, 2e6, 99.0), (0.9, 10.0, 1.0)):
        attributes = {"circuit": table_of(dataclasses.replace(CIRCUIT, sparsity=0.25)), "figures": {"p50": 0.1}}
        study.add_trial(optuna.trial.create_trial(values=list(values), user_attrs=attributes))
    for attributes in ({"reason": "no room"}, {}):
        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs=attributes))
    return where


def test_stage_writes_the_front(run: str, scenario: Path, tmp_path: Path) -> None:
    said: list[str] = []
    mapped = dataclasses.replace(SPEC, map=True)
    document = pareto.run(
        mapped,
        CIRCUIT,
        MATERIAL.held,
        {"float": 0.125},
        1,
        run,
        scenario,
        "scene",
        tmp_path,
        said.append,
        lambda made: made.window,
    )
    assert json.loads((tmp_path / "pareto.json").read_text()) == document
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
    points = document["points"]
    states = [trial.state.name for trial in search_storage.read_study(run, "search").get_trials()]
    finished = {number for number, state in enumerate(states) if state == "COMPLETE"}
    assert {row["trial"] for row in points} | {row["trial"] for row in document["dominated"]} == finished
    assert points[0]["trial"] in (0, 1)
    assert {2, 4} <= {row["trial"] for row in document["dominated"]}  # 4 is small, and worse than the squared centroid
    assert points[-1]["trial"] == 3
    assert points == sorted(points, key=lambda row: row["luts"])
    assert document["refused"][-1] == {"trial": 5, "reason": "no room"}
    assert document["references_px"] == {"centre_of_mass_squared": MATERIAL.held.bar, "float": 0.125}
    assert said[-1] == f"pareto: {len(points)} points of {len(finished)} finished trials: beaten by no other one"
    for row in points:
        spec = config.load(tmp_path / "configs" / f"{row['name']}.toml", tables())["circuit"]
        stored = tmp_path / "circuits" / f"{row['name']}.json"
        if row["trial"] == 3:
            assert spec == dataclasses.replace(CIRCUIT, sparsity=0.25)
            assert not stored.exists()
            assert "mapped_luts" not in row
        else:
            assert locators.load(stored).digest == row["digest"]
            assert row["mapped_luts"] == 5


def test_a_points_configuration_trains_the_same_circuit(run: str, scenario: Path, tmp_path: Path) -> None:
    document = pareto.run(SPEC, CIRCUIT, MATERIAL.held, {}, 1, run, scenario, "scene", tmp_path, lambda _: None)
    row = document["points"][0]
    loaded = config.load(tmp_path / "configs" / f"{row['name']}.toml", tables())
    compress.run(Examples.of_table(TABLE), loaded["circuit"], None, loaded.seed, tmp_path, lambda _: None)
    assert locators.load(tmp_path / "locator.json").digest == row["digest"]
    trained = json.loads((tmp_path / "circuit_training.json").read_text())["circuit"]
    assert trained == {"score": row["error"]} | {key: row[key] for key in ("p50", "p75", "p95")}


def test_a_front_of_nothing_or_of_another_search_is_refused(run: str, scenario: Path, tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path / 'search.db'}"
    search_storage.open_study(where, "search", identity(SPEC, CIRCUIT, MATERIAL.held, 1))

    def front(spec: SearchSpec, where: str) -> None:
        pareto.run(spec, CIRCUIT, MATERIAL.held, {}, 1, where, scenario, "scene", tmp_path, lambda _: None)

    with pytest.raises(UserError, match="no trial of study 'search' is finished"):
        front(SPEC, where)
    with pytest.raises(UserError, match=r"other values of \[search\] units"):
        front(dataclasses.replace(SPEC, units=(5, 9)), run)
    assert not (tmp_path / "pareto.json").exists()
    study = search_storage.read_study(where, "search")
    study.add_trial(optuna.trial.create_trial(values=[9.0, 1.0, 1.0], user_attrs={"circuit": table_of(CIRCUIT)}))
    front(SPEC, where)  # where none is better than the squared centroid, the front is of all
    assert [row["trial"] for row in json.loads((tmp_path / "pareto.json").read_text())["points"]] == [0]


def test_the_fingerprint_follows_the_trials(run: str, tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(Path(run.removeprefix("sqlite:///")).read_bytes())
    where = f"sqlite:///{path}"
    before = pareto.fingerprint(SPEC, where)
    assert before == pareto.fingerprint(SPEC, run)
    study = search_storage.read_study(where, "search")
    study.ask()
    assert pareto.fingerprint(SPEC, where) == before
    study.add_trial(optuna.trial.create_trial(values=[1.0, 2.0, 3.0]))
    assert pareto.fingerprint(SPEC, where) != before
