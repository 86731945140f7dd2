"""The commit in the provenance of files: found in a checkout, "unknown" elsewhere, never a reason to fail."""

import shutil
import subprocess
from pathlib import Path

import pytest

from braggnn_edge import __version__
from braggnn_edge.core import checkout


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the root of the project."""
    monkeypatch.setattr(checkout, "_ROOT", tmp_path / "project")
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def git(where: Path, *words: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *identity, *words], cwd=where, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_of_a_checkout_says_whether_it_has_changes(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(package, "init", "-q")
    assert checkout.commit() is None  # without any commit
    (package / "a.py").write_text("a = 1\n")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "one")
    head = git(package, "rev-parse", "HEAD").strip()
    assert checkout.commit() == head
    assert checkout.maker() == {"made_by": f"braggnn-edge {__version__}", "commit": head}
    (package / "a.py").write_text("a = 2\n")
    assert checkout.commit() == f"{head}+"
    (package / "inside").mkdir()
    monkeypatch.setattr(
        checkout, "_ROOT", package / "inside"
    )  # installed into another project's checkout: its commit is not ours
    assert checkout.commit() is None


def test_outside_a_checkout_and_without_git_it_is_unknown(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkout.maker()["commit"] == "unknown"
    (package / ".git").mkdir()
    monkeypatch.setenv("PATH", str(package))
    assert checkout.commit() is None
    assert checkout.maker()["commit"] == "unknown"
