"""Golden digests: the codes of every form of two committed networks, and the sources written for them, stay the same.

tests/golden/remake.py computes the digests and says which may change, and why.
"""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).with_name("golden")


def _load_remake() -> Any:
    """tests/golden/remake.py as a module: tests are no package."""
    spec = importlib.util.spec_from_file_location("golden_remake", FOLDER / "remake.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


remake = _load_remake()
WANTED = json.loads(remake.DIGESTS.read_text())
#: Groups of codes; the others are of sources and bytes.
CODES = ("emulator", "qonnx", "qdq", "csim", "rtlsim")


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return remake.Golden(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("group", remake.GROUPS)
def test_digests_are_those_committed(group, golden):
    if group == "csim" and shutil.which("g++") is None:
        pytest.skip("needs g++")
    found = remake.GROUPS[group](golden)
    made_with = [f"{name} {WANTED['versions'][name]}" for name in remake.changed(WANTED["versions"], remake.versions())]
    assert remake.changed(WANTED[group], found) == [], f"see tests/golden/remake.py; made with other {made_with}"


def test_digests_cover_every_group():
    assert set(WANTED) == {"versions", *remake.GROUPS}
    assert all(WANTED[group] for group in WANTED)


@pytest.mark.parametrize("kind", ["layered.outputs", "circuit.outputs", "circuit.offsets"])
def test_forms_agree_with_each_other(kind):
    network, _, what = kind.partition(".")
    found = {
        f"{group}: {name}": value
        for group in CODES
        for name, value in WANTED[group].items()
        if name.startswith(network) and name.endswith(what)
    }
    assert len(found) >= 2
    assert set(found.values()) == {WANTED["emulator"][kind]}, found


def test_compiled_normalizers_agree_with_the_integer_ones():
    for name, value in WANTED["csim"].items():
        if name.endswith("normalizer"):
            assert value == WANTED["normalizer"][f"{name.partition('.')[0]}.normalizer"], name


@pytest.mark.parametrize(("network", "unit"), [("layered", 1), ("circuit", 0)])  # units that are not dead
def test_a_changed_weight_is_seen(network, unit, tmp_path):
    for path in FOLDER.glob("*.json"):
        shutil.copy(path, tmp_path)
    document = json.loads((tmp_path / f"{network}.json").read_text())
    layers = document["layers"] if network == "layered" else document["network"]["layers"]
    last = [layer for layer in layers if "weight" in layer][-1]
    last["weight"][0][unit] += 1 if last["weight"][0][unit] <= 0 else -1
    (tmp_path / f"{network}.json").write_text(json.dumps(document))
    found = remake.changed(WANTED["emulator"], remake.Golden(tmp_path, tmp_path).emulator())
    assert f"{network}.outputs" in found
    assert all(name.startswith(network) for name in found)
    assert f"{network}.flatten" not in found  # before the changed layer


def test_a_digest_distinguishes():
    codes = np.arange(12).reshape(3, 4)
    changes = [codes + (codes == 7), codes.T, codes.reshape(4, 3), codes[::-1], -codes, codes[:, :3]]
    digests = {remake.digest(change) for change in (codes, *changes)}
    assert len(digests) == len(changes) + 1
    same = [codes.astype(np.int32), np.asfortranarray(codes), codes.astype(">i8"), codes[::-1][::-1]]
    assert {remake.digest(change) for change in same} == {remake.digest(codes)}
    with pytest.raises(TypeError, match="float64, expected integers"):
        remake.digest(codes / 1.0)
