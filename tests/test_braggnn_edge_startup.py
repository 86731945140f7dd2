"""Help and a misspelt key are answered at once: nothing slow is loaded for them."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = {"torch", "h5py", "scipy", "hls4ml", "onnx", "onnxruntime", "matplotlib", "dask", "distributed", "fabio",
        "optuna", "brevitas", "qonnx", "jinja2"}  # fmt: skip
MISSPELT = '[[scan]]\nname = "scan"\ntreshold = 1.0\n'
CALL = """
import sys
from braggnn_edge import cli
try:
    status = cli.main(sys.argv[1:])
except SystemExit as error:
    status = error.code
print("status", status)
print("loaded", *{name.split(".")[0] for name in sys.modules})
"""


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, tuple[list[str], int, str]]:
    """Arguments, exit status, and what is said, of what must be quick."""
    path = tmp_path / "bad.toml"
    path.write_text(MISSPELT)
    return {
        "help": (["--help"], 0, "the firmware's network"),
        "help of a stage": (["report", "--help"], 0, "--scheduler"),
        "help of a command": (["locate", "--help"], 0, "--do-not-trust-above"),
        "misspelt key": (["report", "--config", str(path)], 2, "unknown key 'treshold'"),
    }


NAMES = ("help", "help of a stage", "help of a command", "misspelt key")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_slow_is_loaded(name: str, commands: dict[str, tuple[list[str], int, str]]) -> None:
    arguments, status, said = commands[name]
    done = subprocess.run([sys.executable, "-c", CALL, *arguments], capture_output=True, text=True, check=True)
    *_, ended, loaded = done.stdout.splitlines()
    assert ended == f"status {status}"
    assert said in done.stdout + done.stderr
    assert "numpy" in loaded.split()  # the list is one of modules
    assert not SLOW & set(loaded.split())


def seconds_of_processor(*arguments: str) -> float:
    """The least that a process of Python takes, user and system time of three attempts."""

    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    spent = []
    for _ in range(3):
        before = used()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        spent.append(used() - before)
    return min(spent)


def test_quick_answers_cost_little_more_than_numpy(commands: dict[str, tuple[list[str], int, str]]) -> None:
    """A factor of processor time, which neither the machine nor its load changes much."""
    least = seconds_of_processor("-c", "import argparse, tomllib, numpy")
    for name in NAMES:
        assert seconds_of_processor("-m", "braggnn_edge.cli", *commands[name][0]) <= 5 * least, name
