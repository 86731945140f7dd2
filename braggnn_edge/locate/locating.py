"""Work of the command ``locate``: frames to a list of peaks, in shards, and to the files that are asked for.

The shards lie beside the first output, in ``<output>.partial``, until that is whole. An interrupted command goes on
from those that are there; one that asks for something else begins anew. The result depends on neither, nor on the
workers.

Forms of a float network agree within 1e-5 px, and not to the last bit. So one form serves a whole list: it is chosen
once, before the first shard, named to every worker, and written beside the shards for whoever goes on.
"""

import contextlib
import fcntl
import json
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.stages import resolve
from braggnn_edge.frames.scan import Scan
from braggnn_edge.label.acquisition import open_spec
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import file_of
from braggnn_edge.locate.request import Request, request_of
from braggnn_edge.locate.shard import Task, network
from braggnn_edge.locate.stage import AUTO
from braggnn_edge.locate.summary import Summary
from braggnn_edge.peaks import guards
from braggnn_edge.peaks.layouts import Context
from braggnn_edge.peaks.peak_file import About
from braggnn_edge.shards import environment, files
from braggnn_edge.shards import run as shards

Say = Callable[[str], None]

#: Frames in one unit of work; and of a sparse format, whose frames take less time than it takes to open the file.
_RUN, _SPARSE_RUN = 16, 64
#: Keys of a scan that ``locate`` does not use.
_UNUSED = ("check", "peaks", "max_residual", "unsaturated", "use", "simulate")


def work(arguments: Namespace, say: Say) -> None:
    """The command: :func:`run` with what the command line asks."""
    run(request_of(arguments), arguments.workers, say, arguments.scheduler)


def run(request: Request, workers: int, say: Say, scheduler: str = "") -> None:
    """Write the outputs of a request. workers, scheduler: see :func:`braggnn_edge.shards.run.do`.

    Memory holds the frames and peaks of the shards in work, and one shard of peaks when they are joined; the layout of
    BraggNN holds 19 bytes a peak. Raises UserError for a scan, network or range of frames that does not fit.
    """
    scan = open_spec(request.spec, Path(), None)
    first = request.outputs[0][0].absolute()
    partial = first.with_name(f"{first.name}.partial")
    locator = _opened(request, partial)
    start, stop = _range(scan, request.frames)
    if locator.size > min(scan.shape[1:]):
        raise UserError(
            f"scan {scan.name!r}: frames of {scan.shape[1]} x {scan.shape[2]} px are smaller than the patches of "
            f"{locator.size} px of {locator.name}; choose another network"
        )
    if scan.omega_remark:
        say(f"  {scan.name}: {scan.omega_remark}")
    if locator.remark:
        say(f"  {file_of(request.network).name}: {locator.remark}")
    if request.records is not None:
        resolve("quant.front_end.of_scan:check")(
            request.spec, request.network, scan, request.trust, request.significance
        )
    about, identity = _about(request, scan, locator, (start, stop))
    with _held(partial):
        _begin(partial, identity, say)
        to = files.folder(partial)
        step = _SPARSE_RUN if hasattr(scan.source, "read_stored") else _RUN
        tasks = [
            Task(0, request.spec, at, min(stop, at + step), request.network, locator.form, request.find,
                 request.trust, to / f"{at:08d}.npz", request.records is not None, request.significance)
            for at in range(start, stop, step)
        ]  # fmt: skip
        if request.spec.check and not any(task.shard.exists() for task in tasks):  # else it was looked at before
            guards.check(
                scan, request.spec, min_area=request.spec.min_area, size=locator.size, frames=(start, stop),
                anyway="--no-check", say=say, skip=request.spec.on_bad_frame == "skip",
            )  # fmt: skip
        shards.do(tasks, workers, scheduler, say, "located", in_frames=True)
        _join(tasks, request, about, locator, say)
        files.remove(partial)
        shutil.rmtree(partial)


def _opened(request: Request, partial: Path) -> Locator:
    """The network in the form that is asked for; where that is ``auto``, in that of the shards which are there.

    That it is the same network is seen here; all else that must be the same, in :func:`_begin`.
    """
    if request.backend == AUTO:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, UserError):
            found = json.loads((partial / "command.json").read_text(encoding="utf-8"))
            if found["network"]["sha256"] == sha256(file_of(request.network)):
                return network(request.network, found["form"])
    return network(request.network, request.backend)


