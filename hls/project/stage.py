"""Stage "hls": the HLS projects of the quantized locator."""

from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage, resolve
from hls.project.spec import HlsSpec


def _check(context: Context) -> None:
    """Refuse reuse factors of which there are not as many as layers: now, not after the training."""
    cfg = context.cfg
    convolutions, hidden = _layers(cfg)
    layers = convolutions + hidden + 1
    for table in (cfg["hls"], *cfg["hls"].boards):
        if isinstance(table.reuse, tuple) and len(table.reuse) != layers:
            raise UserError(
                f"hls: reuse has {len(table.reuse)} entries, but the network has {layers} layers with weights "
                f"({convolutions} convolutions, {hidden} hidden dense layers, the last one); give one number for all "
                "or one for each, in this order"
            )


def _layers(cfg: Config) -> tuple[int, int]:
    """Convolutions and hidden dense layers of the firmware's network."""
    name = cfg["qat"].network
    if cfg["qat"].is_shipped:
        return resolve("quant.shipped:layers_of")(name)
    if name == "universal":
        return 0, len(cfg["universal"].dense)
    network = cfg["circuit"].network if name == "circuit" else cfg[name].network
    return len(network.conv), len(network.dense)


HLS = Stage(
    name="hls",
    help="hls4ml projects with exact types, test bench and golden vectors",
    writes="one HLS project for each io type, and for further boards",
    work="hls.project.build:work",
    tables={"hls": HlsSpec},
    needs=lambda cfg: ("label", "qat"),
    check=_check,
    editable=("build_opt.tcl",),  # which steps the vendor's tool makes
)
