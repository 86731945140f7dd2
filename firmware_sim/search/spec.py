"""The table ``[search]``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec

#: Keys of the front end that are chosen where the table names choices.
OPTIONAL = ("discarded_bits", "subtract")


@dataclass(frozen=True)
class SearchSpec:
    """How long to search, where trials are kept, and what they may choose from ([search](../how_to/search.md)).

    Equal ends of a range fix a value. All else is that of `[circuit]`, which is itself the first trial where it lies in
    the space.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"pressed": "budgeted"}

    trials: int = 100  # that have a result or were refused, over all processes
    # `""`: `search.db` in the run directory; a database URL; `"journal:PATH"` ([search.md](../how_to/search.md))
    storage: str = ""
    study: str = "search"  # its name in the storage
    # `"front"` (changes what is good), `"tpe"`, `"nsga2"` or `"random"`
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    seed: int = 0  # added to the run's, for what is chosen, not for the training
    startup: int = 6  # trials drawn at random first; the generation of `"nsga2"`
    # of a trial, with defaults of its own below
    float_loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(256, 3e-3, "one_cycle", max_iterations=1500, evaluate_every=1500, patience=0)
    )
    # of a trial, with defaults of its own below
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(256, 2e-3, "one_cycle", max_iterations=2500, evaluate_every=250, patience=0)
    )
    limit: int = 200_000  # look-up tables above which a circuit is not traced
    map: bool = False  # map the points of the front by Yosys as well
    windows: tuple[int, ...] = (7, 9)  # choices, px
    centroids: tuple[Literal["squared", "intensity", "none"], ...] = ("squared", "intensity", "none")  # choices
    # choices, low bits that a squared centroid leaves out; none: as in `[circuit.front_end]`
    discarded_bits: tuple[int, ...] = ()
    # choices, whether the window's minimum is subtracted; none: as in `[circuit.front_end]`
    subtract: tuple[bool, ...] = ()
    kernels: tuple[int, ...] = (3,)  # choices, px
    widths: tuple[Literal["channel", "layer", "fixed"], ...] = ("channel", "layer", "fixed")  # choices
    budgeted: tuple[bool, ...] = (True, False)  # whether into a budget of look-up tables: choices
    convolutions: tuple[int, int] = (0, 1)  # how many, lowest and highest
    channels: tuple[int, int] = (2, 6)  # of each
    layers: tuple[int, int] = (1, 3)  # hidden dense ones
    units: tuple[int, int] = (6, 48)  # of each
    input_bits: tuple[int, int] = (4, 8)  # lowest and highest
    weight_bits: tuple[int, int] = (3, 8)  # lowest and highest
    activation_bits: tuple[int, int] = (3, 8)  # lowest and highest
    sparsity: tuple[float, float] = (0.0, 0.95)  # lowest and highest
    channel_sparsity: tuple[float, float] = (0.0, 0.4)  # lowest and highest
    lut_budget: tuple[int, int] = (600, 10_000)  # lowest and highest

    def __post_init__(self) -> None:
        if min(self.trials, self.startup - 1, self.limit, len(self.study)) < 1 or self.seed < 0:
            raise UserError(
                f"search: trials {self.trials} and limit {self.limit} must be positive, startup {self.startup} 2 or "
                f"more, seed {self.seed} 0 or more, study {self.study!r} not empty"
            )
        for name in ("windows", "centroids", "kernels", "widths", "budgeted"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise UserError(f"search: {name} {values} must be one or more different values")
        for name in OPTIONAL:
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise UserError(f"search: {name} {getattr(self, name)} must be different values, or none")
        if any(value < 1 or value % 2 == 0 for value in (*self.windows, *self.kernels)):
            raise UserError(f"search: windows {self.windows} and kernels {self.kernels} must be odd numbers of px")
        for name, (least, most) in _LIMITS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise UserError(
                    f"search: {name} [{low}, {high}] is not a range; expected lowest and highest, within {least} to "
                    f"{most}"
                )


#: Lowest and highest ends of the ranges.
_LIMITS: dict[str, tuple[float, float]] = {
    "convolutions": (0, 6),
    "channels": (1, 256),
    "layers": (0, 6),
    "units": (1, 512),
    "input_bits": (2, 12),
    "weight_bits": (2, 8),
    "activation_bits": (2, 8),
    "sparsity": (0.0, 0.99),
    "channel_sparsity": (0.0, 0.99),
    "lut_budget": (1, 10_000_000),
}
