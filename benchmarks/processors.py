"""Rates of the compiled network and the compiled fit for each instruction set that this processor has.

    python benchmarks/processors.py --output benchmarks/processors.json

One process a row and thread count: it compiles both kernels for `-march=` x86-64-v2 (SSE), x86-64-v3 (AVX2) or
x86-64-v4 (AVX-512), and keeps torch to the same set by its own variables. onnxruntime has no such variable and always
uses all that the processor has. Baselines: the published network in eager torch at the best of three batches, for
both networks; scipy's plain fit (benchmarks/fits.py) on the same cores. Times are those of the processor, the best of
several rounds, interleaved. Weights are seeded.
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
#: Patches that a network is timed on, and batches of the baseline.
COUNTS, BATCHES = {"published": 1024, "compact": 8192}, (16, 64, 256)
PEAKS, PLAIN_PEAKS = 4096, 64


def processor() -> dict[str, Any]:
    """Name and instruction sets of the first processor."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    flags = found.get("flags", "").split()
    wanted = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512vl", "avx512_vnni", "avx512_bf16")
    return {"name": found.get("model name", "unknown"), "instruction_sets": [flag for flag in wanted if flag in flags]}


def best(calls: dict[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, float]:
    """Units a second of calls with their number of units: the best of interleaved rounds."""
    rates = dict.fromkeys(calls, 0.0)
    for _ in range(rounds):
        for name, (call, units) in calls.items():
            began = time.perf_counter()
            call()
            rates[name] = max(rates[name], units / (time.perf_counter() - began))
    return rates


def row(march: str, threads: int, rounds: int) -> dict[str, Any]:
    """All rates of one instruction set, in this process."""
    import torch  # noqa: PLC0415  # after the variables that bound it

    from braggnn_edge.fit import kernel  # noqa: PLC0415
    from braggnn_edge.locate import compiled  # noqa: PLC0415
    from braggnn_edge.locate.float_forms import float_locator  # noqa: PLC0415

    sys.path.insert(0, str(Path(__file__).parent))
    import fits  # noqa: PLC0415
    import inference  # noqa: PLC0415

    for module in (kernel, compiled):
        vars(module)["FLAGS"] = tuple(flag.replace("native", march) for flag in vars(module)["FLAGS"])
    torch.set_num_threads(threads)
    nets = inference.networks(None)
    nets = {"published": nets["full"], "compact": nets["compact"]}
    given = inference.patches(max(COUNTS.values()))
    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    errors = {}
    for batch in BATCHES:
        eager = float_locator(nets["published"], "eager")
        eager.batch = batch
        calls[f"eager {batch}"] = (lambda e=eager: e.locate(given[:512]), 512)
    for name, net in nets.items():
        some = given[: COUNTS[name]]
        exact = float_locator(net, "torch", precision="float64").locate(some[:1024])
        for backend in ("compiled", "onnxruntime"):
            locator = float_locator(net, backend, threads=threads)
            errors[f"{name} {backend}"] = float(np.abs(locator.locate(some[:1024]) - exact).max())
            calls[f"{name} {backend}"] = (lambda c=locator, s=some: c.locate(s), len(some))
    truth, peaks = fits.simulate(PEAKS, 1, 300.0, 20_000.0)
    calls["fit"] = (lambda: fits.ours(peaks, threads), PEAKS)
    calls["plain fit"] = (lambda: [fits.seven(peak) for peak in peaks[:PLAIN_PEAKS]], PLAIN_PEAKS)
    for call, _ in calls.values():
        call()
    rates = best(calls, rounds)
    eager_rate = max(rates[f"eager {batch}"] for batch in BATCHES)
    ratios = {
        f"{name} {form}": rates[f"{name} {form}"] / eager_rate for name in nets for form in ("compiled", "onnxruntime")
    }
    # scipy's plain fit has one thread; on several cores it would be that many times as fast.
    ratios["fit"] = rates["fit"] / (threads * rates["plain fit"])
    distance = np.linalg.norm(fits.ours(peaks, threads) - truth[:, :2], axis=1)
    return {
        "march": march, "threads": threads,
        "per_second": {name: round(value) for name, value in rates.items()},
        "ratio": {name: round(value, 2) for name, value in ratios.items()},
        "largest_error_px": errors, "fit_p50_px": float(np.median(distance)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--row", choices=SETS, help="this row alone, as JSON on standard output")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(row(arguments.row, arguments.threads[0], arguments.rounds)))
        return
    found: dict[str, Any] = {"processor": processor(), "load_average": list(os.getloadavg()), "rows": []}
    for march, (flag, torch_name, onednn_name) in SETS.items():
        if flag not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
            print(f"{march}: this processor has no {flag}; skipped", flush=True)
            continue
        bounds = {"ATEN_CPU_CAPABILITY": torch_name, "ONEDNN_MAX_CPU_ISA": onednn_name}
        for threads in arguments.threads:
            command = [sys.executable, __file__, "--row", march, "--threads", str(threads)]
            environment = os.environ | bounds | {"OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(
                [*command, "--rounds", str(arguments.rounds)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            found["rows"].append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(found["rows"][-1]), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
