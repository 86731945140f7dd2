"""The kernel of the non-local block, compiled alone, against its exact execution: every code of every step."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from hls.project.attention import Step, check_keys_per_cycle, check_tables, config_struct, constants, steps, table_luts
from hls.project.targets import TARGETS
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal, exp_table, nonlocal_codes, reciprocal_table, size_block
from quant.contract.layers import Linear

TEMPLATES = Path(str(importlib.util.find_spec("hls").origin)).parent / "templates"
HLS4ML = Path(str(importlib.util.find_spec("hls4ml").origin)).parent / "templates" / "vivado"

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

#: The harness of one block: codes on standard input, all traces and results of both interfaces on standard output.
HARNESS = Path(__file__).with_name("hls_nonlocal_harness.cpp")


def block(
    seed: int, side: int, channels: int, bits: int, e: int = 8, t: int = 5, m: int = 8, d: int = 6, fine: int = 0,
    inner: int = 0, pool: int = 1,
) -> NonLocal:  # fmt: skip
    """A block of random weights whose scores span the table, with saturations at every requantization."""
    rng = np.random.default_rng(seed)
    inner, x = inner or channels // 2, Format(bits, bits - 3, True)
    weight = Format(bits, bits - 1, True)

    def part(name: str, outputs: int, inputs: int, frac: int) -> Linear:
        return Linear(
            name, "conv2d", rng.integers(weight.low, weight.high, (outputs, inputs, 1, 1), endpoint=True), weight,
            rng.integers(-40, 40, outputs), Format(1, frac + weight.frac, True),
        )  # fmt: skip

    mixed = Format(bits, bits - 2 + fine, True)
    parts = {role: part(role, inner, channels, x.frac) for role in ("theta", "phi", "g")}
    parts["out"] = part("out", channels, inner, mixed.frac)
    formats = {
        "query": Format(bits, bits - 3, True), "key": Format(bits - 1, bits - 4, True),
        "value": Format(bits, bits - 2, True), "difference": Format(d, d - 3, False),
        "exponential": Format(e, e, False), "reciprocal": Format(m, m, False), "mixed": mixed,
    }  # fmt: skip
    tables = exp_table(formats["difference"], formats["exponential"]), reciprocal_table(t, m)
    return size_block("nlb", side * side, (x, x.low, x.high), parts, formats, tables, pool)


def corner_cases(layer: NonLocal, side: int, n: int) -> np.ndarray:
    """Input codes (n, C, side, side): the extremes, single pixels, two values only, and random."""
    rng = np.random.default_rng(5)
    to, shape = layer.input, (layer.theta.weight.shape[1], side, side)
    found = [np.full(shape, value) for value in (to.low, to.high, 0, -1)]
    for value in (to.low, to.high):
        lone = np.zeros(shape, np.int64)
        lone[:, side // 2, 0] = value
        found.append(lone)
    found += [rng.choice([to.low, to.high], shape) for _ in range(n // 3)]
    found += [rng.integers(-2, 3, shape) for _ in range(n // 3)]
    found += [rng.integers(to.low, to.high, shape, endpoint=True) for _ in range(n // 3)]
    return np.stack(found)


def compile_block(
    directory: Path, layer: NonLocal, keys_per_cycle: int, *flags: str, mutants: list[str] | None = None
) -> Path:
    """The harness with this block compiled in; ``mutants`` are texts of kernels to run beside the kernel itself."""
    kernels = [f"mutant_{i}" for i in range(len(mutants or []))]
    text = []
    for kernel, changed in zip(kernels, mutants or [], strict=True):
        text.append(changed.replace("nonlocal", kernel).replace("NONLOCAL", kernel.upper()))
    text.append(f"#define KERNELS(_) {' '.join(f'_({name})' for name in ('nonlocal', *kernels))}")
    for io_type in ("io_parallel", "io_stream"):
        text.append(config_struct(layer, keys_per_cycle, f"config_{io_type}", io_type, "nlb"))
    for name, constant in constants(layer).items():
        values = ", ".join(f"{v!r}" for v in constant.format.values(constant.codes.ravel()).tolist())
        text.append(f"static const config_io_stream::{name}_t {name}[{constant.codes.size}] = {{{values}}};")
    text.append(f"typedef {layer.input.ap_type} data_t;\ntypedef {layer.accumulator.ap_type} result_t;")
    inner = ", ".join(f'{{"{s.name}", {int(np.prod(s.shape))}, {s.frac}}}' for s in steps(layer))
    text.append(f"static const Step STEPS[] = {{{inner}}};")
    text.append(f"static const int FRAC_IN = {layer.input.frac}, FRAC_OUT = {layer.accumulator.frac};")
    text.append(f"#define CONSTANTS {', '.join(constants(layer))}")
    (directory / "block.h").write_text("\n".join(text) + "\n")
    program = directory / "harness"
    command = [
        "g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", *flags, f"-I{directory}",
        f"-I{TEMPLATES}", "-isystem", str(HLS4ML / "ap_types"), "-isystem", str(HLS4ML / "nnet_utils"),
        str(HARNESS), "-o", str(program),
    ]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[:3000]
    return program


def run(program: Path, layer: NonLocal, codes: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """By io type or mutant: every step's codes and the result "z", (n, ...), positions in rows and channels last."""
    channels = layer.theta.weight.shape[1]
    flat = codes.reshape(len(codes), channels, -1).transpose(0, 2, 1)
    made = subprocess.run(
        [str(program), str(len(codes))], input=np.ascontiguousarray(flat, np.int64).tobytes(), capture_output=True,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr.decode()[:3000]
    shapes = [*steps(layer), Step("z", (layer.positions, channels), layer.accumulator.frac)]
    sizes = [int(np.prod(step.shape)) for step in shapes]
    rows = np.frombuffer(made.stdout, np.int64).reshape(-1, len(codes), sum(sizes))
    found = {}
    for index, part in enumerate(rows):
        name = ("io_parallel", "io_stream")[index] if index < 2 else f"mutant_{index - 2}"
        split = np.split(part, np.cumsum(sizes)[:-1], axis=1)
        found[name] = {s.name: p.reshape(-1, *s.shape) for s, p in zip(shapes, split, strict=True)}
    return found


#: ap_types itself shifts negative words left to extend their sign: undefined in C++11, defined by every compiler.
SANITIZERS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize=shift-base", "-fno-sanitize-recover=all")

#: side, channels, bits, further widths, keys in a cycle.
CASES = {
    "p1": (3, 4, 8, {}, 1),
    "p8": (4, 6, 6, {"e": 6, "t": 4, "m": 7, "d": 5}, 8),
    "p16": (4, 4, 4, {"e": 4, "t": 3, "m": 5, "d": 4, "fine": 3}, 16),
    "p32": (6, 2, 8, {"e": 10, "t": 6, "m": 10, "d": 8}, 32),
    "pooled, p4": (6, 5, 6, {"inner": 3, "pool": 2}, 4),
    "pooled, p9": (9, 4, 5, {"e": 4, "t": 7, "m": 9, "d": 4, "fine": 1, "pool": 3}, 9),  # t: all bits of the sums
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_step_on_both_interfaces(name, tmp_path):
    side, channels, bits, widths, keys_per_cycle = CASES[name]
    layer = block(len(name), side, channels, bits, **widths)
    codes = corner_cases(layer, side, 60)
    expected = nonlocal_codes(layer, codes)
    found = run(
        compile_block(tmp_path, layer, keys_per_cycle, *(SANITIZERS if name == "p8" else ("-O0",))), layer, codes
    )
    z = expected.codes.reshape(len(codes), channels, -1).transpose(0, 2, 1)
    for io_type, traces in found.items():
        for step in steps(layer):
            np.testing.assert_array_equal(traces[step.name], expected.trace[step.name], f"{io_type} {step.name}")
        np.testing.assert_array_equal(traces["z"], z, io_type)
    # The codes reach what is to be proved: clipping, the whole table, short and long sums.
    assert min(expected.saturations.values()) > 0
    assert len(np.unique(expected.trace["t"])) > len(layer.exp_table) // 2
    assert not any(expected.overflows.values())


#: The step where each mutation of the kernel must show first, the text that is changed, and what it becomes.
MUTATIONS = {
    "a window that forgets its first pixel": ("k", "(row == 0 && col == 0)", "(row == 0 && col <= 1)"),
    "values of a window's last pixel": ("v", "if (!opens && value_maxima[window][d] > value)", "if (false)"),
    "a transposed key": ("s", "query[d] * keys[group][lane][d]", "query[d] * keys[group][d][lane]"),
    "maximum of the first keys": ("m", "|| largest > maximum)", ")"),
    # The axis of queries: what begins with the patch, and not with each row, runs over all of them.
    "maximum over queries": ("m", "if (group == 0 || largest", "if (step == 0 || largest"),
    "sum over queries": ("S", "            total = 0;\n", "            if (step == 0) total = 0;\n"),
    "dropped residual": ("z", "result[c] = out + pixel[c]", "result[c] = out"),
}


@pytest.mark.slow
def test_each_mutation_shows_at_its_step(tmp_path):
    layer = block(1, 6, 4, 6, inner=4, pool=2)
    codes = corner_cases(layer, 6, 30)
    expected = nonlocal_codes(layer, codes)
    text = (TEMPLATES / "nnet_nonlocal.h").read_text()
    assert all(text.count(before) == 1 for _, before, _ in MUTATIONS.values())
    mutants = [text.replace(before, after) for _, before, after in MUTATIONS.values()]
    found = run(compile_block(tmp_path, layer, 4, "-O0", "-Wno-unused", mutants=mutants), layer, codes)
    want = {**expected.trace, "z": expected.codes.reshape(len(codes), 4, -1).transpose(0, 2, 1)}
    for index, (what, (step, _, _)) in enumerate(MUTATIONS.items()):
        traces = found[f"mutant_{index}"]
        wrong = [name for name in traces if not np.array_equal(traces[name], want[name])]
        assert wrong[:1] == [step], what
    assert all(np.array_equal(found["io_stream"][name], want[name]) for name in want if name in found["io_stream"])


def test_parallelism_beyond_the_keys_is_refused():
    layer = block(1, 3, 2, 6)
    pooled = block(1, 9, 2, 6, pool=3)
    for keys_per_cycle in (0, 10):
        for refused in (layer, pooled):
            with pytest.raises(UserError, match=f"nlb: keys_per_cycle {keys_per_cycle} .* 1 to 9"):
                check_keys_per_cycle(refused, keys_per_cycle)
    assert "@" not in config_struct(layer, 9, "config", "io_stream", "nlb")


def test_tables_beyond_the_target_are_refused():
    layer = block(1, 3, 2, 6, e=8, d=6, t=5, m=8)
    assert table_luts(layer, 9) == 9 * 8 + 8  # 64 entries of 8 bits, 9 times; 32 entries of 8 bits
    check_tables(layer, 9, TARGETS["zcu102"])
    large = block(1, 3, 2, 6, e=16, d=20)
    assert table_luts(large, 9) == 9 * 16 * 16384 + 8
    with pytest.raises(UserError, match=r"nlb: its tables of 1048576 exponentials, 9 copies, .* zcu102 has 274080"):
        check_tables(large, 9, TARGETS["zcu102"])
