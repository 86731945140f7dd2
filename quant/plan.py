"""The bit-width plan of a quantized network: the ``[quant]`` table of a configuration."""

from collections.abc import Sequence
from dataclasses import dataclass

from braggnn_edge.errors import UserError
from braggnn_edge.model import NetworkSpec
from quant.arithmetic import Format

#: Widest weight and activation: 16 + 16 bits and a fan-in up to 2**16 stay below the 53 bits of float64, in
#: which the quantized PyTorch network is evaluated.
MAX_BITS = 16


@dataclass(frozen=True)
class BitPlan:
    """Bit widths of a network.

    input_bits: unsigned input codes, worth ``code * 2**-input_bits``.
    weight_bits: signed weights, one number for all layers or one per layer: convolutions, hidden dense layers, last
    dense layer.
    activation_bits: unsigned activations after each ReLU, one number or one per hidden layer (as above, without the
    last dense layer).
    output_bits, output_frac: the signed result, offsets in pixels; 16 and 11 mean +-16 px by 1/2048 px.
    rounding: of activations and output; "floor" (ap_fixed's AP_TRN) is the only one that Brevitas, QONNX and
    the hardware tools share without a difference at ties.
    """

    input_bits: int = 8
    weight_bits: int | tuple[int, ...] = 6
    activation_bits: int | tuple[int, ...] = 8
    output_bits: int = 16
    output_frac: int = 11
    rounding: str = "floor"

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):  # a TOML array arrives as a list
                value = tuple(value)
                object.__setattr__(self, name, value)
            if value == ():
                raise UserError(f"quant.{name} is empty; give one number for all layers or one per layer")
            for bits in value if isinstance(value, tuple) else (value,):
                _check(f"quant.{name}", bits, 2, MAX_BITS)  # 1 bit means bipolar weights in QONNX
        _check("quant.input_bits", self.input_bits, 2, MAX_BITS)
        _check("quant.output_bits", self.output_bits, 2, 24)  # QONNX carries values in float32: 24 bits exactly
        _check("quant.output_frac", self.output_frac, 0, 24)
        if self.rounding != "floor":
            raise UserError(f"quant.rounding {self.rounding!r} is not available; expected 'floor'")

    @property
    def input(self) -> Format:
        """Format of the input codes."""
        return Format(self.input_bits, self.input_bits, signed=False)

    @property
    def output(self) -> Format:
        """Format of the output codes: offsets in pixels."""
        return Format(self.output_bits, self.output_frac, signed=True)

    def weights(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Weight bits of each layer of ``spec``; a plan of another length is refused."""
        return _spread("weight_bits", self.weight_bits, len(spec.conv) + len(spec.dense) + 1, spec)

    def activations(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Activation bits after each hidden layer of ``spec``; a plan of another length is refused."""
        return _spread("activation_bits", self.activation_bits, len(spec.conv) + len(spec.dense), spec)

    def check(self, spec: NetworkSpec) -> None:
        """Refuse a network that this plan does not describe, or that has no quantized form."""
        if spec.attention:
            raise UserError("network.attention = true has no quantized form; set it to false for the firmware network")
        if spec.slope:
            raise UserError(
                f"network.slope {spec.slope} has no quantized form; "
                "set slope = 0.0 (a plain ReLU) for the firmware network"
            )
        self.weights(spec)
        self.activations(spec)


def _check(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} {value!r} is out of range; expected whole numbers from {low} to {high}")


def _spread(name: str, value: int | tuple[int, ...], count: int, spec: NetworkSpec) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * count
    if len(value) != count:
        raise UserError(
            f"quant.{name} has {len(value)} entries, but the network conv {spec.conv} dense {spec.dense} "
            f"needs {count}; give one number for all layers or one per layer"
        )
    return value
