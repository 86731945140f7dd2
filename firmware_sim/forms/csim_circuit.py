"""C simulation of a whole circuit: counts to offsets, compared with the integer circuit step by step."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import csim
from firmware_sim.forms.chunks import Arrays, Progress, map_chunks
from firmware_sim.forms.compare import Comparison, compare_chunks, compare_layers, compare_step
from quant.contract import emulate
from quant.contract.arithmetic import Codes, checked
from quant.contract.locator import IntegerLocator


@dataclass(frozen=True)
class Simulated:
    """What the compiled locator makes of n patches: inputs (n, ...) of its network, base (n, 2), outputs (n, 2 or 4).

    ``base`` is the centroid's answer, 0 where there is none.
    """

    inputs: Codes
    base: Codes
    outputs: Codes


def run(
    executable: csim.Executable, circuit: IntegerLocator, counts: NDArray[np.integer], *,
    workers: int, chunk: int, out_dir: Path, progress: Progress | None = None,
) -> Codes:  # fmt: skip
    """Output codes (n, 2 or 4) of whole, saturated counts (n, window, window), in chunks like :func:`csim.run`.

    ``executable`` is :func:`firmware_sim.forms.csim.build` of the circuit's project; one of another circuit is refused,
    and so are counts beyond the normalizer's range.
    """
    checked = _checked(executable, circuit, counts)

    def work(_: int, codes: NDArray[np.integer]) -> Arrays:
        return {"outputs": steps(executable, circuit, codes).outputs}

    results = map_chunks(
        work, checked, key=f"circuit {executable.key}", chunk=chunk, workers=workers, out_dir=out_dir,
        progress=progress,
    )  # fmt: skip
    none = np.zeros((0, circuit.outputs), np.int64)
    return np.concatenate([none, *(result["outputs"] for result in results)])


def steps(executable: csim.Executable, circuit: IntegerLocator, counts: NDArray[np.integer]) -> Simulated:
    """Normalizer, centroid and whole circuit on counts (n, window, window), all patches at once."""
    checked = _checked(executable, circuit, counts)
    with tempfile.TemporaryDirectory() as name:
        source, result = Path(name, "counts"), Path(name, "results")
        checked.tofile(source)
        csim.call([str(executable.circuit), str(source), str(result)])
        inputs = int(np.prod(circuit.network.shape))
        found = np.fromfile(result, np.int64).reshape(-1, inputs + 2 + circuit.outputs)
    if len(found) != len(checked):
        raise UserError(f"{executable.circuit} made {len(found)} results of {len(checked)} patches; build it again")
    codes, base, outputs = np.split(found, [inputs, inputs + 2], axis=1)
    return Simulated(codes.reshape(-1, *circuit.network.shape), base, outputs)


def simulate(
    executable: csim.Executable, circuit: IntegerLocator, counts: NDArray[np.integer], *,
    workers: int, chunk: int, out_dir: Path, progress: Progress | None = None,
) -> tuple[Codes, Comparison]:  # fmt: skip
    """Like :func:`run`, and compare every step with the integer circuit: normalizer, centroid, each layer, sum.

    The network's layers are given the integer circuit's codes, so that a wrong normalizer is no wrong layer. ``sum``
    is what the whole circuit answers. ``wrong`` counts the patches with a wrong offset.
    """
    checked = _checked(executable, circuit, counts)

    def work(start: int, codes: NDArray[np.integer]) -> tuple[Codes, Comparison]:
        found = steps(executable, circuit, codes)
        return found.outputs, compare_steps(executable, circuit, codes, found, start)

    key = f"simulate circuit {executable.key} {circuit.digest}"
    return compare_chunks(work, checked, key=key, chunk=chunk, workers=workers, out_dir=out_dir, progress=progress)


def compare_steps(
    executable: csim.Executable, circuit: IntegerLocator, counts: NDArray[np.integer], found: Simulated, start: int = 0
) -> Comparison:
    """Compare what :func:`steps` found of counts (n, window, window), and the layers of the network, in their order."""
    inputs = circuit.inputs(counts)
    outputs = emulate.run(circuit.network, inputs).outputs
    base = np.zeros_like(outputs)
    if circuit.centroid is not None:
        base[:, :2] = circuit.centroid.codes(circuit.pixels(inputs))
    sums = circuit.combined(inputs, outputs)
    saturations = int(np.count_nonzero(sums != outputs + base))
    steps = [
        compare_step("normalizer", inputs, found.inputs, start=start),
        *([] if circuit.centroid is None else [compare_step("centroid", base[:, :2], found.base, start=start)]),
        compare_layers(executable, circuit.network, inputs, start)[1],
        compare_step("sum", sums, found.outputs, saturations, start),
    ]
    layers = tuple(layer for step in steps for layer in step.layers)
    first = next((step.first for step in steps if step.first is not None), None)
    return Comparison(len(counts), steps[-1].wrong, layers, first)


def _checked(executable: csim.Executable, circuit: IntegerLocator, counts: NDArray[np.integer]) -> NDArray[np.int64]:
    if executable.project.circuit != circuit.digest:
        raise UserError("the compiled project is not of this circuit; write its project and build it again")
    side, (low, high) = (circuit.window, circuit.window), circuit.normalizer.count_range
    return np.ascontiguousarray(checked(counts, side, low, high, "counts", "make them by its ``counts``"), np.int64)
