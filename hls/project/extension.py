"""Our layers for hls4ml, registered through its extension API: ONNX handlers, a layer class, templates, a kernel."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

from onnx import AttributeProto, numpy_helper

from hls.project.attention import CONSTANTS, TYPES, render_config

#: Our own ONNX operation: a dense layer that owns its weight and bias, so that hls4ml need not fuse an Add into a
#: MatMul (its fusion works only while the type of the result is left open, and ours is prescribed).
DENSE = "ExactDense"

#: Our own ONNX operation: a whole non-local block, its constants as attributes (docs/explanation/attention_hls.md).
NON_LOCAL = "NonLocal"

#: The kernel's file, copied into every project that has such a block.
KERNEL = Path(__file__).resolve().parents[1] / "templates" / "nnet_nonlocal.h"

_BACKENDS = ("Vivado", "Vitis", "VivadoAccelerator")


@cache
def hls4ml() -> Any:
    """hls4ml, imported quietly, with our layers registered."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optional front ends that are not installed
        import hls4ml as package  # noqa: PLC0415  (takes seconds; only the stages that convert pay for it)
        from hls4ml.converters import register_onnx_layer_handler  # noqa: PLC0415
    register_onnx_layer_handler(DENSE, _parse_dense)
    register_onnx_layer_handler(NON_LOCAL, _parse_non_local)
    _register_non_local()
    return package


def _arrays(node: Any) -> dict[str, Any]:
    """The attributes that are tensors."""
    return {a.name: numpy_helper.to_array(a.t) for a in node.attribute if a.type == AttributeProto.TENSOR}


def _parse_dense(node: Any, inputs: list[str], shapes: list[list[int]], graph: Any) -> dict[str, Any]:
    """hls4ml's layer of an ``ExactDense`` node."""
    arrays = _arrays(node)
    weight = arrays["weight"]
    return {
        "name": node.name, "class_name": "Dense", "inputs": inputs, "outputs": list(node.output),
        "n_in": weight.shape[0], "n_out": weight.shape[1], "weight_data": weight, "bias_data": arrays["bias"],
        "use_bias": True,
    }  # fmt: skip


def _parse_non_local(node: Any, inputs: list[str], shapes: list[list[int]], graph: Any) -> dict[str, Any]:
    """hls4ml's layer of a ``NonLocal`` node."""
    arrays = {f"{name}_data": values for name, values in _arrays(node).items()}
    pool = next(int(attribute.i) for attribute in node.attribute if attribute.name == "pool")
    return {
        "name": node.name, "class_name": NON_LOCAL, "inputs": inputs, "outputs": list(node.output), "pool": pool,
        **arrays,
    }  # fmt: skip


def _register_non_local() -> None:
    """Layer class, configuration and call templates, kernel source, for every back end that has them."""
    from hls4ml.backends import get_backend  # noqa: PLC0415  (as above)
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate  # noqa: PLC0415
    from hls4ml.model import attributes as kinds  # noqa: PLC0415  (as above)
    from hls4ml.model.layers import Layer, register_layer  # noqa: PLC0415

    class NonLocal(Layer):
        """(rows, cols, channels) to the same shape; types from the configuration, constants from the handler."""

        _expected_attributes = [  # noqa: RUF012  (hls4ml's convention)
            kinds.Attribute("pool"),
            kinds.ConfigurableAttribute("parallel", default=1),
            *(kinds.TypeAttribute(name) for name in (*TYPES, *CONSTANTS)),
            *(kinds.WeightAttribute(name) for name in CONSTANTS),
        ]

        def initialize(self) -> None:
            self.add_output_variable(list(self.get_input_variable().shape))
            for name in TYPES:
                self._set_type_t(name)
            for name in CONSTANTS:
                self.add_weights_variable(name=name, var_name=name + "{index}")

    class Config(LayerConfigTemplate):
        def __init__(self) -> None:
            super().__init__(NonLocal)

        def format(self, node: Any) -> str:
            rows, _, channels = node.get_input_variable().shape
            numbers = {
                "positions": int(rows * rows),
                "side": int(rows),
                "pool": int(node.get_attr("pool")),
                "channels": int(channels),
                "inner": int(node.weights["theta_weight"].shape[0]),
                "parallel": int(node.get_attr("parallel")),
                "exp_entries": int(node.weights["exp_table"].shape[0]),
                "reciprocal_index_bits": int(node.weights["reciprocal_table"].shape[0]).bit_length() - 1,
            }
            types = {name: node.types[f"{name}_t"].name for name in (*TYPES, *CONSTANTS)}
            io_type = node.model.config.get_config_value("IOType")
            return render_config(f"config{node.index}", io_type, node.name, numbers, types)

    class Call(FunctionCallTemplate):
        def __init__(self) -> None:
            super().__init__(NonLocal, include_header=[f"nnet_utils/{KERNEL.name}"])

        def format(self, node: Any) -> str:
            source, result = node.get_input_variable(), node.get_output_variable()
            arguments = ", ".join([source.name, result.name, *(node.weights[name].name for name in CONSTANTS)])
            return f"nnet::nonlocal<{source.type.name}, {result.type.name}, config{node.index}>({arguments});"

    register_layer(NON_LOCAL, NonLocal)
    for name in _BACKENDS:
        backend = get_backend(name)
        backend.register_template(Config)
        backend.register_template(Call)
        backend.register_source(KERNEL)
