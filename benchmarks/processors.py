"""Rates of the compiled networks and the compiled fit for each instruction set that this processor has.

    python benchmarks/processors.py --output benchmarks/processors.json
    python benchmarks/processors.py --part integers --output benchmarks/processors.json  # that part again, others kept

One process a row and thread count: it compiles the kernels for `-march=` x86-64-v2 (SSE), x86-64-v3 (AVX2) or
x86-64-v4 (AVX-512), and keeps torch to the same set by its own variables. onnxruntime has no such variable and always
uses all that the processor has. Baselines: the published network in eager torch at the best of three batches, for
all networks; scipy's plain fit (benchmarks/fits.py) on the same cores. Integers are those of a network of the compact
shape, and what ships in layers and as a circuit; their rivals are the emulator and int8 QDQ in onnxruntime. The best of
several rounds, interleaved; with one thread a time is that of the processor, so that other processes on it do not
count. Weights are seeded. ``auto`` says what the default back end takes with that instruction set.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Instruction sets: what g++ calls them, a flag of /proc/cpuinfo that they need, torch's and oneDNN's names for them.
SETS = {
    "x86-64-v2": ("sse4_2", "default", "SSE41"),
    "x86-64-v3": ("avx2", "avx2", "AVX2"),
    "x86-64-v4": ("avx512vl", "avx512", "AVX512_CORE"),
}
#: All that the processor has, products of 8 bits in fours (VNNI) too: of integers alone.
NATIVE = {"native": ("fpu", "", "")}
#: Patches that a network is timed on, and batches of the baseline.
COUNTS, BATCHES = {"published": 1024, "compact": 8192}, (16, 64, 256)
PEAKS, PLAIN_PEAKS = 4096, 64
#: The same of integers; the emulator is slow.
INTEGERS, EMULATED = {"compact": 8192, "shipped layers": 4096, "shipped circuit": 16384}, 512
#: Convolutions and dense layers of the compact network of configs/simulated.toml.
COMPACT = ((16, 1, 3, 3), (8, 16, 3, 3), (4, 8, 3, 3), (32, 100), (16, 32), (2, 16))


def processor() -> dict[str, Any]:
    """Name and instruction sets of the first processor."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    flags = found.get("flags", "").split()
    wanted = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512vl", "avx512_vnni", "avx512_bf16")
    return {"name": found.get("model name", "unknown"), "instruction_sets": [flag for flag in wanted if flag in flags]}


