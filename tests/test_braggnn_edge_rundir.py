"""Stages run when they must, say why, finish whole or not at all, and lose nothing that was finished."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braggnn_edge.core import rundir
from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import Stage, execute, locked, manifest_of, write_json


class Bench:
    """A run directory with what its stages said and how often they worked."""

    def __init__(self, run: Path) -> None:
        self.run, self.said, self.worked = run, [], []
        run.mkdir(parents=True)

    def go(
        self,
        name: str = "a",
        needs: tuple[str, ...] = (),
        files: tuple[Path, ...] = (),
        text: str = "1",
        **settings: Any,
    ) -> bool:
        def work(out: Path) -> None:
            self.worked.append(name)
            (out / "sub").mkdir(exist_ok=True)
            (out / "result.txt").write_text(text)
            (out / "sub" / "more.txt").write_text("more")

        return execute(self.run, Stage(name, needs, settings, files, work), self.said.append)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "runs" / "r")


def test_first_run_and_manifest(bench: Bench) -> None:
    assert bench.go(seed=3, widths=(1, 2))
    assert bench.said[0] == "a: runs for the first time"
    manifest = manifest_of(bench.run, "a")
    assert manifest["configuration"] == {"seed": 3, "widths": [1, 2]}
    assert manifest["seed"] == 3
    assert manifest["outputs"] == {
        "result.txt": sha256(bench.run / "a/result.txt"),
        "sub/more.txt": sha256(bench.run / "a/sub/more.txt"),
    }
    assert {"stage", "inputs", "git_commit", "python", "packages", "wall_seconds"} <= set(manifest)
    assert str(bench.run.parent) not in (bench.run / "a/manifest.json").read_text()
    assert sorted(p.name for p in (bench.run / "a").iterdir()) == ["manifest.json", "result.txt", "sub"]
    assert not (bench.run / "a.partial").exists()


def test_unchanged_stage_is_not_run_again(bench: Bench) -> None:
    bench.go(x=1, pair=(1, 2))
    assert not bench.go(x=1, pair=(1, 2))
    assert bench.worked == ["a"]
    assert bench.said[-1] == "a: up to date"


def test_changed_configuration_says_which_key_and_keeps_the_old_result(bench: Bench) -> None:
    bench.go(text="old", x=1, y=1)
    assert bench.go(text="new", x=2, y=1)
    assert "a: runs again: configuration changed (x)" in bench.said
    assert "a: the previous result is kept as a.old-1" in bench.said
    bench.go(text="newer", x=3, y=1)
    assert [(bench.run / f / "result.txt").read_text() for f in ("a.old-1", "a.old-2", "a")] == ["old", "new", "newer"]


def test_added_and_removed_keys_are_changes(bench: Bench) -> None:
    bench.go(x=1)
    assert bench.go(x=1, y=0)
    assert bench.go(x=1)


def test_changed_input_of_an_earlier_stage(bench: Bench) -> None:
    bench.go("a", text="1")
    bench.go("b", ("a",))
    bench.go("a", text="2", x=1)
    assert bench.go("b", ("a",))
    assert "b: runs again: inputs changed (a/result.txt)" in bench.said
    # The earlier stage ran again but wrote the same: nothing to do.
    bench.go("a", text="2", x=2)
    assert not bench.go("b", ("a",))


def test_external_file(bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "frames.h5"
    with pytest.raises(UserError, match=r"frames\.h5 does not exist; correct its path in the configuration"):
        bench.go(files=(data,))
    assert list(bench.run.iterdir()) == []
    data.write_text("1")
    assert bench.go(files=(data,))
    assert not bench.go(files=(data,))
    data.write_text("2")
    assert bench.go(files=(data,))
    assert "a: runs again: inputs changed (frames.h5)" in bench.said


def test_two_external_files_of_one_name(bench: Bench, tmp_path: Path) -> None:
    files = (tmp_path / "left/frames.h5", tmp_path / "right/frames.h5")
    for path in files:
        path.parent.mkdir()
        path.write_text("1")
    bench.go(files=files)
    for path in files:
        path.write_text("2")
        assert bench.go(files=files)


@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: p.write_text("tampered"), lambda p: p.write_text("")]
)
def test_damaged_output_is_made_again(bench: Bench, damage: Callable[[Path], Any]) -> None:
    bench.go()
    damage(bench.run / "a/sub/more.txt")
    assert bench.go()
    assert "a: runs again: its output sub/more.txt is missing or was changed" in bench.said
    assert (bench.run / "a/sub/more.txt").read_text() == "more"
    assert not bench.go()


_DAMAGED = (
    "",
    '{"stage": "a", "conf',
    "[]",
    "3",
    "{}",
    '{"configuration": 1}',
    "\udcff",
    "[" * 100_000,
    '{"configuration": {}, "inputs": {}, "outputs": {"result.txt": 1}, "packages": {}, "wall_seconds": 1}',
    '{"configuration": {}, "inputs": {}, "outputs": {}, "packages": {}, "wall_seconds": "long"}',
)


@pytest.mark.parametrize("content", _DAMAGED)
def test_damaged_manifest_is_made_again(bench: Bench, content: str) -> None:
    bench.go()
    (bench.run / "a/manifest.json").write_text(content, errors="surrogateescape")
    assert bench.go()
    assert "a: runs again: its manifest is damaged" in bench.said
    assert not bench.go()


def test_manifest_that_is_a_folder_and_outputs_of_no_name_are_made_again(bench: Bench) -> None:
    bench.go()
    path = bench.run / "a/manifest.json"
    written = json.loads(path.read_text())
    for name in ("x" * 300, "a\0b", "sub"):
        write_json(path, {**written, "outputs": {name: "0"}})
        assert bench.go()
        assert bench.said[-3] == f"a: runs again: its output {name} is missing or was changed"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="not finished"):
        manifest_of(bench.run, "a")
    assert bench.go()
    assert not bench.go()


@pytest.mark.parametrize("content", [*_DAMAGED, '{"identity": {}}', None])
@pytest.mark.parametrize("seconds", [None, "1", "x"])
def test_damaged_mark_of_an_interrupted_run_starts_again(
    bench: Bench, content: str | None, seconds: str | None
) -> None:
    with pytest.raises(RuntimeError):
        execute(bench.run, Stage("a", (), {}, (), lambda out: _two_steps(out, True)), bench.said.append)
    path = bench.run / "a.partial/started.json"
    if content is None:
        identity = json.loads(path.read_text())["identity"]
        write_json(path, {"identity": identity} | ({} if seconds is None else {"seconds": seconds}))
    else:
        path.write_text(content, errors="surrogateescape")
    execute(bench.run, Stage("a", (), {}, (), lambda out: _two_steps(out, False)), bench.said.append)
    assert (bench.run / "a/first.txt").read_text() == "done by the last run"


@pytest.mark.parametrize("content", [*_DAMAGED, '{"1 2 3 4": 5}'])
def test_damaged_memory_of_digests_is_ignored(bench: Bench, content: str) -> None:
    bench.go()
    (bench.run / ".digests.json").write_text(content, errors="surrogateescape")
    assert not bench.go()


@pytest.mark.parametrize("content", _DAMAGED)
def test_damaged_manifest_of_an_earlier_stage_is_one_message(bench: Bench, content: str) -> None:
    bench.go()
    (bench.run / "a/manifest.json").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match="not finished; run `braggnn-edge a` first"):
        bench.go("b", ("a",))


def test_missing_earlier_stage_is_named(bench: Bench) -> None:
    with pytest.raises(UserError, match="stage 'label' of run 'r' is not finished; run `braggnn-edge label` first"):
        bench.go("b", ("label",))


def _two_steps(out: Path, fail: bool) -> None:
    """A resumable stage: the first part is done once, the second fails when told to."""
    first = out / "first.txt"
    if not first.exists():
        first.write_text(f"done by {'the failing' if fail else 'the last'} run")
    if fail:
        raise RuntimeError("killed")
    (out / "second.txt").write_text("2")


def test_interrupted_stage_continues(bench: Bench) -> None:
    said: list[str] = []
    with pytest.raises(RuntimeError, match="killed"):
        execute(bench.run, Stage("a", (), {"x": 1}, (), lambda out: _two_steps(out, True)), said.append)
    assert not (bench.run / "a").exists()
    with pytest.raises(UserError, match="not finished"):
        manifest_of(bench.run, "a")
    execute(bench.run, Stage("a", (), {"x": 1}, (), lambda out: _two_steps(out, False)), said.append)
    assert "a: continues an interrupted run" in said
    assert (bench.run / "a/first.txt").read_text() == "done by the failing run"
    assert set(manifest_of(bench.run, "a")["outputs"]) == {"first.txt", "second.txt"}
    assert not (bench.run / "a/started.json").exists()


def test_interrupted_stage_of_another_configuration_is_set_aside(bench: Bench) -> None:
    said: list[str] = []
    with pytest.raises(RuntimeError):
        execute(bench.run, Stage("a", (), {"x": 1}, (), lambda out: _two_steps(out, True)), said.append)
    execute(bench.run, Stage("a", (), {"x": 2}, (), lambda out: _two_steps(out, False)), said.append)
    assert (bench.run / "a/first.txt").read_text() == "done by the last run"
    assert (bench.run / "a.partial.old-1/first.txt").read_text() == "done by the failing run"
    assert "a.partial: what an interrupted run of other inputs had made is kept as a.partial.old-1" in said


def test_a_file_that_is_the_users_to_change_is_no_reason_to_run_again(bench: Bench) -> None:
    def again() -> bool:
        def work(out: Path) -> None:
            (out / "sub").mkdir()
            for name in ("steps.tcl", "sub/steps.tcl", "source.cpp"):
                (out / name).write_text("made")

        return execute(bench.run, Stage("a", (), {}, (), work, ("steps.tcl",)), bench.said.append)

    assert again()
    assert list(manifest_of(bench.run, "a")["outputs"]) == ["source.cpp"]
    for name in ("steps.tcl", "sub/steps.tcl"):
        (bench.run / "a" / name).write_text("changed")
    assert not again()
    (bench.run / "a/source.cpp").write_text("changed")
    assert again()


def test_failed_rerun_leaves_the_finished_result(bench: Bench) -> None:
    bench.go(text="good", x=1)
    with pytest.raises(RuntimeError):
        execute(bench.run, Stage("a", (), {"x": 2}, (), lambda out: _two_steps(out, True)), bench.said.append)
    assert (bench.run / "a/result.txt").read_text() == "good"
    assert not bench.go(text="good", x=1)


def test_wall_seconds_add_up_over_interruptions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 103.0, 500.0, 504.0])
    monkeypatch.setattr(rundir.time, "monotonic", lambda: next(clock))
    with pytest.raises(RuntimeError):
        execute(bench.run, Stage("a", (), {}, (), lambda out: _two_steps(out, True)), bench.said.append)
    execute(bench.run, Stage("a", (), {}, (), lambda out: _two_steps(out, False)), bench.said.append)
    assert manifest_of(bench.run, "a")["wall_seconds"] == 7.0


@pytest.mark.parametrize("step", ["manifest", "unlink", "aside", "replace"])
def test_killed_while_finishing(bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A kill between any two of the last steps leaves no result that looks finished and is not; a rerun ends well."""
    bench.go(text="old", x=1)

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    replace, write = os.replace, rundir.write_json
    with monkeypatch.context() as patch:
        if step == "manifest":
            patch.setattr(rundir, "write_json", lambda p, d: killed() if p.name == "manifest.json" else write(p, d))
        elif step == "unlink":
            patch.setattr(Path, "unlink", lambda p, **_: killed() if p.name == "started.json" else None)
        elif step == "aside":
            patch.setattr(rundir, "_set_aside", killed)
        else:
            patch.setattr(os, "replace", lambda a, b: killed() if Path(b).name == "a" else replace(a, b))
        with pytest.raises(Killed):
            bench.go(text="new", x=2)
    bench.go(text="new", x=2)
    assert (bench.run / "a/result.txt").read_text() == "new"
    assert set(manifest_of(bench.run, "a")["outputs"]) == {"result.txt", "sub/more.txt"}
    assert not bench.go(text="new", x=2)
    assert (bench.run / "a.old-1/result.txt").read_text() == "old"


