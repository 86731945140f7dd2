"""Labelling on a Dask cluster: killed workers change nothing, and what is wrong with a cluster is said in one line."""

import dataclasses
import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, KilledWorker, LocalCluster

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.braggnn import write_frames
from braggnn_edge.label import labelling as label
from braggnn_edge.label import shard
from braggnn_edge.label.shard import Task
from braggnn_edge.label.spec import PeakSpec, ScanSpec, SplitSpec
from braggnn_edge.peaks.table import load
from braggnn_edge.shards import distribute, environment, files, run

FRAMES = 160


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> ScanSpec:
    """A measured scan of Gaussian spots, three a frame."""
    path = tmp_path_factory.mktemp("frames") / "frames.h5"
    rng = np.random.default_rng(1)
    row, col = np.mgrid[:48, :48]

    def frames() -> Iterator[np.ndarray]:
        for _ in range(FRAMES):
            mean = np.full((48, 48), 5.0)
            for centre in ((12, 12), (12, 36), (36, 24)):
                r, c = centre + rng.uniform(-2, 2, 2)
                mean += rng.uniform(300, 3000) * np.exp(-((row - r) ** 2 + (col - c) ** 2) / 2)
            yield rng.poisson(mean).astype(np.uint16)

    write_frames(path, frames(), (FRAMES, 48, 48), np.dtype(np.uint16))
    return ScanSpec("spots", format="braggnn", path=str(path), threshold=60.0, use=("test",))


@pytest.fixture(scope="module")
def serial(scan: ScanSpec, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of peaks.h5 of a serial run."""
    out = tmp_path_factory.mktemp("serial")
    return labelled(scan, out)


def labelled(scan: ScanSpec, out: Path, workers: int = 1, scheduler: str = "") -> bytes:
    label.run((scan,), PeakSpec(), SplitSpec(), 1, out, out, out, workers, quiet, scheduler)
    assert {path.name for path in out.iterdir()} == {"peaks.h5", "spots_peaks.h5", "summary.json"}
    return (out / "peaks.h5").read_bytes()


def tasks(scan: ScanSpec, out: Path) -> list[Task]:
    to = files.folder(out)
    return [Task(0, scan, i, i + 16, out, out, PeakSpec(), to / f"00-{i:06d}.npz") for i in range(0, FRAMES, 16)]


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    """A cluster of two workers that are threads of this process: it starts at once."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=60
    ) as cluster:
        yield cluster


