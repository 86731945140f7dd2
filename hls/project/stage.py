"""Stage "hls": the HLS projects of the quantized locator."""

from braggnn_edge.core.stages import Stage
from hls.project.spec import HlsSpec

HLS = Stage(
    name="hls",
    help="hls4ml projects with exact types, test bench and golden vectors",
    writes="one HLS project for each io type, and for further boards",
    work="hls.project.build:work",
    tables={"hls": HlsSpec},
    needs=lambda cfg: ("label", "qat"),
)
