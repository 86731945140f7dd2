"""Run directories: stages that are finished whole or not at all, and say why they run.

``runs/<name>/<stage>/`` appears by one rename when its stage has finished; until then the stage works in
``<stage>.partial/``, where what it wrote so far is found again after a kill. Nothing finished is deleted: a result
that no longer fits its inputs is set aside as ``<stage>.old-<n>``.
"""

import contextlib
import fcntl
import functools
import importlib.metadata
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braggnn_edge import __version__
from braggnn_edge.core.checkout import commit
from braggnn_edge.core.digests import Digests, sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    needs: stages whose outputs it reads; sections: configuration sections it depends on; files: finds external
    input files (hashed into the fingerprint); work: called as ``work(partial_directory)`` and free to continue what
    an interrupted run with the same fingerprint left there.
    """

    name: str
    needs: tuple[str, ...]
    settings: Mapping[str, Any]
    files: tuple[Path, ...]
    work: Callable[[Path], None]
    editable: tuple[str, ...] = ()  # names of files that are the user's to change: no reason to run again


def write_json(path: Path, document: Any) -> None:
    """Write JSON aside, then rename."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def manifest_of(run: Path, stage: str) -> dict[str, Any]:
    """The manifest of a finished stage; UserError when there is none."""
    try:
        return _read_manifest(run / stage)
    except (OSError, ValueError) as error:
        raise UserError(
            f"stage {stage!r} of run {run.name!r} is not finished; run `braggnn-edge {stage}` first"
        ) from error


def fits(run: Path, stage: str, need: str) -> bool:
    """Whether a stage is finished and was made from what the stage ``need`` has written by now.

    For a stage that takes another one's result where it is there, and does not ask for it.
    """
    try:
        made, source = _read_manifest(run / stage), _read_manifest(run / need)
    except (OSError, ValueError):
        return False
    return all(made["inputs"].get(f"{need}/{name}") == digest for name, digest in source["outputs"].items())


#: What a manifest holds, and the type of what that holds.
_PARTS = {"configuration": object, "inputs": str, "outputs": str, "packages": str}


def _read_manifest(final: Path) -> dict[str, Any]:
    """The manifest in the folder of a finished stage; OSError when it cannot be read, ValueError when it is damaged."""
    found = _read_json(final / "manifest.json")
    if not isinstance(found, dict):
        raise ValueError("a manifest is a table")
    for part, kind in _PARTS.items():
        content = found.get(part)
        if not isinstance(content, dict) or not all(isinstance(value, kind) for value in content.values()):
            raise ValueError(f"{part!r} of a manifest is a table")
    if not isinstance(found.get("wall_seconds"), int | float):
        raise ValueError("the seconds of a manifest are a number")
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:  # a file of brackets
        raise ValueError(f"{path}: too deep") from error


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run directory: a second process working in it would mix two results. UserError when it cannot."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        stream = (run / ".lock").open("w")
    except OSError as error:
        raise UserError(f"run directory {run} cannot be written ({error.strerror}); choose another --runs") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"run {run.name!r} is in use by another process; wait for it or choose RUN=another"
            ) from error
        yield


