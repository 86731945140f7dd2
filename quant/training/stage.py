"""Stage "qat": the network that goes to the firmware, quantized, as a locator of integers."""

from braggnn_edge.core.config import Config
from braggnn_edge.core.stages import Context, Stage
from braggnn_edge.training.stage import check_shift, check_trainable
from quant.contract.normalize import Normalizer
from quant.training.circuit_spec import CircuitSpec
from quant.training.plan import BitPlan
from quant.training.spec import FLOAT_NETWORKS, QatSpec


def float_stages(cfg: Config) -> tuple[str, ...]:
    """The stages of the float networks beside the firmware's: the full one, the compact one where it goes there."""
    return ("train", "compact") if cfg["qat"].network == "compact" else ("train",)


def _needs(cfg: Config) -> tuple[str, ...]:
    if cfg["qat"].is_circuit:
        return ("label", "train") if cfg["circuit"].teacher else ("label",)
    source, _ = FLOAT_NETWORKS[cfg["qat"].network]
    return tuple(dict.fromkeys(("label", source, *(("train",) if cfg["qat"].teacher else ()))))


def _check(context: Context) -> None:
    cfg = context.cfg
    check_trainable(context)
    size = cfg["peaks"].size
    if cfg["qat"].is_circuit:
        check_shift(context, "circuit")
        cfg["circuit"].check_patch_size(size)
        return
    check_shift(context, "qat")
    cfg["quant"].check(cfg[cfg["qat"].network].network, size)
    Normalizer(bits=cfg["quant"].input_bits)


QAT = Stage(
    name="qat",
    help="quantization-aware training of the firmware's network, layers or circuit",
    writes="`locator.json`: the locator in integers; `model.onnx`: its network as QONNX",
    work="quant.training.build:work",
    tables={"quant": BitPlan, "qat": QatSpec, "circuit": CircuitSpec},
    reads=lambda cfg: ("circuit",) if cfg["qat"].is_circuit else ("quant", "qat"),
    needs=_needs,
    check=_check,
)