def test_killed_worker_loses_and_doubles_nothing(
    scan: ScanSpec, serial: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CLUSTER_PAYS", -1.0)
    original, killed = distribute.do_shards, []

    def with_a_murder(client: Client, tasks, done, say, *, local: bool) -> None:
        def then_kill(task: Task) -> None:
            done(task)
            if not killed:
                killed.extend(client.run(os.getpid).values())
                os.kill(killed[0], signal.SIGKILL)

        original(client, tasks, then_kill, say, local=local)

    monkeypatch.setattr(distribute, "do_shards", with_a_murder)
    assert labelled(scan, tmp_path, workers=2) == serial
    assert len(killed) == 2
    assert len(load(tmp_path / "peaks.h5").peaks) == 3 * FRAMES


def test_cluster_of_an_address_or_a_file_labels_the_same(
    scan: ScanSpec, serial: bytes, threads: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    assert labelled(scan, tmp_path / "out", scheduler=threads.scheduler_address) == serial


def test_error_of_a_worker_arrives_and_finished_shards_stay(
    scan: ScanSpec, serial: bytes, threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = shard.label_shard

    def disk_fills_up(task: Task) -> None:
        if task.start == 96:
            raise OSError(28, "No space left on device", str(task.shard))
        original(task)

    monkeypatch.setattr(shard, "label_shard", disk_fills_up)
    with pytest.raises(OSError, match="No space left") as caught:
        labelled(scan, tmp_path, scheduler=threads.scheduler_address)
    assert caught.value.errno == 28
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("shards-*/00-*.npz")}
    assert not (tmp_path / "peaks.h5").exists()
    assert kept
    assert "00-000096.npz" not in {path.name for path in kept}
    again = []

    def counted(task: Task) -> None:
        again.append(task.start)
        original(task)

    monkeypatch.setattr(shard, "label_shard", counted)
    assert labelled(scan, tmp_path) == serial
    assert len(again) <= FRAMES // 16 - len(kept)
    assert 96 in again


def test_shard_that_kills_worker_after_worker_is_named(scan: ScanSpec, tmp_path: Path) -> None:
    task, killed = tasks(scan, tmp_path)[2], Counter()
    error = KilledWorker("key", None, 3)
    distribute._check_error(error, task, killed, "tcp://here")
    with pytest.raises(UserError, match="frames 32 to 47 of scan 'spots' brought down worker after worker"):
        distribute._check_error(error, task, killed, "tcp://here")


def test_silent_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribute, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it takes the connection and says nothing
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(UserError, match=f"scheduler {address} does not answer"), distribute.connected(address):
            pass
    with pytest.raises(UserError, match="scheduler nowhere://x does not answer"), distribute.connected("nowhere://x"):
        pass


def test_missing_or_empty_scheduler_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.json"
    with (
        pytest.raises(UserError, match=r"scheduler\.json is missing or names no address"),
        distribute.connected(str(path)),
    ):
        pass
    path.write_text("{}")
    with (
        pytest.raises(UserError, match=r"scheduler\.json is missing or names no address"),
        distribute.connected(str(path)),
    ):
        pass


def test_lost_scheduler_is_an_error_after_a_wait(
    scan: ScanSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribute, "ANSWER", 2.0)
    monkeypatch.setattr(distribute, "_LOOK", 0.1)
    said = []
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp://", dashboard_address=":0", silence_logs=60
    ) as cluster:

        def say(text: str) -> None:
            said.append(text)
            threading.Thread(target=cluster.close).start()

        with (
            distribute.connected(cluster.scheduler_address) as client,
            pytest.raises(UserError, match="was lost and did not come back within 2 s; what is finished is kept"),
        ):
            distribute.do_shards(client, tasks(scan, tmp_path), lambda _: None, say, local=False)
    assert len(said) == 1
    assert "has no workers; waiting" in said[0]


class _Hung(Client):
    """A client whose scheduler was lost while it was asked for its workers: the question runs into its limit."""

    def sync(self, *_: object, **__: object) -> object:
        raise TimeoutError("2.0 s")


@pytest.mark.parametrize(
    ("status", "message"),
    [("closed", "was lost and did not come back"), ("running", "no longer answers; what is finished is kept")],
)
def test_question_that_runs_into_its_limit_is_told_apart(status: str, message: str) -> None:
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0", silence_logs=60) as cluster:
        client = _Hung(cluster, set_as_default=False)
        known = client.status
        client.status = status
        with pytest.raises(UserError, match=message):
            distribute._Watch(client, "tcp://here", quiet, math.inf)
        client.status = known
        Client.sync(client, client._close)


def test_local_cluster_without_workers_gives_up(
    scan: ScanSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribute, "_LOOK", 0.05)
    monkeypatch.setattr(distribute, "_RESTART", 0.2)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0", silence_logs=60) as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(
            UserError,
            match=r"no worker of this machine is left; in hand were frames 0 to 15 of .* and 6 shards more",
        ),
    ):
        distribute.do_shards(client, tasks(scan, tmp_path), lambda _: None, quiet, local=True)


def test_worker_in_another_environment_is_refused(scan: ScanSpec, tmp_path: Path) -> None:
    task = tasks(scan, tmp_path)[0]
    wanted = environment.environment(task)
    environment.check(task, wanted)
    older = tuple((name, "0.9" if name == "torch" else version) for name, version in wanted.versions)
    with pytest.raises(UserError, match=r"has torch .* instead of 0\.9; start the workers again"):
        environment.check(task, dataclasses.replace(wanted, versions=older))
    with pytest.raises(UserError, match="sees other files of scan 'spots'"):
        environment.check(task, dataclasses.replace(wanted, files="other"))
    with pytest.raises(UserError, match="must be on a file system that all machines share"):
        environment.check(dataclasses.replace(task, shard=tmp_path / "elsewhere/00-000000.npz"), wanted)


def test_straggler_of_an_earlier_run_leaves_nothing(scan: ScanSpec, tmp_path: Path) -> None:
    first = tasks(scan, tmp_path)[0]
    files.remove(tmp_path)
    second = tasks(scan, tmp_path)[0]
    with pytest.raises(UserError, match="does not see"):
        files.make(first, environment.environment(first))
    assert not list(second.shard.parent.iterdir())


def test_two_workers_at_one_shard_do_not_meet(scan: ScanSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, original, meeting = tasks(scan, tmp_path)[0], shard.label_shard, threading.Barrier(2)
    asides = []

    def together(task: Task) -> None:
        asides.append(task.shard)
        meeting.wait(20)
        original(task)

    monkeypatch.setattr(shard, "label_shard", together)
    wanted = environment.environment(task)
    both = [threading.Thread(target=files.make, args=(task, wanted)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(set(asides)) == 2
    assert [path.name for path in task.shard.parent.iterdir()] == [task.shard.name]
    assert files.head(task)["crops"] == (48, np.dtype(np.uint16))


def test_shard_that_never_appears_here_is_named(
    scan: ScanSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_VISIBLE", 0.0)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"00-000000\.npz was written by a worker and is not seen here"):
        files.finished(tasks(scan, tmp_path)[0])
    assert time.monotonic() - began < 5 < math.inf