def _range(scan: Scan, frames: tuple[int, int | None]) -> tuple[int, int]:
    count = scan.shape[0]
    start, stop = frames[0], count if frames[1] is None else frames[1]
    if not 0 <= start < stop <= count:
        raise UserError(f"--frames {start}:{stop} of {scan.name!r}: it has {count} frames, 0 to {count - 1}")
    return start, stop


def _about(request: Request, scan: Scan, locator: Locator, frames: tuple[int, int]) -> tuple[About, dict[str, Any]]:
    """What the list says of itself, and what must be the same for shards to be used again."""
    spec = asdict(request.spec)
    weights = file_of(request.network)
    # Integers are the same in every form, so that a list that they made does not say which it was.
    name, form = ("integers", {}) if locator.exact else (locator.name, {"form": locator.form})
    settings: dict[str, Any] = {
        "scan": {key: value for key, value in spec.items() if key not in _UNUSED},
        "find": request.rule,
        "frames": list(frames),
        "network": {
            **form,
            "name": name,
            "file": weights.name,
            "sha256": sha256(weights),
            "patch": locator.size,
        },
        "trust": request.trust if np.isfinite(request.trust) else None,
    }
    if request.significance:
        settings["significance"] = request.significance
    task = Task(0, request.spec, *frames, request.network, locator.form, request.find, request.trust, Path())
    # Frames that are read well are the same whatever is done with others: who stops at a bad one may go on without it.
    same = settings | {"scan": {key: value for key, value in settings["scan"].items() if key != "on_bad_frame"}}
    sources = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in task.inputs() if path.exists()}
    identity = same | {"form": locator.form, "files": sources, "versions": dict(environment.versions())}
    identity |= {} if request.records is None else {"records": True}
    omega = np.full((scan.shape[0], 2), np.nan) if scan.omega is None else scan.omega
    return About((scan.name,), scan.shape, omega, (), settings), identity


@contextlib.contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Make the folder of the shards, and hold it: a second process working in it would mix two results."""
    partial.mkdir(exist_ok=True)
    with (partial / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{partial} is in use by another process; wait for it, or choose another name for the output"
            ) from error
        yield


def _begin(partial: Path, identity: dict[str, Any], say: Say) -> None:
    """Keep the shards of an earlier run of the same command; remove those of another, and say why."""
    path, wanted = partial / "command.json", json.loads(json.dumps(identity))
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found == wanted:
            return
        say(f"  {partial.name} is of another command ({_difference(found, wanted)}): beginning anew")
    files.remove(partial)
    with written_aside(path) as aside:
        aside.write_text(json.dumps(wanted), encoding="utf-8")


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    """The first value that differs, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in (*wanted, *found):
            if key not in found or key not in wanted or found[key] != wanted[key]:
                return _difference(found.get(key), wanted.get(key), f"{name} {key}".strip())
    return f"{name} was {found}, is {wanted}"


def _join(tasks: list[Task], request: Request, about: About, locator: Locator, say: Say) -> None:
    """Write every output, with one shard in memory at a time, and say what is in them."""
    bad = [index for task in tasks for index in files.load(task.shard, "bad_frames")[0].tolist()]
    if bad and request.spec.on_bad_frame == "stop":  # shards of a command that was to leave them out
        raise UserError(
            f"scan {request.spec.name!r}: {len(bad)} frames are bad, frame {bad[0]} the first; repair them, or leave "
            'such frames out with on_bad_frame = "skip"'
        )
    about = About(about.scans, about.shape, about.omega, tuple(bad), about.settings)
    summary = Summary(locator, request.spec.detector.gain)
    with contextlib.ExitStack() as stack:
        context = Context(about, request.center)
        appends = [stack.enter_context(writing(path, context)) for path, writing in request.outputs]
        for task in tasks:
            (rows,) = files.load(task.shard, "peaks")
            summary.add(rows)
            for append in appends:
                append(rows)
    if request.records is not None:
        with written_aside(request.records) as aside, aside.open("wb") as stream:
            for task in tasks:
                stream.write(files.load(task.shard, "records")[0].tobytes())
    frames = tasks[-1].stop - tasks[0].start - len(bad)
    for line in summary.lines(frames, bad):
        say(f"  {line}")
    written = [path for path, _ in request.outputs] + ([] if request.records is None else [request.records])
    say("finished: " + ", ".join(map(str, written)))
