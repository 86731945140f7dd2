"""Stage "ablation": what attention and random shifts are worth."""

from braggnn_edge.ablation.spec import AblationSpec
from braggnn_edge.core.stages import Context, Stage
from braggnn_edge.training.stage import check_trainable


def _check(context: Context) -> None:
    check_trainable(context)
    peaks = context.cfg["peaks"]
    context.cfg["ablation"].check(peaks.size, peaks.shift)


ABLATION = Stage(
    name="ablation",
    help="the full network with and without attention and random shifts, over several seeds",
    writes="one network a variant and seed; `ablation.json`, `ablation.md`, pictures",
    work="braggnn_edge.ablation.grid:work",
    tables={"ablation": AblationSpec},
    needs=lambda cfg: ("label",),
    check=_check,
)