def best(
    calls: dict[str, tuple[Callable[[], Any], int]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Units a second of calls with their number of units: the best of interleaved rounds."""
    rates = dict.fromkeys(calls, 0.0)
    for _ in range(rounds):
        for name, (call, units) in calls.items():
            began = clock()
            call()
            rates[name] = max(rates[name], units / (clock() - began))
    return rates


def compact_integers(patches: Any) -> Any:
    """A locator of the compact shape: random 8-bit weights, activations scaled to use their 8 bits on patches."""
    from quant.contract import emulate, locator  # noqa: PLC0415
    from quant.contract.arithmetic import Format  # noqa: PLC0415
    from quant.contract.layers import Flatten, Linear, Requantize  # noqa: PLC0415
    from quant.contract.network import IntegerNetwork  # noqa: PLC0415
    from quant.contract.normalize import Normalizer  # noqa: PLC0415
    from quant.contract.sizing import size_accumulators  # noqa: PLC0415

    rng = np.random.default_rng(5)
    normalizer, frac, size = Normalizer(8), 8, patches.shape[1]
    layers: list[Any] = []
    for index, shape in enumerate(COMPACT):
        kind = "conv2d" if len(shape) == 4 else "dense"
        if kind == "dense" and layers[-2].kind == "conv2d":
            layers.append(Flatten("flatten"))
        weight, bias = rng.integers(-127, 128, shape), rng.integers(-4000, 4000, shape[0])
        layers.append(Linear(f"{kind}{index}", kind, weight, Format(8, 7, True), bias, Format(1, frac + 7, True)))
        network = size_accumulators(IntegerNetwork(size, Format(8, 8, False), tuple(layers)))
        sums = emulate.run(network, normalizer.codes(patches)).outputs
        last = index == len(COMPACT) - 1
        down = int(np.quantile(np.abs(sums), 0.99)).bit_length() - (11 if last else 8)
        to = Format(12 if last else 8, frac + 7 - max(down, 0), last)
        layers.append(Requantize(f"act{index}", "identity" if last else "relu", to))
        frac = to.frac
    network = size_accumulators(IntegerNetwork(size, Format(8, 8, False), tuple(layers)))
    return locator.of_layers(network, normalizer)


def integer_row(march: str, threads: int, rounds: int) -> dict[str, Any]:
    """Rates of integers with one instruction set, in this process; wrong: patches without the emulator's codes."""
    import torch  # noqa: PLC0415

    from braggnn_edge.core.errors import UserError  # noqa: PLC0415
    from braggnn_edge.locate.float_forms import float_locator  # noqa: PLC0415
    from quant.compiled import kernel  # noqa: PLC0415
    from quant.contract import locator as locators  # noqa: PLC0415
    from quant.exchange.compiled_locator import compiled_locator  # noqa: PLC0415
    from quant.exchange.locators import emulator_locator, qdq_locator  # noqa: PLC0415
    from quant.shipped import path_of  # noqa: PLC0415

    sys.path.insert(0, str(Path(__file__).parent))
    import inference  # noqa: PLC0415

    kernel.FLAGS = tuple(flag.replace("native", march) for flag in kernel.FLAGS)
    torch.set_num_threads(threads)
    given = inference.patches(max(INTEGERS.values()))
    published = inference.networks(None)["full"]
    made = {
        "compact": compact_integers(given[:500]),
        "shipped layers": locators.load(path_of("shipped")),
        "shipped circuit": locators.load(path_of("shipped_circuit")),
    }
    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    for batch in BATCHES:
        eager = float_locator(published, "eager")
        eager.batch = batch
        calls[f"eager {batch}"] = (lambda e=eager: e.locate(given[:512]), 512)
    wrong, absent = {}, {}
    for name, locator in made.items():
        reference = emulator_locator(locator)
        expected = reference.locate(given[:EMULATED])
        calls[f"{name} emulator"] = (lambda r=reference: r.locate(given[:EMULATED]), EMULATED)
        forms = {
            "compiled": lambda found=locator: compiled_locator(found, threads),
            "onnxruntime": lambda found=locator: qdq_locator(found, "cpu", threads=threads),
        }
        for form, opening in forms.items():
            try:
                opened = opening()
            except UserError as error:
                absent[f"{name} {form}"] = str(error)
                continue
            wrong[f"{name} {form}"] = int((opened.locate(given[:EMULATED]) != expected).any(axis=1).sum())
            count = INTEGERS[name]
            calls[f"{name} {form}"] = (lambda o=opened, c=count: o.locate(given[:c]), count)
    rates = best(calls, rounds, time.process_time if threads == 1 else time.perf_counter)
    eager_rate = max(rates[f"eager {batch}"] for batch in BATCHES)
    return {
        "march": march, "threads": threads,
        "per_second": {name: round(value) for name, value in rates.items()},
        "ratio": {name: round(value / eager_rate, 2) for name, value in rates.items() if not name.startswith("eager")},
        "wrong_of": EMULATED, "wrong": wrong, "absent": absent,
    }  # fmt: skip


def row(march: str, threads: int, rounds: int) -> dict[str, Any]:
    """All rates of one instruction set, in this process."""
    import torch  # noqa: PLC0415  # after the variables that bound it

    from braggnn_edge.fit import kernel  # noqa: PLC0415
    from braggnn_edge.locate import choice, compiled  # noqa: PLC0415
    from braggnn_edge.locate.float_forms import float_locator  # noqa: PLC0415

    sys.path.insert(0, str(Path(__file__).parent))
    import fits  # noqa: PLC0415
    import inference  # noqa: PLC0415

    # The choice is made here, with this instruction set, and is nobody else's.
    vars(choice).update(_remembered=lambda *_: None, _remember=lambda *_: None)
    for module in (kernel, compiled):
        vars(module)["FLAGS"] = tuple(flag.replace("native", march) for flag in vars(module)["FLAGS"])
    torch.set_num_threads(threads)
    nets = inference.networks(None)
    nets = {"published": nets["full"], "compact": nets["compact"]}
    given = inference.patches(max(COUNTS.values()))
    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    errors, chosen = {}, {}
    for batch in BATCHES:
        eager = float_locator(nets["published"], "eager")
        eager.batch = batch
        calls[f"eager {batch}"] = (lambda e=eager: e.locate(given[:512]), 512)
    for name, net in nets.items():
        some = given[: COUNTS[name]]
        exact = float_locator(net, "torch", precision="float64").locate(some[:1024])
        for backend in ("compiled", "onnxruntime", "auto"):
            locator = float_locator(net, backend, threads=threads)
            if backend == "auto":
                chosen[name] = locator.remark
            errors[f"{name} {backend}"] = float(np.abs(locator.locate(some[:1024]) - exact).max())
            calls[f"{name} {backend}"] = (lambda c=locator, s=some: c.locate(s), len(some))
    truth, peaks = fits.simulate(PEAKS, 1, 300.0, 20_000.0)
    calls["fit"] = (lambda: fits.ours(peaks, threads), PEAKS)
    calls["plain fit"] = (lambda: [fits.seven(peak) for peak in peaks[:PLAIN_PEAKS]], PLAIN_PEAKS)
    for call, _ in calls.values():
        call()
    rates = best(calls, rounds, time.process_time if threads == 1 else time.perf_counter)
    eager_rate = max(rates[f"eager {batch}"] for batch in BATCHES)
    ratios = {
        f"{name} {form}": rates[f"{name} {form}"] / eager_rate
        for name in nets
        for form in ("compiled", "onnxruntime", "auto")
    }
    # scipy's plain fit has one thread; on several cores it would be that many times as fast.
    ratios["fit"] = rates["fit"] / (threads * rates["plain fit"])
    distance = np.linalg.norm(fits.ours(peaks, threads) - truth[:, :2], axis=1)
    return {
        "march": march, "threads": threads,
        "per_second": {name: round(value) for name, value in rates.items()},
        "ratio": {name: round(value, 2) for name, value in ratios.items()},
        "auto": chosen, "largest_error_px": errors, "fit_p50_px": float(np.median(distance)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--part", choices=PARTS, nargs="+", default=list(PARTS), help="what to measure; others are kept"
    )
    parser.add_argument("--conditions", default="", help="what else the machine did, for the file")
    parser.add_argument("--row", choices=SETS | NATIVE, help="this row of --part alone, as JSON on standard output")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(PARTS[arguments.part[0]](arguments.row, arguments.threads[0], arguments.rounds)))
        return
    found: dict[str, Any] = {}
    if arguments.output and arguments.output.exists():
        found = json.loads(arguments.output.read_text())
    for part in arguments.part:
        found |= measured(part, arguments.threads, arguments.rounds, arguments.conditions)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


def measured(part: str, threads: list[int], rounds: int, conditions: str) -> dict[str, Any]:
    """Rows of a part, with the processor and what else ran: that of floats and fits is the file's first level."""
    found: dict[str, Any] = {"processor": processor(), "load_average": list(os.getloadavg()), "rows": []}
    if conditions:
        found["conditions"] = conditions
    for march, (flag, torch_name, onednn_name) in (SETS | (NATIVE if part == "integers" else {})).items():
        if flag not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
            print(f"{march}: this processor has no {flag}; skipped", flush=True)
            continue
        bounds = {"ATEN_CPU_CAPABILITY": torch_name, "ONEDNN_MAX_CPU_ISA": onednn_name} if torch_name else {}
        for count in threads:
            command = [sys.executable, __file__, "--row", march, "--part", part, "--threads", str(count)]
            environment = os.environ | bounds | {"OMP_NUM_THREADS": str(count)}
            done = subprocess.run(
                [*command, "--rounds", str(rounds)], env=environment, check=True, capture_output=True, text=True
            )
            found["rows"].append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(found["rows"][-1]), flush=True)
    return found if part == "floats" else {part: found}


#: What is measured, each by a function of instruction set, threads and rounds.
PARTS: dict[str, Callable[[str, int, int], dict[str, Any]]] = {"floats": row, "integers": integer_row}


if __name__ == "__main__":
    main()
