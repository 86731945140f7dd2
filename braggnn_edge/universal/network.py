"""A float network that travels: it corrects the squared centroid of a patch, and says how sure it is.

Its inputs are what firmware can make of counts with a shift: the pixels divided by the power of two that is just above
the brightest one, and that power. The squared centroid of these is the first estimate; dense layers predict what is
missing. A detector's rows and columns are alike, so the answer is the mean over the eight symmetries of the square: a
patch that is mirrored or turned has exactly the mirrored or turned answer.

The error of a position along an axis is taken as Laplace-distributed with a scale b of its own, which the network
predicts too. Source of the loss that joins the two: Seitzer et al., "On the pitfalls of heteroscedastic uncertainty
estimation", ICLR 2022 (beta-NLL), here for Laplace's distribution.
"""

import json
from abc import ABC, abstractmethod
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.turns import READING
from braggnn_edge.locate.calibration import Calibration
from braggnn_edge.training.centroid import squared_centroid

#: The network that ships.
SHIPPED = Path(__file__).parent.parent / "weights" / "universal.npz"
#: What files of this kind call themselves, and the version of what they hold.
SCHEMA, VERSION = "braggnn-edge universal network", 1
#: The patches that a centroid and the layers see at least.
_LEAST_SIZE = 3
#: Limits of ln b, px: beyond them the likelihood would chase single patches.
_LOWEST, _HIGHEST = LIMITS = -7.0, 3.0


class CentroidCorrection(nn.Module, ABC):
    """Patches (n, size, size) in counts to (n, 4): offset (row, col) in px from the centre pixel, and ln b of each.

    The squared centroid comes first; :meth:`missing`, which a kind of network gives, is what it lacks. size: odd, px.
    Negative counts are taken as 0. Raises UserError for a size that cannot be.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < _LEAST_SIZE or size % 2 == 0:
            raise UserError(f"universal network: size {size}; expected an odd size of at least {_LEAST_SIZE} px")
        self.size = size

    @abstractmethod
    def missing(self, pixels: Tensor, exponent: Tensor) -> Tensor:
        """(n, 4): correction (row, col) px and ln b, for pixels (n, size, size) and the exponent as an input (n, 1)."""

    def forward(self, patches: Tensor) -> Tensor:
        """One look at the patches as they lie; :meth:`answer` is the mean of eight."""
        pixels, exponent = scaled(patches)
        found = self.missing(pixels, (exponent[:, None] - 8) / 4)
        return torch.cat([squared_centroid(pixels) + found[:, :2], found[:, 2:].clamp(_LOWEST, _HIGHEST)], 1)

    def answer(self, patches: Tensor) -> Tensor:
        """(n, 4) of patches (n, size, size): the mean over the eight symmetries of the square.

        Of a patch without counts nothing is known: b is then the largest there is.
        """
        total = torch.zeros((len(patches), 4), dtype=torch.float32, device=patches.device)
        for flip_rows in (False, True):
            for flip_cols in (False, True):
                axes = [axis for axis, flip in ((1, flip_rows), (2, flip_cols)) if flip]
                seen = patches.flip(axes) if axes else patches
                for transposed in (False, True):
                    found = self(seen.transpose(1, 2) if transposed else seen)
                    if transposed:
                        found = found[:, [1, 0, 3, 2]]
                    signs = [-1.0 if flip else 1.0 for flip in (flip_rows, flip_cols)]
                    total += found * found.new_tensor([*signs, 1.0, 1.0])
        empty = patches.amax((1, 2)) <= 0  # there is no peak: nothing is known
        total[:, 2:] = torch.where(empty[:, None], 8 * _HIGHEST, total[:, 2:])
        return total / 8


class UniversalNetwork(CentroidCorrection):
    """Dense layers. dense: widths of the hidden ones. Raises UserError for a size or widths that cannot be."""

    def __init__(self, size: int, dense: tuple[int, ...]) -> None:
        super().__init__(size)
        if not dense or min(dense) < 1:
            raise UserError(f"universal network: dense {dense}; expected at least one width, all positive")
        self.dense = tuple(dense)
        widths = (size * size + 1, *dense, 4)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def missing(self, pixels: Tensor, exponent: Tensor) -> Tensor:
        return self.layers(torch.cat([pixels.flatten(1), exponent], 1))


def scaled(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (n, s, s) from 0 to below 1, and exponents (n,): counts are ``pixels * 2**exponent``, negative ones 0."""
    counts = patches.clamp(min=0)
    exponent = torch.ceil(torch.log2(counts.amax((1, 2)) + 1))
    return counts * torch.exp2(-exponent)[:, None, None], exponent


def laplace_loss(answers: Tensor, offsets: Tensor, beta: float) -> Tensor:
    """Mean loss of answers (n, 4) for true offsets (n, 2) px: Laplace's negative log-likelihood, weighted by b**beta.

    The weights are constants to the gradient and have a mean of one.
    """
    error, log_b = (answers[:, :2] - offsets).abs(), answers[:, 2:]
    weight = torch.exp(beta * log_b.detach())
    return (weight / weight.mean() * (error * torch.exp(-log_b) + log_b)).mean()


def save(network: UniversalNetwork, calibration: Calibration, provenance: dict[str, Any], path: Path) -> None:
    """Write a network as ``.npz``: float32 arrays and a document in JSON; the same contents give the same bytes."""
    document = {
        "schema": SCHEMA, "version": VERSION, "size": network.size, "dense": list(network.dense),
        "calibration": vars(calibration), "provenance": provenance,
    }  # fmt: skip
    arrays = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    with written_aside(path) as aside, aside.open("wb") as stream:  # by name, savez would add a suffix
        np.savez(stream, document=np.array(json.dumps(document)), **arrays)


def load(path: Path) -> tuple[UniversalNetwork, Calibration, dict[str, Any]]:
    """Read :func:`save`: the network, its calibration, and where it comes from.

    Raises UserError for a file of another kind or version, and for a damaged one.
    """
    try:
        with READING, path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            document = json.loads(str(file["document"]))
            if (document["schema"], document["version"]) != (SCHEMA, VERSION):
                raise UserError(
                    f"{path}: is {document['schema']!r} of version {document['version']}; expected {SCHEMA!r} of "
                    f"version {VERSION}: make it again with `braggnn-edge universal`"
                )
            network = UniversalNetwork(document["size"], tuple(document["dense"]))
            network.load_state_dict({name: _tensor(file[name]) for name in network.state_dict()})
            nodes = {name: tuple(map(float, values)) for name, values in document["calibration"].items()}
            return network.eval(), Calibration(**nodes), dict(document["provenance"])
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and torch raise many types for a damaged file
        raise UserError(
            f"{path}: not a universal network, or damaged ({type(error).__name__}: {error}); the one that ships is "
            "called `universal`, and `braggnn-edge universal` makes others"
        ) from error


def _tensor(array: NDArray[np.float32]) -> Tensor:
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise ValueError("its weights are not finite float32 numbers")
    return torch.from_numpy(array)
