"""Inference against the published network in eager torch: the same patches, the same threads, the same run.

    python benchmarks/inference.py --output benchmarks/inference.json

The baseline is the published network as upstream executes it (braggnn_edge/locate/eager), float32, at the best of five
batch sizes and at upstream's 512. Every contender has normalization included, from detector counts to px. Rounds are
interleaved; a ratio is that of one round, the median of all is given. Weights are seeded, or those of --run.

For a GPU see benchmarks/gpu.sh.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.locate.float_forms import float_locator
from braggnn_edge.locate.fused import multiplications
from braggnn_edge.locate.locator import Locator
from braggnn_edge.training import train
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from quant.contract import locator as locators
from quant.exchange.compiled_locator import compiled_locator
from quant.exchange.locators import emulator_locator, qdq_locator
from quant.exchange.qdq import TARGETS

EAGER_BATCHES = (16, 32, 64, 128, 512)
CPU_FORMS = (
    ("compiled", "float32"),
    ("onnxruntime", "float32"),
    ("onnxruntime", "float16"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("torch", "float16"),
)
POOL = 20_000


def patches(count: int, size: int = 11) -> NDArray[np.uint16]:
    """Seeded Gaussian spots on a background, with shot noise: (count, size, size) counts."""
    rng = np.random.default_rng(5)
    row, col = np.indices((size, size))
    centre = rng.uniform(size // 2 - 1, size // 2 + 1, (count, 2, 1, 1))
    width = rng.uniform(0.8, 2.0, (count, 1, 1))
    height = 10 ** rng.uniform(2, 4, (count, 1, 1))
    spot = height * np.exp(-((row - centre[:, 0]) ** 2 + (col - centre[:, 1]) ** 2) / (2 * width**2))
    return rng.poisson(spot + 20).astype(np.uint16)


def networks(run: Path | None) -> dict[str, BraggNN]:
    """The published network and the compact one of configs/simulated.toml, trained when a run is given."""
    if run is not None:
        return {
            "full": train.load_network(run / "train", "full"),
            "compact": train.load_network(run / "compact", "compact"),
        }
    text = (Path(__file__).parent.parent / "configs/simulated.toml").read_text()
    table = tomllib.loads(text)["compact"]["network"]
    compact = NetworkSpec(tuple(table["conv"]), tuple(table["dense"]), table["attention"], table["slope"])
    torch.manual_seed(5)
    return {"full": BraggNN(NetworkSpec(), 11).eval(), "compact": BraggNN(compact, 11).eval()}


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def described(locator: Locator, found: NDArray[np.float64], reference: NDArray[np.float64]) -> dict[str, Any]:
    error = np.linalg.norm(found - reference, axis=1)
    figures = {f"p{q}": float(np.percentile(error, q)) for q in (50, 95)}
    return {
        "backend": locator.name,
        "precision": locator.precision,
        "batch": locator.batch,
        "error_px": {"mean": float(error.mean()), **figures, "max": float(error.max())},
    }


def on_cpu(run: Path | None, threads: int, rounds: int) -> dict[str, Any]:
    """Rates and ratios of all forms on the CPU."""
    given = patches(POOL)
    nets = networks(run)
    baselines = {}
    for batch in EAGER_BATCHES:
        baselines[batch] = float_locator(nets["full"], "eager")
        baselines[batch].batch = batch
    contenders: dict[str, tuple[Locator, dict[str, Any]]] = {}
    for name, net in nets.items():
        reference = float_locator(net, "torch", precision="float64").locate(given[:4096])
        for backend, precision in CPU_FORMS:
            locator = float_locator(net, backend, precision=precision, threads=threads)
            entry = {"network": name, **described(locator, locator.locate(given[:4096]), reference)}
            contenders[f"{name} {backend} {precision}"] = (locator, entry)
    if run is not None and (run / "qat/locator.json").exists():
        found = locators.load(run / "qat/locator.json")
        emulator = emulator_locator(found)
        reference = emulator.locate(given[:4096])
        forms = [compiled_locator(found, threads), *(qdq_locator(found, target, threads=threads) for target in TARGETS)]
        for locator in (emulator, *forms):
            entry = {"network": "integer", **described(locator, locator.locate(given[:4096]), reference)}
            contenders[f"integer {locator.name}"] = (locator, entry)
    baseline_rates: dict[int, list[float]] = {batch: [] for batch in EAGER_BATCHES}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for batch, baseline in baselines.items():
            used = given[:2048]
            baseline_rates[batch].append(len(used) / timed(lambda r=baseline, u=used: r.locate(u)))
        for name, (locator, entry) in contenders.items():
            used = given if entry["network"] == "compact" else given[:4096]
            rates[name].append(len(used) / timed(lambda c=locator, u=used: c.locate(u)))
    medians = {batch: float(np.median(values)) for batch, values in baseline_rates.items()}
    best = max(medians, key=lambda batch: medians[batch])
    rows = []
    for name, (_, entry) in contenders.items():
        entry["patches_per_s"] = round(float(np.median(rates[name])))
        for key, batch in (("ratio_to_eager_best_batch", best), ("ratio_to_eager_batch_512", 512)):
            ratios = np.array(rates[name]) / np.array(baseline_rates[batch])
            entry[key] = round(float(np.median(ratios)), 2)
        rows.append(entry)
    return {
        "threads": threads,
        "rounds": rounds,
        "weights": "seeded" if run is None else f"trained ({run.name})",
        "eager_patches_per_s": {str(batch): round(value) for batch, value in medians.items()},
        "eager_best_batch": best,
        "multiplications": {
            "published": multiplications(nets["full"].spec, 11, fused=False),
            "published, multiplied out": multiplications(nets["full"].spec, 11, fused=True),
            "compact": multiplications(nets["compact"].spec, 11, fused=True),
        },
        "forms": rows,
    }


def at_scale(name: str, count: int, threads: int) -> dict[str, Any]:
    """``count`` patches streamed through the compiled network; seconds, and this process's memory at its peak."""
    locator = float_locator(networks(None)[name], "compiled", threads=threads)
    pool = patches(POOL)
    locator.locate(pool[:64])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def pieces() -> Iterator[NDArray[np.uint16]]:
        for start in range(0, count, len(pool)):
            yield pool[: min(len(pool), count - start)]

    total = 0
    started = time.perf_counter()
    for offsets in locator.stream(pieces()):
        total += len(offsets)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "network": name, "peaks": total, "seconds": round(seconds, 4), "peaks_per_s": round(total / seconds),
        "peak_memory_mib": round(after / 1024), "memory_grown_mib": round((after - before) / 1024),
    }  # fmt: skip


