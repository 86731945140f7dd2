"""Stages "train" and "compact": the full float BraggNN by the paper's recipe, the compact one for the firmware."""

from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage, resolve
from braggnn_edge.label.spec import check_scans
from braggnn_edge.training.spec import TrainSpec


def check_shift(context: Context, table: str) -> None:
    """Refuse a training shift in ``[table]`` for which the crops have no margin."""
    shift, margin = context.cfg[table].shift, context.cfg["peaks"].shift
    if not 0 <= shift <= margin:
        raise UserError(
            f"{table}: shift {shift} is out of range; expected 0 to {margin} px, the margin that shift in [peaks] "
            "keeps around the patches"
        )


def check_trainable(context: Context) -> None:
    """Refuse scans of which one of the splits has nothing."""
    check_scans(context.cfg["scan"], training=True)


def _check(context: Context, table: str) -> None:
    check_trainable(context)
    context.cfg[table].network.check_patch_size(context.cfg["peaks"].size)
    check_shift(context, table)
    if context.cfg[table].initial:
        resolve("braggnn_edge.training.train:check")(context, table)


def float_networks(cfg: Config) -> tuple[str, ...]:
    """The float networks that the command ``train`` makes: the full one, and the compact one where it is asked for.

    It is asked for by ``[qat]``, or by a table ``[compact]`` where nothing else goes to the firmware than what ships.
    """
    spec = cfg["qat"]
    wanted = spec.network == "compact" or (spec.is_shipped and "compact" in cfg.given)
    return ("full", "compact") if wanted else ("full",)


TRAIN = Stage(
    name="train",
    help="train the full float BraggNN, and the compact network where it goes to the firmware",
    writes="`full.pt`: the full float BraggNN, the published network by default",
    work="braggnn_edge.training.train:work_full",
    tables={"full": TrainSpec},
    needs=lambda cfg: ("label",),
    files="braggnn_edge.training.train:files_full",
    check=lambda context: _check(context, "full"),
    also=lambda cfg: float_networks(cfg)[1:],
)

COMPACT = Stage(
    name="compact",
    help="train the compact float network",
    writes="`compact.pt`: the compact float network, where it goes to the firmware",
    work="braggnn_edge.training.train:work_compact",
    tables={"compact": TrainSpec},
    needs=lambda cfg: ("label",),
    files="braggnn_edge.training.train:files_compact",
    check=lambda context: _check(context, "compact"),
    command=False,
)
