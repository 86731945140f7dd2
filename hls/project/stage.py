"""Stage "hls": the HLS projects of the quantized locator."""

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage
from hls.project.spec import HlsSpec


def _check(context: Context) -> None:
    """Refuse reuse factors of which there are not as many as layers: now, not after the training."""
    cfg = context.cfg
    network = cfg["circuit"].network if cfg["qat"].is_circuit else cfg[cfg["qat"].network].network
    layers = len(network.conv) + len(network.dense) + 1
    for table in (cfg["hls"], *cfg["hls"].boards):
        if isinstance(table.reuse, tuple) and len(table.reuse) != layers:
            raise UserError(
                f"hls: reuse has {len(table.reuse)} entries, but the network has {layers} layers with weights "
                f"({len(network.conv)} convolutions, {len(network.dense)} hidden dense layers, the last one); give one "
                "number for all or one for each, in this order"
            )


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
