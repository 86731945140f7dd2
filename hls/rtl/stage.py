"""Stage "rtl": the RTL projects of a circuit, and a front end."""

from braggnn_edge.core.stages import Context, Stage, require_network
from hls.project.stage import has_rtl, refuse_front_end
from hls.rtl.spec import RtlSpec


def _check(context: Context) -> None:
    """Refuse layers, and a front end that cannot be written around the circuit."""
    refuse_front_end(context.cfg)
    if has_rtl(context.cfg):
        return
    require_network(
        context, "rtl", "circuit",
        "layers are not unrolled into RTL of ours: use `make hls`, alone or behind a front end ([rtl.front_end] with "
        'external = true), or set network = "shipped_circuit" in [qat]',
    )  # fmt: skip


RTL = Stage(
    name="rtl",
    help="RTL project of a circuit: pipelined core, stream interface, constraints, scripts, test bench; front end",
    writes="one RTL project for each language, of circuits only, and the front end's where one is asked for",
    work="hls.rtl.build:work",
    tables={"rtl": RtlSpec},
    needs=lambda cfg: ("label", "qat"),
    check=_check,
)
