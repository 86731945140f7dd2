"""Which code is at work: the version of the project, and its commit where it runs in a git checkout."""

import subprocess
from pathlib import Path

from braggnn_edge import __version__

_ROOT = Path(__file__).resolve().parents[2]


def commit() -> str | None:
    """Commit of the project's checkout ("+" when it has changes), or None outside one, or without git.

    A package that is installed somewhere inside another project's checkout is not in one of its own.
    """
    if not (_ROOT / ".git").exists():  # a folder, or of a further working tree a file
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def maker() -> dict[str, str]:
    """How a file's provenance begins: the project's version and its :func:`commit`, "unknown" where there is none.

    To be asked before hours of training: a checkout may move on meanwhile, the code at work does not.
    """
    return {"made_by": f"braggnn-edge {__version__}", "commit": commit() or "unknown"}
