"""The stage that compares all forms: each form that there is of a locator, and what happens if one differs."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PEAK, PeakTable
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from firmware_sim.forms import form, software
from firmware_sim.forms.compare import Comparison, Mismatch
from firmware_sim.forms.form import FORMS, Answer, Form, Setting
from firmware_sim.front_end.project import Simulated
from firmware_sim.verification import verify
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.locator import IntegerLocator
from quant.contract.normalize import Normalizer
from quant.exchange.circuit_qonnx import export_network

torch.set_num_threads(1)
PATCHES = 60


def table(size: int) -> PeakTable:
    """Counts of 20 peaks, every second one of the test set."""
    rng = np.random.default_rng(1)
    peaks = np.zeros(20, PEAK)
    peaks["split"][::2] = TEST
    return PeakTable(peaks, rng.poisson(200, (20, size, size)).astype(np.uint16), ("scan",), size, 0)


@pytest.fixture(params=["circuit", "compact", "sigma"])
def context(
    request: pytest.FixtureRequest,
    random_circuit: Callable[..., IntegerLocator],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Context:
    """A run whose stages before the comparison are finished, without their training; the forms in Python alone."""
    circuit = random_circuit(5, sigma=request.param == "sigma")
    locator = circuit
    if request.param == "compact":
        locator = locators.of_layers(circuit.network, Normalizer(circuit.normalizer.bits, 9))
    run = tmp_path / "run"
    (run / "qat").mkdir(parents=True)
    locators.save(locator, run / "qat/locator.json")
    export_network(locator.network, run / "qat/model.onnx")
    size = locator.size
    monkeypatch.setattr(verify, "load_table", lambda path: table(size))
    monkeypatch.setattr(verify.train, "load_network", lambda *_: BraggNN(NetworkSpec((2, 2), (2,), False), 9))
    monkeypatch.setattr(verify.train, "predict", lambda net, patches: np.zeros((len(patches), 2)))
    trained: Callable[[Codes], Codes] = lambda codes: emulate.run(locator.network, codes).outputs  # noqa: E731
    monkeypatch.setattr(verify, "trained_outputs", lambda context: trained)
    monkeypatch.setattr(form, "FORMS", tuple(entry for entry in FORMS if entry.name in ("quantized", "qonnx")))
    kind = "compact" if request.param == "compact" else "circuit"
    (tmp_path / "a.toml").write_text(
        f'[[scan]]\nname = "scan"\n[qat]\nnetwork = "{kind}"\n[csim]\npatches = {PATCHES}\nsoftware = 40\n'
    )
    cfg = config.load(tmp_path / "a.toml", stages.tables())
    return Context(cfg, tmp_path / "a.toml", run, 1, lambda _: None)


def results(directory: Path) -> dict:
    return json.loads((directory / "results.json").read_text())["bit_exact"]


def test_forms_that_agree_are_counted(context: Context, tmp_path: Path) -> None:
    verify.work(context, tmp_path)
    found = results(tmp_path)
    assert set(found) == {"quantized/integer", "qonnx/integer"}
    assert all(entry["wrong"] == 0 for entry in found.values())
    assert found["quantized/integer"]["patches"] > PATCHES
    assert found["qonnx/integer"]["patches"] == 40
    locator = locators.load(context.run / "qat/locator.json")
    with np.load(tmp_path / "predictions.npz") as file:
        assert np.array_equal(file["quantized"], locator.locate(table_of_test(context)))
        knows = {"quantized/sigma", "quantized/wide"} if locator.outputs == 4 else set()
        assert {name for name in file.files if "/" in name} == knows
        if knows:
            expected = locator.locate_with_intervals(table_of_test(context))[1:]
            assert np.array_equal((file["quantized/sigma"], file["quantized/wide"]), expected)


def table_of_test(context: Context) -> np.ndarray:
    return table(locators.load(context.run / "qat/locator.json").size).of(TEST).patches()


def registered(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Setting], Answer], **kinds: bool) -> None:
    """One more form in the registry, called "added"."""

    def answers(setting: Setting) -> Iterator[Answer]:
        yield answer(setting)

    monkeypatch.setattr(software, "added", answers, raising=False)
    monkeypatch.setattr(form, "FORMS", (*form.FORMS, Form("added", "firmware_sim.forms.software:added", **kinds)))


def right(setting: Setting) -> Answer:
    """What the integers say of every third patch, from the last to the first."""
    rows = np.arange(len(setting.codes))[::-3]
    return Answer("added", rows, setting.locator.run(setting.codes[rows]))


def one_code(setting: Setting) -> Answer:
    found = right(setting)
    outputs = found.outputs.copy()
    outputs[5, 1] += 1
    return dataclasses.replace(found, outputs=outputs)


def hidden_step(setting: Setting) -> Answer:
    return dataclasses.replace(right(setting), wrong=2)


def named_step(setting: Setting) -> Answer:
    return dataclasses.replace(
        right(setting), steps={"step of added": Comparison(7, 1, (), Mismatch("s", 0, (), 1, 2))}
    )


def test_a_form_that_is_added_is_compared(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, right)
    verify.work(context, tmp_path)
    found = results(tmp_path)
    assert set(found) == {"quantized/integer", "qonnx/integer", "added/integer"}
    patches = found["quantized/integer"]["patches"]
    assert found["added/integer"] == {"patches": -(-patches // 3), "wrong": 0}


def test_a_form_of_other_locators_is_left_out(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = context.cfg["qat"].is_circuit
    registered(monkeypatch, one_code, circuits=not circuit, layers=circuit)
    verify.work(context, tmp_path)
    assert set(results(tmp_path)) == {"quantized/integer", "qonnx/integer"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (one_code, r"forms differ: added/integer: 1 of \d+ patches$"),
        (hidden_step, r"forms differ: added/integer: 2 of \d+ patches$"),
        (named_step, r"forms differ: step of added/integer: 1 of 7 patches$"),
    ],
)
def test_a_form_with_a_wrong_code_fails_the_stage_by_its_name(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Setting], Answer], message: str
) -> None:
    registered(monkeypatch, answer)
    with pytest.raises(UserError, match=message):
        verify.work(context, tmp_path)
    assert results(tmp_path)["quantized/integer"]["wrong"] == 0  # what was found stays


@pytest.mark.parametrize("name", ["quantized", "qonnx"])
def test_a_wrong_code_of_a_form_in_python_is_found(
    name: str, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(setting: Setting) -> Iterator[Answer]:
        for answer in kept(setting):
            answer.outputs[-1, 0] ^= 1
            yield answer

    kept = getattr(software, name)
    monkeypatch.setattr(software, name, spoilt)
    with pytest.raises(UserError, match=rf"forms differ: {name}/integer: 1 of \d+ patches$"):
        verify.work(context, tmp_path)


def test_every_kind_of_locator_has_its_forms() -> None:
    names = [entry.name for entry in FORMS]
    assert len(set(names)) == len(names)
    assert [entry.name for entry in FORMS if entry.layers] == ["quantized", "qonnx", "csim"]
    assert [entry.name for entry in FORMS if entry.circuits] == ["quantized", "qonnx", "csim", "rtl", "netlist"]
    for entry in FORMS:
        assert callable(stages.resolve(entry.answers))


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_front_end_that_the_rtl_stage_wrote_is_simulated(
    wrong: int, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result is kept; records that differ fail the stage. A network of layers has none."""
    project = context.run / "rtl" / "front_end"
    project.mkdir(parents=True)
    asked: list[Path] = []

    def simulated(given: Path, *_: object) -> Simulated:
        asked.append(given)
        return Simulated(4, 30, 174, wrong, "vector faults: what differs" if wrong else "")

    monkeypatch.setattr(verify, "simulate", simulated)
    circuit = context.cfg["qat"].is_circuit
    if circuit and wrong:
        with pytest.raises(UserError, match="the front end's records differ: vector faults: what differs"):
            verify.work(context, tmp_path)
    else:
        verify.work(context, tmp_path)
    assert asked == ([project] if circuit else [])
    document = json.loads((tmp_path / "results.json").read_text())
    assert document.get("front_end", {}).get("wrong") == (wrong if circuit else None)
