"""What several test modules share: random circuits and patches that look for trouble."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from braggnn_edge.core import config, rundir, stages
from braggnn_edge.locate.calibration import Calibration
from hls.project.stage import has_rtl
from quant.contract.arithmetic import Codes, Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork, Layer
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators

#: The same examples on every machine and at every run, as every seed in the tests is named.
settings.register_profile("tests", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("tests")

FRAC = 7

#: A compiler that compiles a text once in a session: drivers of simulations and normalizers are mostly the same.
COMPILER = r"""#!/bin/bash
set -o pipefail
all=("$@") options=() object= compile=
while [ $# -gt 0 ]; do
  case $1 in -c) compile=1 ;; -o) object=$2; shift ;; *) options+=("$1") ;; esac
  shift
done
[ "$compile" ] && [ "$object" ] &&
  key=$({ printf '%s\n' "${options[@]}"; "GXX" "${options[@]}" -E -P; } 2> /dev/null | sha256sum) ||
  exec "GXX" "${all[@]}"
kept="STORE/${key%% *}.o"
if [ ! -f "$kept" ]; then
  "GXX" "${all[@]}" || exit
  cp "$object" "$kept.$$" && mv "$kept.$$" "$kept"
else
  cp "$kept" "$object"
fi
"""


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a C++ compiler makes of one preprocessed text with one set of options is kept, for all workers."""
    base = tmp_path_factory.getbasetemp()
    store = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "objects"
    store.mkdir(exist_ok=True)
    folder = tmp_path_factory.mktemp("compilers")
    for name in ("g++", "c++"):  # C simulation, Verilator
        if found := shutil.which(name):
            program = folder / name
            program.write_text(COMPILER.replace("GXX", found).replace("STORE", str(store)))
            program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield


def _random_circuit(
    window: int = 3, normalizer: Normalizer | BlockShift | None = None, *,
    hidden: tuple[int, ...] = (4,), channels: int = 0, centroid: bool = True, activation: int = 5, output: int = 9,
    density: float = 0.7, seed: int = 0, exponent: bool = False, sigma: bool = False,
) -> IntegerLocator:  # fmt: skip
    """A circuit with random weights of 4 bits: one 3 x 3 convolution if ``channels``, then dense layers to 2, or 4.

    activation and output are bits; few of them make the layers saturate. exponent: whether the network takes it, flat
    and without convolutions; sigma: whether it answers with ln sigma too.
    """
    rng = np.random.default_rng(seed)
    chosen = normalizer or BlockShift(4, 9)
    bits, frac = chosen.bits, chosen.bits
    layers: list[Layer] = []
    inputs = window**2

    def weights(*shape: int) -> Codes:
        return rng.integers(-7, 8, shape) * (rng.random(shape) < density)

    if channels:
        weight, bias = weights(channels, 1, 3, 3), rng.integers(-30, 30, channels)
        layers.append(Linear("conv.0", "conv2d", weight, Format(4, 3, True), bias, Format(1, frac + 3, True)))
        layers.append(Requantize("conv.0.act", "relu", Format(activation, activation - 2, False)))
        inputs, frac = channels * (window - 2) ** 2, activation - 2
    places = chosen.count_bits if exponent else 0
    if exponent:
        inputs += places
    else:
        layers.append(Flatten("flatten"))
    for index, outputs in enumerate((*hidden, 4 if sigma else 2)):
        weight, bias = weights(outputs, inputs), rng.integers(-30, 30, outputs)
        name = f"dense.{index}"
        layers.append(Linear(name, "dense", weight, Format(4, 3, True), bias, Format(1, frac + 3, True)))
        last = index == len(hidden)
        to = Format(output - 1, FRAC, True) if last else Format(activation, activation - 2, False)
        layers.append(Requantize(f"{name}.act", "identity" if last else "relu", to))
        inputs, frac = outputs, to.frac
    network = size_accumulators(IntegerNetwork(window, Format(bits, bits, False), tuple(layers), places))
    base = Centroid.of_power(window, bits, 2, 2, index_bits=3, reciprocal_bits=7, numerator_bits=8, frac=FRAC)
    calibration = Calibration((-2.0, 1.0), (-1.5, 1.2), (0.0, 2.0)) if sigma else None
    return IntegerLocator(
        window + 2, window, chosen, network, base if centroid else None, Format(output, FRAC, True), calibration
    )


