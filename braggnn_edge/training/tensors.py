"""Tensors to a file, on disks that may be full."""

import io
from pathlib import Path
from typing import Any

import torch


def save_tensors(state: Any, path: Path) -> None:
    """``torch.save``; a full disk is an OSError, where torch itself raises RuntimeError without a reason."""
    written = io.BytesIO()
    torch.save(state, written)
    path.write_bytes(written.getbuffer())
