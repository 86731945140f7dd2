"""Stage "grains": grains from the positions of several estimators, beside the truth and the fit's."""

from pathlib import Path

from braggnn_edge.core.config import resolve_path
from braggnn_edge.core.stages import Context, Stage, resolve
from braggnn_edge.grains.spec import GrainSpec


def _check(context: Context) -> None:
    """Refuse what cannot be used now, not after hours of labelling."""
    resolve("braggnn_edge.grains.scenario:check")(context)


def files(context: Context) -> tuple[Path, ...]:
    """The instrument's file and the networks, those of the run as far as they are there."""
    spec = context.cfg["grains"]
    given = (resolve_path(spec.instrument, context.cfg.folder),) if spec.instrument else ()
    networks = resolve("braggnn_edge.grains.estimates:network_files")(context)
    return (*given, *dict.fromkeys(networks.values()))


GRAINS = Stage(
    name="grains",
    help="grains from the positions of the fit, of networks and of the centroid, against the truth and each other",
    writes="`grains.json`, `grains.html` (a page of these grains alone), `grains.npz`, a table of grains for every "
    "estimator, pictures",
    work="braggnn_edge.grains.scenario:work",
    tables={"grains": GrainSpec},
    needs=lambda cfg: ("data", "label"),
    files="braggnn_edge.grains.stage:files",
    check=_check,
)
