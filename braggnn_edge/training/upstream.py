"""The upstream BraggNN project's conventions, and the only place where they are converted to ours.

Upstream: outputs and labels are (col, row) / patch size, measured from the centre of the patch's top-left pixel.
Ours: offsets (row, col) in pixels from the centre of the patch's centre pixel.
Checkpoints are state dicts named ``cnn_layers.0|2|4``, ``nlb.theta_layer|phi_layer|g_layer|out_cnn``,
``dense_layers.0|2|...``; they are read and written in that form.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.training.tensors import save_tensors


def to_offset(output: Tensor, size: int) -> Tensor:
    """Upstream (n, 2) (col, row) / size to offsets (n, 2) (row, col) in px from the centre pixel."""
    return output.flip(-1) * size - size // 2


def from_offset(offset: Tensor, size: int) -> Tensor:
    """Offsets (n, 2) (row, col) in px from the centre pixel to upstream (col, row) / size."""
    return (offset.flip(-1) + size // 2) / size


def fold_offset(layer: nn.Linear, size: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the last dense layer when it answers in offsets: :func:`to_offset` folded into it."""
    bias = layer.bias.detach().double()
    return layer.weight.detach().double().flip(0) * size, to_offset(bias, size)


def spec_of(state: dict[str, Tensor]) -> NetworkSpec:
    """The network description that a state dict implies; layers that do not fit the naming are refused by name."""
    conv: list[tuple[int, int]] = []
    dense: list[tuple[int, int]] = []
    for key, value in state.items():
        layers, _, number = key.removesuffix(".weight").partition(".")
        found = {"cnn_layers": (conv, 4), "dense_layers": (dense, 2)}.get(layers)
        if found is not None and key.endswith(".weight"):
            if not number.isdecimal() or value.ndim != found[1]:
                raise UserError(f"checkpoint entry {key!r} of shape {tuple(value.shape)} is not a layer of a BraggNN")
            found[0].append((int(number), value.shape[0]))
        elif not key.startswith(("cnn_layers.", "dense_layers.", "nlb.")):
            raise UserError(
                f"checkpoint entry {key!r} is not of a BraggNN; expected cnn_layers.*, nlb.*, dense_layers.*"
            )
    widths = [width for _, width in sorted(dense)]
    if not conv or not widths or widths[-1] != 2:
        raise UserError("checkpoint is not a BraggNN: it needs cnn_layers.* and dense_layers.* ending in 2 outputs")
    attention = any(key.startswith("nlb.") for key in state)
    theta = state.get("nlb.theta_layer.weight")
    inner = len(theta) if theta is not None and theta.ndim else 0
    channels = tuple(width for _, width in sorted(conv))
    return NetworkSpec(channels, tuple(widths[:-1]), attention, attention_channels=inner)


def load_checkpoint(path: Path, spec: NetworkSpec | None = None) -> BraggNN:
    """Read an upstream (or our own) state dict; the patch size follows from the first dense layer.

    ``spec`` gives what the file does not hold: the activation slope when it is not the published 0.01, the pooling of
    the block's keys when there is one, whether the network corrects the centroid. Channels are read from the file.
    Raises UserError for a file that is not such a state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file; each means the same to the user
        raise UserError(f"{path}: not a readable PyTorch state dict ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(
            f"{path}: expected a plain state dict of tensors; save it with torch.save(net.state_dict(), ...)"
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    found = spec_of(state)
    if spec is not None:
        known = replace(spec, slope=found.slope, attention_pool=found.attention_pool, centroid=found.centroid)
        if found != known:
            raise UserError(f"{path}: holds {found}, expected {spec}; name the right checkpoint or description")
        found = spec
    if "dense_layers.0.weight" not in state:
        raise UserError(f"{path}: has no dense_layers.0.weight; the dense layers of a BraggNN are numbered from 0")
    inputs = state["dense_layers.0.weight"].shape[1]
    side = round((inputs / found.conv[-1]) ** 0.5)
    if side * side * found.conv[-1] != inputs:
        raise UserError(f"{path}: dense_layers.0 has {inputs} inputs, not {found.conv[-1]} square feature maps")
    net = BraggNN(found, side + 2 * len(found.conv))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from error
    return net.eval()


def save_checkpoint(net: BraggNN, path: Path) -> None:
    """Write the weights in the upstream form (contiguous float32 on the CPU)."""
    state = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in net.state_dict().items()}
    save_tensors(state, path)
