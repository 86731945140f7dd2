"""The table ``[ablation]``: a grid of networks."""

from dataclasses import dataclass, field

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec, NetworkSpec


@dataclass(frozen=True)
class AblationSpec:
    """A grid of networks, and how each is trained ([ablation](../explanation/ablation.md))."""

    seeds: tuple[int, ...] = (1, 2, 3)  # of weights and batches, at least three
    # largest random shifts in training (the paper's m), 0 among them; test crops are shifted by up to each of
    # them
    shifts: tuple[int, ...] = (0, 1, 2)
    without_attention: tuple[int, ...] = (1,)  # those of `shifts` that are also trained without the non-local block
    network: NetworkSpec = field(default_factory=NetworkSpec)  # as for the full network; attention is what is varied
    loop: LoopSpec = field(default_factory=LoopSpec)  # as for the full network

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 3 or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise UserError(f"ablation: seeds {self.seeds} must be at least three different numbers of 0 or more")
        if 0 not in self.shifts or min(self.shifts) < 0 or len(set(self.shifts)) != len(self.shifts):
            raise UserError(f"ablation: shifts {self.shifts} must be different numbers of 0 or more, 0 among them")
        if len(set(self.without_attention)) != len(self.without_attention) or not set(self.without_attention) <= set(
            self.shifts
        ):
            raise UserError(
                f"ablation: without_attention {self.without_attention} must be some of shifts {self.shifts}"
            )
        if not self.network.attention:
            raise UserError("ablation: attention is what is varied; leave it out of network")

    def check(self, size: int, margin: int) -> None:
        """Refuse a grid for which patches of ``size`` px with a ``margin`` around them are not enough."""
        self.network.check_patch_size(size)
        if max(self.shifts) > margin:
            raise UserError(
                f"ablation: shifts {self.shifts} exceed the margin of {margin} px kept around the patches; "
                f"set shift = {max(self.shifts)} in [peaks]"
            )