def execute(run: Path, stage: Stage, say: Callable[[str], None]) -> bool:
    """Bring one stage up to date; its ``needs`` must be finished. Returns whether it had to run.

    The fingerprint is the configuration it depends on, the sha256 of everything it reads, and the versions of the
    project and of the packages that it is pinned to: results are exact with these and not proved with others.
    """
    digests = Digests(run)
    inputs = {
        f"{need}/{name}": digest for need in stage.needs for name, digest in manifest_of(run, need)["outputs"].items()
    }
    for path in stage.files:
        if not path.is_file():
            raise UserError(f"input {path} does not exist; correct its path in the configuration")
        number, key = 1, path.name
        while key in inputs:  # files of one name from different folders
            number, key = number + 1, f"{path.name} ({number + 1})"
        inputs[key] = digests.of(path)
    identity = {"stage": stage.name, "configuration": stage.settings, "inputs": inputs, "packages": versions()}
    identity = json.loads(json.dumps(identity))
    final, partial = run / stage.name, run / f"{stage.name}.partial"
    reason = _why(final, identity, digests, stage.editable)
    digests.save()
    if reason is None:
        say(f"{stage.name}: up to date")
        return False
    spent = _prepare(partial, identity, say)
    say(f"{stage.name}: {reason if spent is None else 'continues an interrupted run'}")
    at_work = commit()  # now: a checkout may move on during hours of training, the code at work does not
    started = time.monotonic()
    try:
        stage.work(partial)
    finally:
        seconds = (spent or 0.0) + time.monotonic() - started
        write_json(partial / "started.json", {"identity": identity, "seconds": seconds})
    outputs = {
        str(path.relative_to(partial)): sha256(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
        and path not in (partial / "started.json", partial / "manifest.json")
        and path.name not in stage.editable
    }
    manifest = {
        **identity,
        "seed": stage.settings.get("seed"),
        "git_commit": at_work,
        "python": platform.python_version(),
        "outputs": outputs,
        "wall_seconds": round(seconds, 3),
    }
    write_json(partial / "manifest.json", manifest)
    (partial / "started.json").unlink()
    if os.path.lexists(final):
        _set_aside(final, say)
    os.replace(partial, final)
    say(f"{stage.name}: done in {seconds:.1f} s")
    return True


def _why(final: Path, identity: dict[str, Any], digests: Digests, editable: tuple[str, ...]) -> str | None:
    """None when the finished stage still fits; else the reason to run."""
    try:
        manifest = _read_manifest(final)
    except FileNotFoundError:
        return "runs for the first time"
    except (OSError, ValueError):
        return "runs again: its manifest is damaged"
    for part in ("configuration", "inputs"):
        old, new = manifest[part], identity[part]
        changed = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
        if changed:
            return f"runs again: {part} changed ({', '.join(changed[:4])}{' ...' if len(changed) > 4 else ''})"
    old, new = manifest["packages"], identity["packages"]
    changed = [
        f"{k} {old.get(k, 'unknown')} -> {new.get(k, 'none')}" for k in {**old, **new} if old.get(k) != new.get(k)
    ]
    if changed:
        return f"runs again: packages changed ({', '.join(changed[:4])}{' ...' if len(changed) > 4 else ''})"
    for name, digest in manifest["outputs"].items():
        if Path(name).name in editable:
            continue
        try:
            same = digests.of(final / name) == digest
        except (OSError, ValueError):  # gone, no file, or no name of one
            same = False
        if not same:
            return f"runs again: its output {name} is missing or was changed"
    return None


def _prepare(partial: Path, identity: dict[str, Any], say: Callable[[str], None]) -> float | None:
    """Make the working directory; seconds already spent when it continues one of the same identity, else None.

    Others are set aside.
    """
    marker = partial / "started.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = _read_json(marker)
        if found["identity"] == identity and math.isfinite(spent := found["seconds"]):
            return float(spent)
    if os.path.lexists(partial):
        _set_aside(partial, say, "what an interrupted run of other inputs had made")
    partial.mkdir(parents=True)
    write_json(marker, {"identity": identity, "seconds": 0.0})
    return None


def _set_aside(final: Path, say: Callable[[str], None], what: str = "the previous result") -> None:
    number = 1
    while (aside := final.with_name(f"{final.name}.old-{number}")).exists():
        number += 1
    os.replace(final, aside)
    say(f"{final.name}: {what} is kept as {aside.name}")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the project and of all packages that it depends on, as they are installed; tests and docs left out.

    Without an installation of the project, its own version alone.
    """
    found = {"braggnn-edge": __version__}
    required: list[str] = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        required = importlib.metadata.requires("braggnn-edge") or []
    for text in required:
        name = re.split(r"[^\w.-]", text, maxsplit=1)[0]
        if "extra ==" in text:
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