def scale(threads: int, largest: int) -> list[dict[str, Any]]:
    """Each size in a process of its own, so that its peak memory is its own."""
    rows = []
    for name in ("full", "compact"):
        count = 1000
        while count <= largest:
            command = [sys.executable, __file__, "--scale-one", name, str(count), "--threads", str(threads)]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rows.append(json.loads(found))
            print(rows[-1], flush=True)
            count *= 10
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file; parts measured now replace those it holds")
    parser.add_argument("--run", type=Path, help="a finished run whose networks are used")
    parser.add_argument("--part", choices=("rates", "scale", "both"), default="both", help="of the CPU's measurements")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--largest", type=int, default=10_000_000, help="peaks, for the cost against work")
    parser.add_argument("--scale-one", nargs=2, metavar=("NETWORK", "PEAKS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.scale_one:
        print(json.dumps(at_scale(arguments.scale_one[0], int(arguments.scale_one[1]), arguments.threads)))
        return 0
    document: dict[str, Any] = {}
    if arguments.output and arguments.output.exists():
        document = json.loads(arguments.output.read_text())
    document["machine"] = {"processor": _processor(), "torch": torch.__version__, "python": platform.python_version()}
    if arguments.part != "scale":
        document["rates"] = on_cpu(arguments.run, arguments.threads, arguments.rounds)
    if arguments.part != "rates":
        document["scale"] = {"threads": arguments.threads, "rows": scale(arguments.threads, arguments.largest)}
    text = json.dumps(document, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)
    return 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
