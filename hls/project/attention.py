"""The non-local block as the HLS kernel ``nnet_nonlocal.h`` takes it: its types, its constants, its steps."""

from dataclasses import dataclass

from braggnn_edge.core.errors import UserError
from hls.project.precision import bias_format
from hls.project.targets import Target
from hls.project.test_bench import render
from quant.contract.arithmetic import Codes, Format
from quant.contract.attention import NonLocal

#: Roles of the block's four 1 x 1 convolutions.
PARTS = ("theta", "phi", "g", "out")

#: Names of the kernel's types and, in the order of its arguments, of its constant arrays.
TYPES = (
    *(f"{role}_accum" for role in PARTS), "score", "total", "weighted", "query", "key", "value", "index", "mixed",
)  # fmt: skip
CONSTANTS = (*(f"{role}_{what}" for role in PARTS for what in ("weight", "bias")), "exp_table", "reciprocal_table")


@dataclass(frozen=True)
class Constant:
    """An array that is compiled in: its codes in the kernel's order and their format."""

    codes: Codes
    format: Format


@dataclass(frozen=True)
class Step:
    """An inner result of the block, for one patch: its name in :class:`NonLocalResult`, shape, frac."""

    name: str
    shape: tuple[int, ...]
    frac: int


def types(block: NonLocal) -> dict[str, tuple[Format, bool]]:
    """The kernel's types by name: the format, and whether an assignment to it requantizes (floor, saturate)."""
    exact = {f"{role}_accum": getattr(block, role).accumulator for role in PARTS}
    exact |= {"score": block.score, "total": block.total, "weighted": block.weighted}
    # The index of the exponential's table is t itself, the codes of the difference's format.
    rounded = {
        "query": block.query, "key": block.key, "value": block.value, "index": block.difference, "mixed": block.mixed,
    }  # fmt: skip
    return {name: (to, False) for name, to in exact.items()} | {name: (to, True) for name, to in rounded.items()}


def constants(block: NonLocal) -> dict[str, Constant]:
    """The kernel's arrays by name, in the order of its arguments."""
    found = {}
    for role in PARTS:
        part = getattr(block, role)
        found[f"{role}_weight"] = Constant(part.weight.reshape(len(part.weight), -1), part.weight_format)
        found[f"{role}_bias"] = Constant(part.bias, bias_format(part))
    found["exp_table"] = Constant(block.exp_table, block.exponential)
    found["reciprocal_table"] = Constant(block.reciprocal_table, block.reciprocal)
    return found


def sizes(block: NonLocal, keys_per_cycle: int) -> dict[str, int]:
    """The kernel's numbers by name. ``keys_per_cycle``: keys handled in a cycle, 1 to the number of keys."""
    check_keys_per_cycle(block, keys_per_cycle)
    inner, channels = block.theta.weight.shape[:2]
    return {
        "positions": block.positions,
        "side": block.side,
        "pool": block.pool,
        "channels": channels,
        "inner": inner,
        "parallel": keys_per_cycle,
        "exp_entries": len(block.exp_table),
        "reciprocal_index_bits": block.index_bits,
    }


def check_keys_per_cycle(block: NonLocal, keys_per_cycle: int) -> None:
    """Refuse a parallelism that has no meaning."""
    if not 1 <= keys_per_cycle <= block.keys:
        raise UserError(
            f"layer {block.name}: keys_per_cycle {keys_per_cycle} is impossible; "
            f"expected 1 to {block.keys}, the number of keys"
        )


def table_luts(block: NonLocal, keys_per_cycle: int) -> int:
    """LUTs of six inputs (64 bits each) for the block's tables: the exponential's in ``keys_per_cycle`` copies."""
    exponential = -(-len(block.exp_table) // 64) * block.exponential.bits
    return keys_per_cycle * exponential + -(-len(block.reciprocal_table) // 64) * block.reciprocal.bits


def check_tables(block: NonLocal, keys_per_cycle: int, target: Target) -> None:
    """Refuse tables that the target cannot hold."""
    needed = table_luts(block, keys_per_cycle)
    if needed > target.luts:
        raise UserError(
            f"layer {block.name}: its tables of {len(block.exp_table)} exponentials, {keys_per_cycle} copies, and "
            f"{len(block.reciprocal_table)} reciprocals need {needed} look-up tables, {target.name} has {target.luts}; "
            "use fewer bits for the difference or the reciprocal's index, or fewer keys in a cycle"
        )


def steps(block: NonLocal) -> tuple[Step, ...]:
    """The block's inner results in the order of computing; k and v are those that are held, after any pooling."""
    n, keys = block.positions, block.keys
    inner, channels = block.theta.weight.shape[:2]
    return (
        Step("q", (n, inner), block.query.frac),
        Step("k", (keys, inner), block.key.frac),
        Step("v", (keys, inner), block.value.frac),
        Step("s", (n, keys), block.score.frac),
        Step("m", (n,), block.score.frac),
        Step("t", (n, keys), block.difference.frac),
        Step("e", (n, keys), block.exponential.frac),
        Step("S", (n,), block.total.frac),
        Step("a", (n, inner), block.weighted.frac),
        Step("R", (n,), block.reciprocal.frac),
        Step("y", (n, inner), block.mixed.frac),
        Step("o", (n, channels), block.out.accumulator.frac),
    )


def config_struct(block: NonLocal, keys_per_cycle: int, config: str, io_type: str, name: str) -> str:
    """The kernel's configuration as C++, its types spelled out: what hls4ml's template makes with named types."""
    requantizes = {True: ",AP_TRN,AP_SAT,0>", False: ">"}
    defined = {key: f"{to.ap_type[:-1]}{requantizes[rounds]}" for key, (to, rounds) in types(block).items()}
    defined |= {key: constant.format.ap_type for key, constant in constants(block).items()}
    return render_config(config, io_type, name, sizes(block, keys_per_cycle), defined)


def render_config(config: str, io_type: str, name: str, numbers: dict[str, int], defined: dict[str, str]) -> str:
    """The configuration struct: its numbers, and its types by name (without ``_t``)."""
    return render(
        "nonlocal_config.h",
        {
            "CONFIG": config, "IO_TYPE": io_type, "NAME": name,
            "SIZES": "\n".join(f"    static const unsigned {key} = {value};" for key, value in numbers.items()),
            "TYPES": "\n".join(f"    typedef {value} {key}_t;" for key, value in defined.items()),
        },
    )  # fmt: skip
