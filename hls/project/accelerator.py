"""hls4ml's board flow: the network behind an AXI stream of float32, with the scripts that put it on a board."""

from pathlib import Path

from braggnn_edge.core.errors import UserError
from hls.project.reuse import linear_layers
from hls.project.spec import ACCELERATOR
from hls.project.targets import TARGETS, Target
from quant.contract.network import IntegerNetwork

#: Elements beyond which Vivado HLS neither unrolls a loop nor splits an array (docs/reference/hls_backends.md).
LIMIT = 4096

#: Bits of float32's significand: whole numbers up to 2**24 are exact in it.
_EXACT_BITS = 24

#: hls4ml's name of a project, which it leaves in the sources of an Alveo kernel.
_TEMPLATE = "myproject"


def check_accelerator(
    network: IntegerNetwork, target: Target, io_type: str, strategy: str, reuse: tuple[int, ...]
) -> None:
    """Refuse what the board flow has no form for, or what Vivado HLS is known to stop at."""
    if not target.accelerator:
        known = ", ".join(name for name, found in TARGETS.items() if found.accelerator)
        raise UserError(f"target {target.name}: hls4ml's {ACCELERATOR} does not know it; expected one of {known}")
    for what, to in (("input", network.input), ("output", network.output)):
        if to.bits > _EXACT_BITS:
            raise UserError(
                f"{ACCELERATOR}: the {what} has {to.bits} bits, but its AXI stream carries float32, which is exact "
                f"up to {_EXACT_BITS}; use fewer bits"
            )
    side = network.size
    for layer, factor in zip(linear_layers(network), reuse, strict=True):
        products = layer.weight.size if strategy == "Latency" else layer.weight.size // factor
        if products > LIMIT:
            raise UserError(
                f"layer {layer.name}: {ACCELERATOR} needs Vivado HLS, which does not unroll {products} products, only "
                f"{LIMIT}; use strategy Resource with a reuse factor of {-(-layer.weight.size // LIMIT)} or more, a "
                "smaller network, or the Vitis project alone"
            )
        if layer.kind == "conv2d":
            side -= layer.weight.shape[2] - 1
            values = side * side * len(layer.weight)
            if io_type == "io_parallel" and values > LIMIT:
                raise UserError(
                    f"layer {layer.name}: {ACCELERATOR} needs Vivado HLS, which does not split an array of {values} "
                    f"values into registers, only {LIMIT}; use io_stream"
                )


def name_sources(directory: Path, name: str) -> None:
    """Give the sources of an Alveo kernel the project's name: hls4ml's scripts ask for it, its sources keep another."""
    for path in sorted(directory.glob("src/*")):
        text = path.read_text()
        if _TEMPLATE in text:
            path.write_text(text.replace(_TEMPLATE, name))
        if _TEMPLATE in path.name:
            path.rename(path.with_name(path.name.replace(_TEMPLATE, name)))
