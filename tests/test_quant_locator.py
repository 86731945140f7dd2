"""int8 QDQ files: the integer network code for code, both targets, whatever the widths and the rounding."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.onnx_session import session
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Format, linear_bounds
from quant.contract.layers import Leaky
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize
from quant.contract.normalize import Normalizer
from quant.contract.vectors import corner_case_codes, random_codes
from quant.exchange.locators import emulator_locator, qdq_locator
from quant.exchange.qdq import TARGETS, export_qdq, qdq_model

SIZE = 7


def integer_network(bits: int = 8, rounding: str = "floor", seed: int = 0, shift: int | None = None) -> IntegerNetwork:
    """Random codes: two convolutions, one hidden dense layer; every accumulator shifted so that codes use the range."""
    rng = np.random.default_rng(seed)
    high = (1 << bits) - 1
    here, top = Format(8, 8, signed=False), 255
    layers: list = []

    def linear(name: str, shape: tuple[int, ...], low_frac: int) -> Linear:
        weight = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)
        bias = rng.integers(-10 << bits, 10 << bits, shape[0])
        low, high_sum = linear_bounds(weight.reshape(shape[0], -1), bias, 0, top)
        kind = "conv2d" if len(shape) == 4 else "dense"
        frac = here.frac + low_frac
        return Linear(name, kind, weight, Format(bits, low_frac, True), bias, Format.holding(low, high_sum, frac))

    for name, shape in (("conv0", (3, 1, 3, 3)), ("conv1", (4, 3, 3, 3)), ("dense0", (5, 36))):
        if name == "dense0":
            layers.append(Flatten("flatten"))
        layer = linear(name, shape, bits - 1)
        layers.append(layer)
        typical = int(layer.accumulator.high).bit_length() - bits - 3
        down = typical if shift is None else shift
        here, top = Format(bits, layer.accumulator.frac - down, signed=False), high
        layers.append(Requantize(f"relu_{name}", "relu", here, rounding))
    layers.append(linear("dense1", (2, 5), bits - 1))
    layers.append(
        Requantize(
            "result", "identity", Format(12, layers[-1].accumulator.frac - (5 if bits == 8 else 1), True), rounding
        )
    )
    return IntegerNetwork(SIZE, Format(8, 8, signed=False), tuple(layers))


def codes(integer: IntegerNetwork) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.concatenate([corner_case_codes(SIZE, integer.input), random_codes(SIZE, integer.input, 4000, rng)])


def wrong(integer: IntegerNetwork, target, fused: bool, given: np.ndarray) -> int:
    found = session(qdq_model(integer, target), "cpu", fused=fused).run(
        None, {"codes": given[:, None].astype(np.uint8)}
    )[0]
    wanted = integer.output.values(emulate.run(integer, given).outputs)
    return int((found != wanted).any(axis=1).sum())


@pytest.mark.parametrize("rounding", ["floor", "half_up"])
@pytest.mark.parametrize("bits", [8, 6, 4])
def test_qdq_computes_the_same_codes(bits: int, rounding: str) -> None:
    integer = integer_network(bits, rounding)
    given = codes(integer)
    trace = emulate.run(integer, given, trace=True).trace
    for hidden in (trace[1], trace[3], trace[6]):  # no network that is always 0 or saturated
        assert len(np.unique(hidden)) > 2**bits // 4
    assert wrong(integer, "cpu", True, given) == 0
    assert wrong(integer, "cpu", False, given) == 0
    assert wrong(integer, "tensorrt", False, given) == 0


@pytest.mark.parametrize("shift", [0, 1, 2, 14])
def test_every_shift_that_is_allowed_is_exact(shift: int) -> None:
    integer = integer_network(8, seed=4, shift=shift)
    assert wrong(integer, "cpu", True, codes(integer)) == 0
    assert wrong(integer, "tensorrt", False, codes(integer)) == 0


def test_the_half_step_is_what_makes_it_exact() -> None:
    """Rounding to nearest instead of down, and ties, are seen by these patches: the tests above can fail."""
    integer = integer_network(8)
    given = codes(integer)
    plain = qdq_model(integer, "tensorrt")
    for index, tensor in enumerate(plain.graph.initializer):
        if tensor.name == "conv1_bias":  # half an accumulator step less, which leaves ties
            step = 2.0 ** -integer.layers[2].accumulator.frac
            plain.graph.initializer[index].CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) - np.float32(step / 2), tensor.name)
            )
    found = session(plain, "cpu", fused=False).run(None, {"codes": given[:, None].astype(np.uint8)})[0]
    assert (found != integer.output.values(emulate.run(integer, given).outputs)).any()


def test_tensorrt_file_has_what_tensorrt_takes() -> None:
    """Signed int8, zero points 0, scales that are powers of two; no QuantizeLinear of another kind."""
    model = qdq_model(integer_network(8), "tensorrt")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    quantizers = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantizers) == 4 + 4 + 4  # input and three activations, each twice, and four weights
    for node in quantizers:
        scale, zero = (constants[name] for name in node.input[1:])
        assert np.frexp(scale)[0] == 0.5
        assert zero.dtype == np.int8
        assert zero == 0


def test_locators_agree_from_counts_on() -> None:
    integer, normalizer = integer_network(8), Normalizer()
    rng = np.random.default_rng(3)
    counts = rng.poisson(10 ** rng.uniform(0, 4, (600, 1, 1)), (600, SIZE, SIZE)).astype(np.uint16)
    counts[:3] = np.array([0, 9, 65535])[:, None, None]
    whole = locators.of_layers(integer, normalizer)
    emulator = emulator_locator(whole)
    expected = integer.output.values(emulate.run(integer, normalizer.codes(counts)).outputs)
    assert np.array_equal(emulator.locate(counts), expected)
    for target in TARGETS:
        locator = qdq_locator(whole, target)
        assert np.array_equal(locator.locate(counts), expected)
        assert locator.locate(counts[:0]).shape == (0, 2)
    # onnxruntime rounds float biases to integers: the check at the start noticed.
    assert locator.precision == "int8 in float32"


def test_what_int8_cannot_hold_is_refused(tmp_path) -> None:
    integer = integer_network(8)
    wide = replace(integer.layers[0], weight_format=Format(9, 7, True))
    with pytest.raises(UserError, match="layer conv0: weight has 9 bits; int8 QDQ holds 8"):
        export_qdq(replace(integer, layers=(wide, *integer.layers[1:])), tmp_path / "no.onnx")
    with pytest.raises(UserError, match="input has 10 bits"):
        qdq_model(replace(integer, input=Format(10, 10, False)))
    again = replace(integer, layers=(*integer.layers[:2], integer.layers[1], *integer.layers[2:]))
    with pytest.raises(UserError, match=r"layer relu_conv0 \(relu\) has no int8 QDQ form"):
        qdq_model(again)
    relu = integer.layers[1]
    leaky = replace(integer, layers=(integer.layers[0], Leaky(relu.name, "leaky", relu.output), *integer.layers[2:]))
    with pytest.raises(UserError, match="layer relu_conv0: only unsigned activations after a ReLU have"):
        qdq_model(leaky)
    far = integer_network(8, shift=15)
    with pytest.raises(UserError, match="shift 15 exceeds 14; export for the target tensorrt"):
        qdq_model(far, "cpu")
    with pytest.raises(UserError, match="target 'npu' is unknown; expected one of cpu, tensorrt"):
        qdq_model(integer, "npu")
    assert list(tmp_path.iterdir()) == []
    export_qdq(integer, tmp_path / "qdq.onnx", "tensorrt")
    assert onnx.load(tmp_path / "qdq.onnx").graph.output[0].name == "offsets"
