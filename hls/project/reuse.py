"""Reuse factors: how many products each multiplier of a convolution or dense layer makes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from braggnn_edge.core.errors import UserError
from hls.project.extension import hls4ml
from hls.project.spec import HlsSpec
from quant.contract.network import IntegerNetwork, Linear

#: A layer of more weights is not unrolled unless that is asked for, and then has at most so many multipliers.
_LARGE, _MULTIPLIERS = 4096, 512

#: Factors that a message offers in place of one that is impossible.
_SHOWN = 8


def linear_layers(network: IntegerNetwork) -> tuple[Linear, ...]:
    """The layers that have a reuse factor: convolutions, then dense layers, in order; not those inside a block."""
    return tuple(layer for layer in network.layers if isinstance(layer, Linear))


def spread(reuse: int | Sequence[int], network: IntegerNetwork) -> tuple[int, ...]:
    """One factor for each of :func:`linear_layers`; another number of factors is refused."""
    layers = linear_layers(network)
    if isinstance(reuse, int):
        return (reuse,) * len(layers)
    if len(reuse) != len(layers):
        raise UserError(
            f"reuse has {len(reuse)} entries, but the network has {len(layers)} layers with weights "
            f"({', '.join(layer.name for layer in layers)}); give one number for all or one for each, in this order"
        )
    return tuple(reuse)


@dataclass(frozen=True)
class Shape:
    """The weights of a convolution ("conv2d") or dense layer ("dense"): outputs, and inputs of each of them."""

    name: str
    kind: str
    outputs: int
    inputs: int


def shape_of(layer: Linear) -> Shape:
    """Of a layer that is there; the configuration knows shapes before there is one (:mod:`hls.project.stage`)."""
    return Shape(layer.name, layer.kind, len(layer.weight), prod(layer.weight.shape[1:]))


def check_reuse(network: IntegerNetwork, factors: tuple[int, ...], strategy: str, io_type: str) -> None:
    """:func:`check_shapes` of a network's layers."""
    check_shapes([shape_of(layer) for layer in linear_layers(network)], factors, strategy, io_type)


def check_shapes(shapes: Sequence[Shape], factors: Sequence[int], strategy: str, io_type: str) -> None:
    """Refuse a factor that hls4ml would change silently, or for which it has no correct code.

    Latency: any up to the layer's products, the pipeline's initiation interval. Resource: those that cut the product's
    matrix into equal blocks (hls4ml's own rule); a convolution of io_parallel not beyond its
    fan-in, as its source asserts.
    """
    for layer, factor in zip(shapes, factors, strict=True):
        outputs, inputs = layer.outputs, layer.inputs
        if strategy == "Resource":
            valid = _valid(layer, io_type)
            if factor not in valid:
                near = sorted(sorted(valid, key=lambda value: abs(value - factor))[:_SHOWN])
                raise UserError(
                    f"layer {layer.name}: reuse factor {factor} does not cut its {inputs} x {outputs} weights into "
                    f"equal blocks for the Resource strategy ({io_type}); the nearest that do are "
                    f"{', '.join(map(str, near))}"
                )
        elif factor > inputs * outputs:
            raise UserError(
                f"layer {layer.name}: reuse factor {factor} is more than its {inputs * outputs} products; "
                f"expected 1 to {inputs * outputs}"
            )


def fitted(spec: HlsSpec, network: IntegerNetwork) -> HlsSpec:
    """The table with a strategy and reuse factors where it leaves them open; see the comments of its keys."""
    layers = linear_layers(network)
    large = any(prod(layer.weight.shape) > _LARGE for layer in layers)
    strategy = spec.strategy or ("Resource" if large and not spec.reuse else "Latency")
    reuse = spec.reuse
    if not reuse and strategy == "Resource":
        reuse = tuple(max(_least(shape_of(layer), io_type) for io_type in spec.io_types) for layer in layers)
    return replace(spec, strategy=strategy, reuse=reuse or 1)


def _least(layer: Shape, io_type: str) -> int:
    """The smallest factor that leaves a layer at most so many multipliers; the largest where none does."""
    outputs, inputs = layer.outputs, layer.inputs
    valid = _valid(layer, io_type)
    return next((factor for factor in valid if inputs * outputs <= _MULTIPLIERS * factor), valid[-1])


def _valid(layer: Shape, io_type: str) -> list[int]:
    """Factors of the Resource strategy, ascending."""
    inputs = layer.inputs
    found = _blocks(inputs, layer.outputs)
    if layer.kind == "conv2d" and io_type == "io_parallel":
        found = [value for value in found if value <= inputs]
    return found


def _blocks(inputs: int, outputs: int) -> list[int]:
    """Factors of the Resource strategy, by hls4ml's own function."""
    hls4ml()
    from hls4ml.backends import get_backend  # noqa: PLC0415  (takes seconds)

    return [int(value) for value in get_backend("Vivado").get_valid_reuse_factors(inputs, outputs)]
