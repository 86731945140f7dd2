"""Stage "csim": every form of the network on the same patches, compared code for code, and the test set's positions.

Forms: the quantized PyTorch network in float64, QONNX by its executor, the C simulation of every project, each against
the integer network. A single differing code fails the stage; what was found stays in its ``.partial`` folder.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json, written_aside
from braggnn_edge.peaks.table import TEST, PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.training import train
from firmware_sim.forms import csim
from firmware_sim.forms.compare import Comparison, compare_normalizer, simulate
from firmware_sim.verification.vectors import hostile_codes, hostile_counts
from hls.cost.hardware import hardware_rows
from hls.project.layered import load_project
from quant.contract import emulate, network
from quant.contract.arithmetic import Codes
from quant.contract.attention import NonLocal
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize
from quant.exchange.execute import run_qonnx
from quant.training import qat
from quant.training.plan import BitPlan
from quant.training.qnet import eval_exact


@dataclass(frozen=True)
class CsimSpec:
    """patches: peaks compared code for code at least, test peaks first, then the others of the scans, then random
    input codes; hostile patches come on top. chunk: patches simulated at a time.
    """

    patches: int = 20_000
    chunk: int = 500

    def __post_init__(self) -> None:
        if self.patches < 1 or self.chunk < 1:
            raise UserError(f"csim: patches {self.patches} and chunk {self.chunk} must be at least 1")


@dataclass(frozen=True)
class Inputs:
    """Detector values (m, size, size) and all input codes (n >= m): first those of the values, then bare codes.

    The first ``test`` patches are the test peaks; ``hostile`` counts the hostile patches of both kinds.
    """

    values: NDArray[np.float64]
    codes: Codes
    test: int
    hostile: int


def inputs(table: PeakTable, integer: IntegerNetwork, to_codes: Any, least: int, seed: int) -> Inputs:
    """The patches of the comparison; ``to_codes`` is the normalizer."""
    rng = np.random.default_rng((seed, 4))
    test = table.peaks["split"] == TEST
    order = np.concatenate([np.flatnonzero(test), np.flatnonzero(~test)])[: max(least, int(test.sum()))]
    measured = table.patches()[order].astype(np.float64)
    wild = hostile_counts(table.size, rng)
    values = np.concatenate([measured, wild])
    bare = [hostile_codes(table.size, integer.input, rng)]
    missing = least - len(measured)
    if missing > 0:
        shape = (missing, table.size, table.size)
        bare.append(rng.integers(integer.input.low, integer.input.high, shape, endpoint=True))
    codes = np.concatenate([to_codes(values), *bare])
    return Inputs(values, codes, int(test.sum()), len(wild) + len(bare[0]))


def run(
    spec: CsimSpec,
    plan: BitPlan,
    source: tuple[str, str],
    run_directory: Path,
    seed: int,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """The stage: write ``results.json`` and ``predictions.npz`` (positions of the test peaks, offsets (n, 2) px).

    source: stage and name of the float network that went to the firmware, of ``qat.FLOAT_NETWORKS``.
    """
    table = load_table(run_directory / "label" / "peaks.h5")
    full = train.load_network(run_directory / "train", "full")
    deployed = (
        full if source == qat.FLOAT_NETWORKS["full"] else train.load_network(run_directory / source[0], source[1])
    )
    integer = network.load(run_directory / "qat" / "integer.json")
    normalizer = network.load_normalizer(run_directory / "qat" / "integer.json")
    quantized = qat.load_quantized(run_directory / "qat", deployed, plan)
    given = inputs(table, integer, normalizer.codes, spec.patches, seed)
    say(f"  {len(given.codes)} patches, {given.test} of them test peaks, {given.hostile} hostile")

    emulated = emulate.run(integer, given.codes)
    bit_exact: dict[str, dict[str, Any]] = {}
    forms = {
        "quantized": eval_exact(quantized, given.codes),
        "qonnx": run_qonnx(run_directory / "qat" / "model.onnx", given.codes),
    }
    for name, found in forms.items():
        record(bit_exact, name, len(found), int((found != emulated.outputs).any(axis=1).sum()), say)
    test_patches = table.of(TEST).patches()
    predictions = {"float": train.predict(full, test_patches)}
    if deployed is not full:
        predictions["float_compact"] = train.predict(deployed, test_patches)
    predictions["quantized"] = integer.output.values(forms["quantized"][: given.test])

    compared: dict[str, Comparison] = {}
    for project in sorted(path.parent for path in (run_directory / "hls").glob("*/project.json")):
        described = load_project(project)
        name = f"csim:{described.io_type}"
        executable = csim.build(project, directory / "build" / described.io_type)
        say(f"  {name}: compiled")
        self_check(project, directory / "bench" / described.io_type)
        say(f"  {name}: its own test bench passes")
        outputs, comparison = simulate(
            executable, integer, given.codes, workers=workers, chunk=spec.chunk,
            out_dir=directory / "chunks" / described.io_type, progress=progress(name, say),
        )  # fmt: skip
        compared[name] = comparison
        wrong = int((outputs != emulated.outputs).any(axis=1).sum())
        record(bit_exact, name, len(outputs), max(wrong, comparison.wrong), say)
        counted = compare_normalizer(executable, normalizer, given.values)
        record(bit_exact, f"normalizer:{described.io_type}", counted.patches, counted.wrong, say)
        predictions[name] = integer.output.values(outputs[: given.test])
    results = {
        "bit_exact": bit_exact,
        "layers": layer_rows(integer, emulated, compared),
        "hardware": hardware_rows(run_directory / "hls", integer, say),
        "hostile": {"patches": given.hostile},
        "first_difference": {name: str(c.first) for name, c in compared.items() if c.first is not None},
    }
    conclude(directory, results, predictions, compared)


def conclude(
    directory: Path,
    results: dict[str, Any],
    predictions: dict[str, NDArray[np.float64]],
    compared: dict[str, Comparison],
) -> None:
    """Write ``results.json`` and ``predictions.npz``; then refuse forms that differ, else remove what was compiled."""
    with written_aside(directory / "predictions.npz") as aside, aside.open("wb") as stream:
        np.savez_compressed(stream, **predictions)  # type: ignore[arg-type]
    write_json(directory / "results.json", results)
    require_equal_forms(results["bit_exact"], compared)
    for scratch in ("build", "bench", "chunks"):
        shutil.rmtree(directory / scratch, ignore_errors=True)


def require_equal_forms(bit_exact: dict[str, dict[str, Any]], compared: dict[str, Comparison]) -> None:
    """Raise UserError, with the first difference where one is known, if any form differs on any patch."""
    failed = [
        f"{name}: {entry['wrong']} of {entry['patches']} patches" for name, entry in bit_exact.items() if entry["wrong"]
    ]
    if failed:
        first = "; ".join(str(c.first) for c in compared.values() if c.first is not None)
        raise UserError(f"forms differ: {'; '.join(failed)}" + (f"; first at {first}" if first else ""))


def record(
    bit_exact: dict[str, dict[str, Any]], name: str, patches: int, wrong: int, say: Callable[[str], None]
) -> None:
    """Note, and say, how many of the patches differ from the integer form."""
    bit_exact[f"{name}/integer"] = {"patches": patches, "wrong": wrong}
    say(f"  {name}/integer: {wrong} wrong of {patches} patches")


def progress(name: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Says how many chunks are done, ten times in all."""
    shown = [0]

    def report(done: int, total: int) -> None:
        if done * 10 // total > shown[0]:
            shown[0] = done * 10 // total
            say(f"  {name}: {done} of {total} chunks")

    return report


