"""How a command ends, whatever happens to its files, its memory and its output."""

import errno
import resource
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.outcome import exit_status

MAIN = "import sys; from braggnn_edge.cli import main; sys.exit(main(sys.argv[1:]))"


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("bad\n  input"), 2, "p: error: bad input\n"),
        (OSError(errno.ENOSPC, "no space"), 2, "p: error: the disk is full; what is finished is kept"),
        (OSError(errno.EDQUOT, "quota"), 2, "p: error: the disk quota is used up"),
        (OSError(errno.EFBIG, "too big"), 2, "see `ulimit -f`"),
        (OSError(errno.ENAMETOOLONG, "long"), 2, "a file name would be too long; shorten"),
        (MemoryError(), 2, "p: error: there is not enough memory; what is finished is kept"),
        (BrokenExecutor(), 2, "p: error: a worker process was killed, most likely for lack of memory"),
        (KeyboardInterrupt(), 130, "p: interrupted; run the same command again to continue\n"),
    ],
)
def test_what_the_user_can_mend_is_one_line(error, status, message, capsys) -> None:
    assert exit_status(raising(error), "p") == status
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.EIO, "input/output")])
def test_a_defect_keeps_its_traceback(error) -> None:
    with pytest.raises(type(error)):
        exit_status(raising(error), "p")


def run(arguments: list[str], **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.run(command, capture_output=True, check=False, cwd=Path(__file__).parents[1], **options)


def test_terminal_without_unicode(tmp_path: Path) -> None:
    path = tmp_path / "größe.toml"
    path.write_text('name = "ö"\nseed = "x"\n', encoding="utf-8")
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": "/usr/bin:/bin"}
    found = run(["data", "--config", str(path)], env=environment)
    assert found.returncode == 2
    assert found.stderr.count(b"\n") == 1
    assert b"seed: expected integer, got 'x'" in found.stderr


def test_output_that_nobody_reads() -> None:
    closed = f"exec 1>&-; exec {sys.executable} -c '{MAIN}' data --config none.toml"
    found = subprocess.run(["sh", "-c", closed], capture_output=True, check=False, text=True)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    program = "from braggnn_edge.core.outcome import exit_status; import sys, time\n"
    program += "def work():\n  while True: print('x', flush=True)\nsys.exit(exit_status(work, 'p'))"
    left = f'{{ {sys.executable} -c "{program}"; echo status $? >&2; }} | head -n 1'
    found = subprocess.run(["sh", "-c", left], capture_output=True, check=False, text=True)
    assert found.stdout == "x\n"
    assert "p: standard output was closed" in found.stderr
    assert "status 141" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("where", ["scan", "name", "run"])
def test_names_too_long_for_a_file(tmp_path: Path, where: str) -> None:
    long = "x" * 240
    name, scan = (long if where == key else "short" for key in ("name", "scan"))
    (tmp_path / "c.toml").write_text(f'name = "{name}"\n[[scan]]\nname = "{scan}"\n')
    run_name = ["--run", long] if where == "run" else []
    found = run(["data", "--config", str(tmp_path / "c.toml"), "--runs", str(tmp_path / "runs"), *run_name], text=True)
    assert found.returncode == 2
    assert "at most 200" in found.stderr
    assert found.stderr.count("\n") == 1


def test_closed_streams_keep_their_numbers(tmp_path: Path) -> None:
    """A file opened after ``>&-`` would be standard output, and take what a compiled library prints."""
    program = (
        "import os, sys; from braggnn_edge.core.outcome import exit_status; from braggnn_edge.core import progress\n"
    )
    program += "def work():\n  f = open(sys.argv[1], 'wb')\n  if f.fileno() <= 2: raise ValueError(f.fileno())\n"
    program += "  progress.Progress(2, print).add(1)\nsys.exit(exit_status(work, 'p'))"
    command = f'exec 0<&- 1>&-; exec {sys.executable} -c "{program}" {tmp_path / "out"}'
    found = subprocess.run(["sh", "-c", command], capture_output=True, check=False, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_file_that_may_not_grow_ends_in_one_line(tmp_path: Path) -> None:
    """HDF5 does not survive a write that fails: it took the process with it after the message, with status 139."""
    (tmp_path / "c.toml").write_text(
        'name = "c"\n[[scan]]\nname = "s"\n[scan.simulate]\nrows = 128\ncols = 128\nframes = 20\nrings = [40.0]\n'
        "reflections = 40\n"
    )
    arguments = ["data", "--config", str(tmp_path / "c.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    limit = (64 * 1024, 64 * 1024)
    found = run(arguments, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert found.returncode == 2, found.stderr
    assert "see `ulimit -f`" in found.stderr
    assert found.stderr.count("\n") == 1
    assert run(arguments, text=True).returncode == 0
