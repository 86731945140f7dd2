"""LeakyReLU of both kinds of slope, a shift and a multiplication, through QONNX, hls4ml and g++ to every code."""

import functools
import shutil
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import onnx
import pytest

from firmware_sim.forms import csim
from firmware_sim.forms.compare import simulate
from hls.project.layered import write_project
from quant.contract import emulate
from quant.contract.arithmetic import Format, shift_round
from quant.contract.network import Flatten, IntegerNetwork, Leaky, Requantize
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.contract.vectors import corner_case_codes, random_codes
from quant.exchange.to_qonnx import qonnx_model

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SIZE = 5
#: Name, slope code and slope frac of the two activations: 1 / 8 is a shift, 164 / 2**14 the paper's 0.01.
SLOPES = (("shift", 1, 3), ("product", 164, 14))


linear = functools.partial(builders.linear, bias=90)


def network() -> IntegerNetwork:
    """Convolution, activation with a shift, dense layer, activation with a product, dense layer; random weights."""
    rng = np.random.default_rng(4)
    one, two = (Leaky(name, "leaky", Format(12, 9, True), "floor", code, frac) for name, code, frac in SLOPES)
    layers = (
        linear(rng, "conv", "conv2d", (2, 1, 3, 3), 8),
        one,
        Flatten("flatten"),
        linear(rng, "hidden", "dense", (4, 2 * (SIZE - 2) ** 2), 9),
        two,
        linear(rng, "last", "dense", (2, 4), 9),
        Requantize("out", "identity", Format(16, 9, True)),
    )
    return size_accumulators(IntegerNetwork(SIZE, Format(8, 8, False), layers))


@pytest.mark.slow
@pytest.mark.parametrize("io_type", ["io_parallel", "io_stream"])
def test_every_code_of_both_slopes_agrees(io_type: str, tmp_path: Path) -> None:
    found = network()
    onnx.save(qonnx_model(found), tmp_path / "model.onnx")
    counts = np.random.default_rng(1).poisson(300, (2, SIZE, SIZE))
    write_project(tmp_path / "model.onnx", found, Normalizer(), tmp_path / "project", counts=counts, io_type=io_type)
    executable = csim.build(tmp_path / "project", tmp_path / "build", optimization="-O0")
    codes = np.concatenate(
        [corner_case_codes(SIZE, found.input), random_codes(SIZE, found.input, 900, np.random.default_rng(2))]
    )
    _, compared = simulate(executable, found, codes, workers=1, chunk=len(codes), out_dir=tmp_path / "out")
    assert compared.exact, str(compared.first)

    # The codes tell each activation from every neighbour: no slope, the other slope, half of its own, another rounding.
    traces = emulate.run(found, codes, trace=True).trace
    for index, (name, code, frac) in ((1, SLOPES[0]), (4, SLOPES[1])):
        layer = found.layers[index]
        assert layer.name == name
        assert isinstance(layer, Leaky)
        before, sums = traces[index - 1], found.layers[index - 1].accumulator.frac
        assert (before < 0).mean() > 0.1
        assert (before > 0).mean() > 0.1
        for other in ((0, 1), *(slope[1:] for slope in SLOPES if slope[1:] != (code, frac)), (code, frac + 1)):
            changed = replace(layer, slope_code=other[0], slope_frac=other[1])
            assert (emulate.activate(changed, before, sums)[0] != traces[index]).mean() > 0.1
        rounded = replace(layer, rounding="half_up")
        assert (emulate.activate(rounded, before, sums)[0] != traces[index]).any()
        if code != 1:  # two floors of shifts are one; a floor before a product is not
            twice = shift_round(shift_round(before, sums - layer.output.frac) * code, frac)
            assert (np.maximum(twice, layer.output.low) != traces[index])[before < 0].any()
