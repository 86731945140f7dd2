"""``auto``: which form is taken, what is remembered and when it is measured anew, and that it changes no result."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from braggnn_edge.core import compiler, machine
from braggnn_edge.core.errors import UserError
from braggnn_edge.locate import choice, float_forms
from braggnn_edge.locate.choice import fastest
from braggnn_edge.locate.float_forms import float_locator
from braggnn_edge.locate.locator import Locator, Patches
from braggnn_edge.locate.networks import open_network
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from quant.contract import locator as locators
from quant.exchange import locators as integer_forms
from quant.exchange.locators import emulator_locator, integer_locator

SIZE = 9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, with the libraries of the user's: nothing is compiled again."""
    mine, theirs = tmp_path / "cache" / "braggnn-edge", compiler.cache_folder()
    mine.mkdir(parents=True)
    for library in theirs.glob("*.so"):
        os.symlink(library, mine / library.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(mine.parent))
    return mine


class Forms:
    """Forms whose rates are set, and which count how often they were opened. All answer the mean, plus ``error``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **rates: float) -> None:
        self.rates, self.error, self.broken = rates, dict.fromkeys(rates, 0.0), set[str]()
        self.opened: list[str] = []
        monkeypatch.setattr(choice, "_rate", lambda locator, *_: self.rates[locator.name])

    def open(self, name: str, threads: int) -> Locator:
        self.threads = threads
        self.opened.append(name)
        if name in self.broken:
            raise UserError(f"there is no {name} here\nwith details")
        return Locator(name, SIZE, lambda block: self.exact(block) + self.error[name], "float32", "CPU")

    @staticmethod
    def exact(patches: Patches) -> np.ndarray:
        return np.repeat(patches.mean(axis=(1, 2))[:, None], 2, axis=1)

    def fastest(self, network: str = "a", threads: int = 1, tolerance: float = 1e-6) -> Locator:
        forms: dict[str, Callable[[int], Locator]] = {name: partial(self.open, name) for name in self.rates}
        return fastest(forms, network, SIZE, threads, self.exact, tolerance)


def test_the_fastest_is_taken_and_the_first_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = Forms(monkeypatch, one=1000.0, two=1040.0, three=400.0)
    assert forms.fastest("near").form == "one"
    forms.rates["two"] = 1060.0
    found = forms.fastest("far")
    assert (found.name, found.form) == ("two", "two")
    assert found.remark == "two, of one 1,000, two 1,060, three 400 patches/s and thread here"
    forms.rates["three"] = 5000.0
    assert forms.fastest("farther").form == "three"


def test_forms_that_fail_or_are_wrong_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = Forms(monkeypatch, one=100.0, two=900.0, three=800.0, four=300.0)
    forms.broken.add("two")
    forms.error["three"] = 2e-6
    found = forms.fastest()
    assert found.form == "four"
    assert found.remark.startswith(
        "four, of one 100, four 300 patches/s and thread here; two left out: there is no two here; three "
    )
    assert "three left out: its positions differ by 2.0e-06 px" in found.remark
    forms.error["four"] = float("nan")
    found = forms.fastest("another")
    assert (found.form, found.remark.partition(";")[0]) == ("one", "one, the only form here")
    forms.error["one"] = 1.0
    with pytest.raises(UserError, match="there is no two here"):
        forms.fastest("a third")
    forms.broken.clear()
    forms.error = dict.fromkeys(forms.rates, 1.0)
    with pytest.raises(UserError, match=r"no form of this network is within 1e-06 px .*one: its positions differ"):
        forms.fastest("a third")


def test_a_choice_is_remembered_for_what_it_depends_on(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    forms = Forms(monkeypatch, one=1000.0, two=2000.0)
    assert forms.fastest().form == "two"
    forms.rates["one"], forms.opened = 9000.0, []
    again = forms.fastest()
    assert (again.form, forms.opened) == ("two", ["two"])
    assert again.remark == "two, of one 1,000, two 2,000 patches/s and thread here"
    assert forms.fastest("b").form == "one"
    assert forms.fastest("b", threads=2).form == "one"
    assert forms.threads == 2  # measured with one, and opened for those that are asked for
    forms.fastest("c", threads=3)
    assert forms.threads == 3
    for module, name, value in (
        (choice, "processor", lambda: machine.Processor("another", ("sse2",))),
        (choice, "compiler_version", lambda: "99.0"),
        (choice.environment, "versions", lambda: (("torch", "99.0"),)),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, value)
            assert forms.fastest().form == "one", name
    assert forms.fastest().form == "two"
    assert len(list(cache.glob("choice-*.json"))) == 6
    assert not [path for path in cache.iterdir() if path.suffix != ".so" and not path.name.startswith("choice-")]


@pytest.mark.parametrize("damage", ["", "{", "[1]", "null", '{"form": "two"}', "other form", "other key", "binary"])
def test_a_damaged_choice_is_measured_anew(monkeypatch: pytest.MonkeyPatch, cache: Path, damage: str) -> None:
    forms = Forms(monkeypatch, one=1000.0, two=2000.0)
    forms.fastest()
    (path,) = cache.glob("choice-*.json")
    document = json.loads(path.read_text())
    if damage == "binary":
        path.write_bytes(b"\xff\xfe\x00" * 20)
    elif damage == "other form":
        path.write_text(json.dumps(document | {"form": "three"}))
    elif damage == "other key":
        path.write_text(json.dumps(document | {"key": {**document["key"], "network": "z"}}))
    else:
        path.write_text(damage)
    forms.rates["one"] = 9000.0
    assert forms.fastest().form == "one"
    assert json.loads(path.read_text())["form"] == "one"


def test_a_remembered_form_that_no_longer_runs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = Forms(monkeypatch, one=1000.0, two=2000.0)
    assert forms.fastest().form == "two"
    forms.broken.add("two")
    assert forms.fastest().form == "one"


def test_a_cache_that_cannot_be_written_costs_a_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(choice, "cache_folder", lambda: tmp_path / "file" / "braggnn-edge")
    forms = Forms(monkeypatch, one=1000.0, two=2000.0)
    assert [forms.fastest().form for _ in range(2)] == ["two", "two"]
    assert forms.opened == ["one", "two"] * 2
    monkeypatch.setattr(choice, "cache_folder", lambda: tmp_path / "none")
    assert forms.fastest().form == "two"


def float_network(**spec: object) -> BraggNN:
    torch.manual_seed(3)
    settings = {"conv": (7, 3), "dense": (5,), "attention": False, "slope": 0.0} | spec
    return BraggNN(NetworkSpec(**settings), SIZE).eval()


def test_every_choice_of_a_float_network_gives_the_same_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    net, patches = float_network(centroid=True), choice.spots(300, SIZE)
    exact = float_locator(net, "torch", precision="float64").locate(patches)
    chosen = []
    monkeypatch.setattr(choice, "_remembered", lambda *_: None)
    for wanted in float_forms.CANDIDATES:
        # The one that is wanted is made to look fast: whatever the machine's load makes of it, it is right.
        rate = lambda locator, *_, wanted=wanted: 2000.0 if locator.name == wanted else 1000.0  # noqa: E731
        monkeypatch.setattr(choice, "_rate", rate)
        found = float_locator(net, threads=2)
        chosen.append(found.form)
        assert np.abs(found.locate(patches) - exact).max() < float_forms.NEAR
        assert np.array_equal(found.locate(patches), float_locator(net, wanted).locate(patches))
    assert chosen == list(float_forms.CANDIDATES)


def test_auto_measures_for_real_and_says_so() -> None:
    net = float_network()
    found = float_locator(net, threads=1)
    assert found.form in float_forms.CANDIDATES
    assert all(f"{name} " in found.remark for name in float_forms.CANDIDATES)
    assert float_locator(net, found.form).remark == ""
    with pytest.raises(
        UserError, match="chooses among float32 forms on the CPU, not float16 on cpu; name one of compiled"
    ):
        float_locator(net, precision="float16")


def test_pooled_attention_has_torch_alone() -> None:
    found = float_locator(float_network(attention=True, attention_channels=2, attention_pool=7), threads=1)
    assert found.form == "torch"
    assert found.remark.startswith("torch, the only form here; compiled left out: attention_pool 7: ")


def test_digests_are_of_weights_and_kind() -> None:
    net, other, slope = float_network(), float_network(), float_network(slope=0.5)
    assert float_forms.digest(net) == float_forms.digest(other)
    assert float_forms.digest(net) != float_forms.digest(slope)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    assert float_forms.digest(net) != float_forms.digest(other)


def test_every_form_of_integers_gives_the_same_codes(
    random_circuit: Callable[..., locators.IntegerLocator], tmp_path: Path
) -> None:
    locator = random_circuit(7, sigma=True, hidden=(6, 5))
    path = tmp_path / "locator.json"
    locators.save(locator, path)
    patches = choice.spots(200, locator.size)
    wanted = np.concatenate(locator.locate_with_intervals(patches), axis=1)
    for backend in ("auto", *integer_forms.FORMS):
        found = open_network(path, backend, threads=1)
        assert found.exact
        assert np.array_equal(np.concatenate(found.locate_with_intervals(patches), axis=1), wanted), backend
        assert backend in (found.form, "auto")
    assert integer_locator(locator).form in integer_forms.FORMS
    assert emulator_locator(locator).form == "emulator"


def test_an_integer_form_with_other_codes_is_left_out(
    random_circuit: Callable[..., locators.IntegerLocator], monkeypatch: pytest.MonkeyPatch
) -> None:
    locator = random_circuit(7)

    def wrong(given: locators.IntegerLocator, threads: int) -> Locator:
        step = 0.5**given.output.frac  # one code
        return Locator("wrong", given.size, lambda block: given.locate(block) + step, "integer", "CPU")

    monkeypatch.setitem(integer_forms.FORMS, "wrong", wrong)
    found = integer_locator(locator)
    assert found.form != "wrong"
    assert "wrong left out: its positions differ" in found.remark


def test_forms_that_there_are_not_are_refused(random_circuit: Callable[..., locators.IntegerLocator]) -> None:
    with pytest.raises(UserError, match="backend 'eager' is unknown for a network of integers; expected one of auto, "):
        integer_locator(random_circuit(5), backend="eager")
    with pytest.raises(UserError, match="backend 'emulator' is unknown; expected one of auto, compiled"):
        float_locator(float_network(), "emulator")
    with pytest.raises(UserError, match="backend 'compiled': the float universal network has one form, torch; leave"):
        open_network("universal", "compiled")
    assert open_network("universal", "torch").form == open_network("universal").form == "torch"


def test_the_processor_has_a_name_and_its_instruction_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = machine.processor()
    assert found.name
    assert found.flags == tuple(sorted(found.flags))
    about = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", about)
    assert machine.processor().name  # another system
    about.write_text("processor\t: 0\nmodel name\t: One: fast\nflags\t\t: b a a\n\nprocessor\t: 1\nflags\t: c\n")
    assert machine.processor() == machine.Processor("One: fast", ("a", "b"))
    about.write_text("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n")
    assert machine.processor() == machine.Processor("0x41 0xd0c", ("asimd", "fp"))