def _detector_patches(circuit: IntegerLocator, count: int, seed: int = 1) -> Codes:
    """Patches (n, size, size) of counts: empty, full, beyond the range, single pixels, then ``count`` random ones.

    A third of these uniform at every magnitude, a third sparse, a third single peaks on a background.
    """
    rng = np.random.default_rng(seed)
    size, high = circuit.size, (1 << circuit.normalizer.count_bits) - 1
    row, col = np.indices((size, size))
    hot = np.eye(size * size, dtype=np.int64).reshape(-1, size, size)
    flat = [np.full((size, size), value) for value in (0, 1, high // 2, high, 3 * high, -5)]
    scale = 2.0 ** rng.uniform(0, circuit.normalizer.count_bits, (count, 1, 1))
    uniform = np.floor(rng.random((count, size, size)) * scale)
    sparse = np.where(rng.random(uniform.shape) < 0.15, uniform, 0)
    centre, width = rng.uniform(0, size - 1, (count, 2, 1, 1)), rng.uniform(0.4, 2.0, (count, 1, 1))
    peak = scale * np.exp(-((row - centre[:, 0]) ** 2 + (col - centre[:, 1]) ** 2) / (2 * width**2)) + 3
    some = np.choose(np.arange(count)[:, None, None] % 3, [uniform, sparse, np.floor(peak)]).astype(np.int64)
    return np.concatenate([np.stack(flat), hot, hot * high, (1 - hot) * (high // 3), some])


@pytest.fixture(scope="session")
def random_circuit() -> Callable[..., IntegerLocator]:
    """A function that makes a circuit."""
    return _random_circuit


@pytest.fixture(scope="session")
def detector_patches() -> Callable[..., Codes]:
    """A function that makes patches for a circuit."""
    return _detector_patches


Used = dict[str, set[str]]


@contextmanager
def _tables_used() -> Iterator[Used]:
    """Which tables of the configuration the work of each stage looks at, while this holds."""
    found: Used = {}
    stage = [""]
    item, execute = config.Config.__getitem__, rundir.execute

    def recording(cfg: config.Config, table: str) -> object:
        # Whether there is a stage rtl is asked of its table: by another answer others have other needs, and run again.
        if stage[0] and sys._getframe(1).f_code is not has_rtl.__code__:
            found[stage[0]].add(table)
        return item(cfg, table)

    def executing(run: Path, made: rundir.Stage, say: Callable[[str], None]) -> bool:
        def work(directory: Path) -> None:
            stage[0] = made.name
            found[made.name] = set()
            try:
                made.work(directory)
            finally:
                stage[0] = ""

        return execute(run, dataclasses.replace(made, work=work), say)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.Config, "__getitem__", recording)
        patch.setattr(rundir, "execute", executing)
        yield found


def _undeclared(used: Used, cfg: config.Config) -> Used:
    """Tables that a stage used though no change of them makes its result again: neither it reads them nor a need."""
    found: Used = {}
    for name, tables in used.items():
        behind = stages.needed((name,), cfg)
        known = {table for stage in behind for table in (stage.reads(cfg) if stage.reads else stage.tables)}
        # The kind of the network, [qat] network, decides which stages and tables there are at all.
        found[name] = tables - known - {"qat"}
    return {name: tables for name, tables in found.items() if tables}


@pytest.fixture(scope="session")
def tables_used() -> Callable[[], AbstractContextManager[Used]]:
    """A context that records which tables each stage uses."""
    return _tables_used


@pytest.fixture(scope="session")
def undeclared() -> Callable[[Used, config.Config], Used]:
    """A function that says which of the tables used a stage does not declare."""
    return _undeclared
