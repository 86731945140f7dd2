"""A search whose trials learn from patches of the family: what they are trained and judged on, and its front."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, tables
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.simulation import family
from firmware_sim.search import material, pareto, trials
from firmware_sim.search import storage as search_storage
from firmware_sim.search.material import HeldOut
from quant.contract import locator as locators

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
ENDS = 'schedule = "one_cycle", max_iterations = 400, evaluate_every = 400, patience = 0'
FLOAT_LOOP, LOOP = (f"{{ batch = 64, learning_rate = {rate}, {ENDS} }}" for rate in (3e-3, 1e-3))
#: Bright spots on a high background, which pulls the integer centroid to the middle: a short training is better.
SCENARIO = f"""
extends = "{ROOT}/configs/demo.toml"
name = "tiny"
seed = 4
[family]
fwhm = [0.7, 3.5]
heights = [1000.0, 10_000.0]
background = [100.0, 200.0]
dark = 0.0
neighbours = 0.0
zero_suppressed = 0.0
[qat]
network = "circuit"
[circuit]
source = "family"
patches = 1500
validation = 1000
sigma = true
teacher = 1.0
front_end = {{ window = 7, bits = 6, exponent = true, discarded_bits = 2 }}
network = {{ dense = [12] }}
[search]
trials = 1
float_loop = {FLOAT_LOOP}
loop = {LOOP}
windows = [7]
centroids = ["squared"]
convolutions = [0, 0]
layers = [1, 1]
budgeted = [false]
sparsity = [0.0, 0.0]
channel_sparsity = [0.0, 0.0]
units = [12, 12]
widths = ["channel"]
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("family")
    scenario = folder / "tiny.toml"
    scenario.write_text(SCENARIO)
    (folder / "run").mkdir()
    return Context(config.load(scenario, tables()), scenario, folder / "run", 1, lambda _: None)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "SHARD", 500)  # drawn a quarter of a shard at a time; these tests want few
    monkeypatch.setattr(trials, "ORDERS", 1)  # tried by the tracing of a circuit


def changed(context: Context, table: str, **values) -> Context:
    sections = {**context.cfg.sections, table: dataclasses.replace(context.cfg[table], **values)}
    return dataclasses.replace(context, cfg=dataclasses.replace(context.cfg, sections=sections))


def test_a_search_on_the_family_and_its_front(context: Context, tmp_path: Path) -> None:
    """A trial with sigma and exponent; its error is that of the stored circuit on the patches held out."""
    trials.work(context)
    (trial,) = search_storage.read_study(f"sqlite:///{context.run / 'search.db'}", "search").get_trials()
    assert trial.state.name == "COMPLETE", trial.user_attrs
    pareto.work(context, tmp_path)
    document = json.loads((tmp_path / "pareto.json").read_text())
    (row,) = document["points"]
    made = locators.load(tmp_path / "circuits" / "point_01.json")
    assert (made.outputs, made.network.exponent, made.digest) == (4, 16, row["digest"])
    found = material.material(context)
    assert (len(found.examples.data), len(found.held.patches)) == (1503, 1000)  # 3 of them without counts
    assert found.examples.data.offsets.shape[1] == 4  # the truth, and the answers of the network that teaches
    error = distances(made.locate(found.held.patches), found.held.offsets).mean()
    assert row["error"] == pytest.approx(float(error), rel=1e-12)
    assert document["references_px"]["centre_of_mass_squared"] == found.held.bar
    assert document["references_px"]["universal"] < row["error"]
    again = config.load(tmp_path / "configs" / "point_01.toml", tables())
    assert (again["circuit"].source, again["circuit"].sigma, again["family"].fwhm) == ("family", True, (0.7, 3.5))
    narrower = changed(context, "family", fwhm=(0.7, 3.0))
    with pytest.raises(UserError, match="other values of the peaks"):
        pareto.work(narrower, tmp_path)


def test_trials_are_comparable_on_the_same_patches_and_teacher_alone(context: Context) -> None:
    drawn, circuit = context.cfg["family"], context.cfg["circuit"]
    named = HeldOut.of_family(drawn, circuit, 4)
    same = HeldOut.of_family(drawn, circuit, 4)
    assert (named.data, named.teacher) == (same.data, same.teacher)
    assert HeldOut.of_family(drawn, circuit, 5).data != named.data
    assert HeldOut.of_family(dataclasses.replace(drawn, neighbours=0.2), circuit, 4).data != named.data
    assert HeldOut.of_family(drawn, dataclasses.replace(circuit, teacher=0.0), 4).teacher is None