def self_check(project: Path, copy: Path) -> None:
    """Run the project's own test bench with g++, as an engineer would; it compares the golden vectors itself."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project, copy)  # the finished project stays as it was written
    if shutil.which("make") is None:
        raise UserError("make is not on the PATH; the test bench needs it (Debian, Ubuntu: apt install make)")
    command = ["make", "-s", "-C", str(copy), "test"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if found.returncode:
        last = (found.stdout + found.stderr).strip().splitlines()[-3:]
        raise UserError(f"the test bench of {project.name} fails: {' / '.join(last)}")


def layer_rows(
    integer: IntegerNetwork, emulated: emulate.Result, compared: dict[str, Comparison]
) -> list[dict[str, Any]]:
    """The report's ``layers``: bit widths, sparsity, multiplications; saturations and overflows, most of any form."""
    rows = []
    side = integer.size
    for position, layer in enumerate(integer.layers):
        if isinstance(layer, Flatten):
            continue
        same = [c for comparison in compared.values() for c in comparison.layers if c.name == layer.name]
        own = emulated.layers[position]
        row: dict[str, Any] = {"name": layer.name, "kind": layer.kind}
        if isinstance(layer, Linear):
            positions = 1
            if layer.kind == "conv2d":
                side -= layer.weight.shape[2] - 1
                positions = side * side
            row |= {
                "weight_bits": layer.weight_format.bits,
                "accumulator_bits": layer.accumulator.bits,
                "sparsity": float(np.mean(layer.weight == 0)),
                "macs": positions * layer.weight.size,
            }
        elif isinstance(layer, NonLocal):
            parts = (layer.theta, layer.phi, layer.g, layer.out)
            pairs = layer.positions * layer.keys * len(layer.theta.weight)
            row |= {
                "weight_bits": max(part.weight_format.bits for part in parts),
                "accumulator_bits": layer.accumulator.bits,
                "sparsity": float(np.mean(np.concatenate([part.weight.ravel() for part in parts]) == 0)),
                "macs": layer.positions * sum(part.weight.size for part in parts) + 2 * pairs,  # scores, weighted sums
            }
        elif isinstance(layer, Requantize):
            row["activation_bits"] = layer.output.bits
        row["saturations"] = max([own.saturations, *(c.saturations for c in same)])
        row["overflows"] = max([own.overflows, *(c.overflows for c in same)])
        rows.append(row)
    return rows
