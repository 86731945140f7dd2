"""The table ``[hls]``: what projects are written, for which boards, with which options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from braggnn_edge.core.errors import UserError
from hls.project.targets import DEFAULT_TARGET, target

IO_TYPES = ("io_parallel", "io_stream")


STRATEGIES = ("Latency", "Resource")


#: Back ends whose project this module completes and whose simulation is proved; docs/reference/hls_backends.md has
#: the others.
BACKENDS = ("Vitis", "Vivado")


def check_options(backend: str, io_type: str, clock_mhz: float, strategy: str, reuse: int | tuple[int, ...]) -> None:
    """Refuse what no project can be written for, before there is a network; see :func:`write_project`."""
    if backend not in (*BACKENDS, ACCELERATOR):
        raise UserError(
            f"back end {backend!r} is not offered; expected {' or '.join(BACKENDS)} "
            "(docs/reference/hls_backends.md says why)"
        )
    if io_type not in IO_TYPES:
        raise UserError(f"io type {io_type!r} is unknown; expected one of {', '.join(IO_TYPES)}")
    if strategy not in STRATEGIES:
        raise UserError(f"strategy {strategy!r} is unknown; expected one of {', '.join(STRATEGIES)}")
    if not clock_mhz > 0:
        raise UserError(f"clock of {clock_mhz} MHz is impossible; expected a positive frequency")
    for factor in (reuse,) if isinstance(reuse, int) else reuse:
        if factor < 1:
            raise UserError(f"reuse factor {factor} is impossible; expected 1 or more")


#: The back end of hls4ml that writes it, for Vivado HLS.
ACCELERATOR = "VivadoAccelerator"


@dataclass(frozen=True)
class BoardSpec:
    """The network for a further board: a project for each io type in `boards/<target>/`.

    With no strategy, reuse and keys_per_cycle of its own the sources are those of the first projects, byte for byte.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"parallel": "keys_per_cycle"}

    target: str  # a board as in `[hls]`; it may be that of `[hls]` with a `flow`
    # empty for projects like the others, or `"VivadoAccelerator"`, the board flow of hls4ml, for `zcu102`,
    # `u280`, `u250` and `pynq-z2`
    flow: str = ""
    io_types: tuple[str, ...] = ()  # one project each
    clock_mhz: float = 0.0  # clock to aim at
    strategy: str = ""  # `"Latency"` or `"Resource"`
    # hls4ml's reuse factor, products a multiplier makes: one number, or one a layer: convolutions, hidden dense
    # layers, last dense layer
    reuse: int | tuple[int, ...] = 0
    # keys of an attention block handled in a cycle ([attention_hls.md](../explanation/attention_hls.md))
    keys_per_cycle: int = 0

    def __post_init__(self) -> None:
        _as_tuple(self, "reuse")
        target(self.target)
        if self.keys_per_cycle < 0:
            raise UserError(
                f"hls.boards: keys_per_cycle {self.keys_per_cycle} must be at least 1, or 0 for that of [hls]"
            )
        if self.flow not in ("", ACCELERATOR):
            raise UserError(f"hls.boards: flow {self.flow!r} is not offered; expected {ACCELERATOR} or nothing")


@dataclass(frozen=True)
class HlsSpec:
    """The HLS projects. Those of `target` are the ones that are simulated.

    With the Latency strategy a reuse factor may be anything up to the layer's number of weights; it is the initiation
    interval of the layer's pipeline. With Resource it must cut the layer's weights into equal blocks; others are
    refused with the nearest that do.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"parallel": "keys_per_cycle"}

    io_types: tuple[str, ...] = ("io_parallel", "io_stream")  # one project each
    backend: str = "Vitis"  # `"Vitis"` or `"Vivado"`
    target: str = DEFAULT_TARGET  # board: `zcu102`, `zcu104`, `u280`, `u250`, `vcu118`, `pynq-z2`
    clock_mhz: float = 200.0  # clock to aim at
    # `"Latency"` or `"Resource"`; empty: Latency, or Resource where no `reuse` is given and a layer has more than 4096
    # weights a position
    strategy: str = ""
    # hls4ml's reuse factor, products a multiplier makes: one number, or one a layer: convolutions, hidden dense
    # layers, last dense layer; 0: 1 with Latency, and with Resource so that no layer has more than 512 multipliers
    reuse: int | tuple[int, ...] = 0
    vectors: int = 200  # test peaks among the golden vectors
    # keys of an attention block handled in a cycle ([attention_hls.md](../explanation/attention_hls.md))
    keys_per_cycle: int = 8
    boards: tuple[BoardSpec, ...] = ()  # further boards, tables below ([hls_backends.md](hls_backends.md))

    def __post_init__(self) -> None:
        _as_tuple(self, "reuse")
        if not self.io_types or len(set(self.io_types)) != len(self.io_types):
            raise UserError(f"hls: io_types {self.io_types} must name each io type once")
        if self.backend not in BACKENDS:
            flow = "; it is a flow of [[hls.boards]]" if self.backend == ACCELERATOR else ""
            raise UserError(f"hls: back end {self.backend!r} is not offered; expected {' or '.join(BACKENDS)}{flow}")
        for board in self.boards:
            if not set(board.io_types) <= set(self.io_types):
                raise UserError(
                    f"hls.boards: io_types {', '.join(board.io_types)} of {board.target}; expected some of those of "
                    f"[hls], {', '.join(self.io_types)}"
                )
        for io_type in self.io_types:
            for found in (settings_of(self), *(settings_of(self, board) for board in self.boards)):
                check_options(found.backend, io_type, found.clock_mhz, found.strategy, found.reuse)
        target(self.target)
        if self.vectors < 1:
            raise UserError(f"hls: vectors {self.vectors} must be at least 1")
        if self.keys_per_cycle < 1:
            raise UserError(f"hls: keys_per_cycle {self.keys_per_cycle} must be at least 1")
        names = [(board.target, board.flow) for board in self.boards]
        if len(set(names)) != len(names) or (self.target, "") in names:
            raise UserError(
                f"hls.boards: {', '.join(name for name, _ in names)} beside target {self.target}: name each board and "
                "flow once"
            )


@dataclass(frozen=True)
class Settings:
    """What a project is written with, all defaults filled in."""

    backend: str
    target_name: str
    clock_mhz: float
    strategy: str
    reuse: int | tuple[int, ...]
    keys_per_cycle: int


def settings_of(spec: HlsSpec, board: BoardSpec | None = None) -> Settings:
    first = Settings(
        spec.backend, spec.target, spec.clock_mhz, spec.strategy or "Latency", spec.reuse or 1, spec.keys_per_cycle
    )
    if board is None:
        return first
    return replace(
        first,
        backend=board.flow or first.backend,
        target_name=board.target,
        clock_mhz=board.clock_mhz or first.clock_mhz,
        strategy=board.strategy or first.strategy,
        reuse=board.reuse or first.reuse,
        keys_per_cycle=board.keys_per_cycle or first.keys_per_cycle,
    )


def _as_tuple(spec: Any, name: str) -> None:
    """A TOML array given to a dataclass directly arrives as a list."""
    value = getattr(spec, name)
    if isinstance(value, Sequence):
        if not value:
            raise UserError(f"hls: {name} is empty; give one number for all layers or one for each")
        object.__setattr__(spec, name, tuple(value))
