"""Stage "qat": the network that goes to the firmware, quantized, as a locator of integers."""

from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage
from braggnn_edge.training.stage import check_shift, check_trainable
from quant.contract.normalize import Normalizer
from quant.training.circuit_spec import CircuitSpec
from quant.training.plan import BitPlan
from quant.training.spec import FLOAT_NETWORKS, QatSpec
from quant.training.universal_spec import UniversalLayersSpec


def float_stages(cfg: Config) -> tuple[str, ...]:
    """The stages of the float networks beside the firmware's: the full one, the compact one where it goes there.

    None where the firmware's network was not trained on the scan's own labels.
    """
    spec = cfg["qat"]
    if spec.quantizes:
        return ("train", "compact") if spec.network == "compact" else ("train",)
    return ("train",) if spec.network == "circuit" and cfg["circuit"].source == "labels" else ()


def network_table(cfg: Config) -> tuple[str, ...]:
    """The table that describes the firmware's network; none of what ships."""
    if cfg["qat"].is_shipped:
        return ()
    return ({"circuit": "circuit", "universal": "universal_layers"}.get(cfg["qat"].network, "quant"),)


def _reads(cfg: Config) -> tuple[str, ...]:
    spec = cfg["qat"]
    drawn = spec.network == "universal" or (spec.network == "circuit" and cfg["circuit"].source == "family")
    own = () if spec.network in ("circuit", "universal") else ("qat",)
    return (*network_table(cfg), *own, *(("family",) if drawn else ()))


def _needs(cfg: Config) -> tuple[str, ...]:
    if cfg["qat"].network == "circuit":
        if cfg["circuit"].source == "family":
            return ()
        return ("label", "train") if cfg["circuit"].teacher else ("label",)
    if not cfg["qat"].quantizes:
        return ("universal",) if cfg["qat"].network == "universal" else ()
    source, _ = FLOAT_NETWORKS[cfg["qat"].network]
    return tuple(dict.fromkeys(("label", source, *(("train",) if cfg["qat"].teacher else ()))))


#: The networks that a table is for.
_USERS = {
    "compact": '"compact"', "quant": '"compact" or "full"', "circuit": '"circuit"', "universal_layers": '"universal"',
}  # fmt: skip


def _check(context: Context) -> None:
    cfg = context.cfg
    size, spec = cfg["peaks"].size, cfg["qat"]
    idle = sorted(cfg.given & {"compact", "quant", "circuit", "universal_layers"}) if spec.is_shipped else []
    if idle:
        raise UserError(
            f"qat: [{idle[0]}] has no effect on the network that ships (network = {spec.network!r}); set network = "
            f"{_USERS[idle[0]]} in [qat], or leave the table out"
        )
    if spec.is_shipped or spec.network == "universal" or (spec.is_circuit and cfg["circuit"].source == "family"):
        wanted = cfg["family"].size
        if size != wanted:
            raise UserError(
                f"qat: network = {spec.network!r} is for patches of {wanted} px, those of this scan have {size} px; "
                f"set size in [peaks] to {wanted}, or train a network of your own"
            )
        return
    check_trainable(context)
    if spec.is_circuit:
        check_shift(context, "circuit")
        cfg["circuit"].check_patch_size(size)
        return
    check_shift(context, "qat")
    cfg["quant"].check(cfg[cfg["qat"].network].network, size)
    Normalizer(bits=cfg["quant"].input_bits)


QAT = Stage(
    name="qat",
    help="the firmware's network in integers: what ships, or trained with rounding, in layers or as a circuit",
    writes="`locator.json`: the locator in integers; `model.onnx`: its network as QONNX",
    work="quant.training.build:work",
    tables={"quant": BitPlan, "qat": QatSpec, "circuit": CircuitSpec, "universal_layers": UniversalLayersSpec},
    reads=_reads,
    needs=_needs,
    files="quant.training.build:files",
    check=_check,
)