def _write_slowly(path: Path) -> None:
    with written_aside(path) as aside:
        aside.write_text("half")
        (path.parent / "ready").touch()
        time.sleep(60)


def test_kill_while_writing_leaves_no_file(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_slowly, args=(tmp_path / "out.h5",))
    process.start()
    while not (tmp_path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "out.h5").exists()
    with written_aside(tmp_path / "out.h5") as aside:
        assert not aside.exists()
        aside.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "ready"]


@pytest.mark.parametrize("folder", [False, True])
def test_failure_while_writing_keeps_the_old_file(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "out"
    target.write_text("old")

    def failing() -> None:
        with written_aside(target) as aside:
            if folder:
                aside.mkdir()
                (aside / "x").write_text("new")
            else:
                aside.write_text("new")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        failing()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert target.read_text() == "old"


def test_json_refuses_nan_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert len(list(tmp_path.iterdir())) == 1


def _hold(run: Path, ready: Path) -> None:
    with locked(run):
        ready.touch()
        time.sleep(60)


def test_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    run, ready = tmp_path / "runs/r", tmp_path / "ready"
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(run, ready))
    process.start()
    while not ready.exists():
        assert process.is_alive()
        time.sleep(0.02)
    with pytest.raises(UserError, match="run 'r' is in use by another process"), locked(run):
        pass
    process.kill()
    process.join()
    with locked(run):
        pass
