"""Stages "universal" and "tune": the float network that ships, made again from nothing, and fitted to an experiment."""

from braggnn_edge.core.stages import Context, Stage, resolve
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.stage import check_trainable
from braggnn_edge.universal.spec import UniversalSpec
from braggnn_edge.universal.tune_spec import TuneSpec

UNIVERSAL = Stage(
    name="universal",
    help="train the float network that travels, on a wide family of simulated patches",
    writes="`universal.npz`: weights, calibration of sigma, and what it was trained on",
    work="braggnn_edge.universal.train:work",
    tables={"family": FamilySpec, "universal": UniversalSpec},
)


def _check(context: Context) -> None:
    check_trainable(context)
    resolve("braggnn_edge.universal.tune:check")(context)


TUNE = Stage(
    name="tune",
    help="fit the float network that ships to the labelled peaks of a scan, and keep the result where it helps",
    writes="`universal.npz`: the tuned network, or the one before; `tune.json`: errors before and after",
    work="braggnn_edge.universal.tune:work",
    tables={"tune": TuneSpec},
    reads=lambda cfg: ("family", "tune"),
    needs=lambda cfg: ("label",),
    files="braggnn_edge.universal.tune:files",
    check=_check,
)
