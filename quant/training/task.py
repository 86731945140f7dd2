"""What a network of integers is trained for: batches as it sees them, and the loss of its answers."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.metrics import distances, validation_figures
from braggnn_edge.locate.calibration import Calibration
from braggnn_edge.training.dataset import Batches
from braggnn_edge.training.optimize import position_loss
from braggnn_edge.universal.network import LIMITS
from braggnn_edge.universal.train import calibrated
from quant.contract import emulate
from quant.contract.arithmetic import Codes, Format
from quant.contract.locator import IntegerLocator, normalized
from quant.contract.network import IntegerNetwork
from quant.contract.vectors import corner_case_inputs, random_inputs
from quant.training.circuit_spec import FrontEndSpec
from quant.training.examples import Examples

#: Half-width of the interval that holds 68.27 % of Laplace's distribution, over its scale b.
SIGMA_OVER_B = -math.log(1 - 0.6827)


class Task:
    """Batches of examples as a locator's network sees them: its inputs, what it corrects, and what would be right.

    sigma: whether the network has four outputs; share: weight of the teacher's answer in the target, from 0 to 1;
    teacher: of patches (n, size, size) in counts, where the examples do not hold its answers; beta, huber: of the loss
    with and without sigma.
    """

    def __init__(
        self,
        front_end: FrontEndSpec,
        examples: Examples,
        batch: int,
        seed: int,
        *,
        shift: int = 0,
        dihedral: bool = True,
        sigma: bool = False,
        huber: float = 0.0,
        beta: float = 0.5,
        share: float = 0.0,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.normalizer, self.base, self.output = front_end.made()
        self.window, self.size = front_end.window, examples.size
        self.exponent = front_end.exponent
        if shift > examples.data.shift:
            raise UserError(
                f"circuit: shift {shift} exceeds the margin of {examples.data.shift} px kept around patches"
            )
        self.examples, self.seed, self.shift, self.dihedral = examples, seed, shift, dihedral
        self.batches = self.of(batch)
        self.sigma, self.huber, self.beta = sigma, huber, beta
        taught = teacher is not None or examples.data.offsets.shape[1] > 2
        self.teacher, self.share = teacher, share if taught else 0.0
        self.input = Format(self.normalizer.bits, self.normalizer.bits, signed=False)
        patches, offsets = examples.held_out.centred()
        self.held_inputs, self.held_offsets = self.inputs(patches), offsets.numpy().astype(np.float64)
        self.held_values = self.values(self.held_inputs)
        self.held_base = self.base_of(self.held_inputs)

    def of(self, batch: int) -> Batches:
        """Batches of another size."""
        data = self.examples.data
        return Batches(data, min(batch, len(data)), self.shift, self.seed, self.dihedral)

    @property
    def outputs(self) -> int:
        """Of the network."""
        return 4 if self.sigma else 2

    def sample(self, count: int) -> Tensor:
        """Input values of the first training patches."""
        return self.values(self.inputs(self.examples.data.centred(stop=count)[0]))

    def inputs(self, patches: Tensor) -> NDArray[np.int64]:
        """Patches (n, size, size) in counts to inputs: codes (n, window, window), or flat with exponents."""
        edge = (self.size - self.window) // 2
        inner = slice(edge, self.size - edge)
        return normalized(self.normalizer, patches[:, inner, inner].numpy(), exponent=self.exponent)

    def values(self, inputs: NDArray[np.int64]) -> Tensor:
        """Codes to the network's input values (n, 1, window, window), or flat (n, inputs)."""
        values = torch.from_numpy(self.input.values(inputs).astype(np.float32))
        return values if self.exponent else values[:, None]

    def base_of(self, inputs: NDArray[np.int64]) -> NDArray[np.float64]:
        """The centroid's answers (n, 2) in px, 0 without one."""
        if self.base is None:
            return np.zeros((len(inputs), 2))
        codes = inputs[:, : self.window**2] if self.exponent else inputs
        return self.output.values(self.base.codes(codes.reshape(len(codes), self.window, self.window)))

    def batch(self, iteration: int, batches: Batches | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Input values of a batch, and two corrections (n, 2) px: that which would be right, and the target's."""
        patches, labels = (batches or self.batches)(iteration)
        truth, target = labels[:, :2], labels[:, :2]
        if self.share:
            with torch.no_grad():
                taught = labels[:, 2:] if self.teacher is None else self.teacher(patches)
                target = torch.lerp(truth, taught, self.share)
        inputs = self.inputs(patches)
        base = torch.from_numpy(self.base_of(inputs).astype(np.float32))
        return self.values(inputs), (truth - base, target - base)

    def loss(self, answers: Tensor, corrections: tuple[Tensor, Tensor]) -> Tensor:
        """Mean loss of a network's answers (n, 2 or 4).

        Without sigma that of the distances to the target. With it Laplace's negative log-likelihood, weighted by b to
        the power of beta (:func:`braggnn_edge.universal.network.laplace_loss`): the position follows the target, the
        scale b the distance from the truth.
        """
        truth, target = corrections
        if not self.sigma:
            return position_loss(answers, target, self.huber)
        position, log_b = answers[:, :2], (answers[:, 2:] - math.log(SIGMA_OVER_B)).clamp(*LIMITS)
        weight = torch.exp(self.beta * log_b.detach())
        missed = (position - target).abs() * torch.exp(-log_b.detach())
        unsure = (position.detach() - truth).abs() * torch.exp(-log_b) + log_b
        return (weight / weight.mean() * (missed + unsure)).mean()

    def figures(self, answers: NDArray[np.float64]) -> dict[str, float]:
        """Of a network's answers to the held-out patches."""
        return validation_figures(distances(answers[:, :2] + self.held_base, self.held_offsets))


def calibrated_locator(task: Task, network: IntegerNetwork) -> IntegerLocator:
    """The locator around a network of integers, its sigma calibrated on the task's held-out patches."""
    made = IntegerLocator(
        task.size, task.window, task.normalizer, network, task.base, task.output,
        Calibration() if task.sigma else None,
    )  # fmt: skip
    if not task.sigma:
        return made
    codes = made.run(task.held_inputs)
    return replace(made, calibration=calibrated(task.output.values(codes), task.held_offsets))


def require_same_codes(locator: IntegerLocator, held_inputs: Codes, trained: Callable[[Codes], Codes]) -> None:
    """Refuse integers that differ from the trained network on a held-out, corner-case or random patch."""
    network = locator.network
    some = random_inputs(network, 500, np.random.default_rng(0))
    codes = np.concatenate([held_inputs, corner_case_inputs(network), some])
    wrong = int((trained(codes) != emulate.run(network, codes).outputs).any(axis=1).sum())
    if wrong:
        raise UserError(f"the integer network differs from the trained one on {wrong} of {len(codes)} patches")
