"""Stages "data" and "label": frames, simulated or measured, and the table of their peaks."""

from braggnn_edge.core.stages import Context, Stage
from braggnn_edge.label.spec import PeakSpec, ScanSpec, SplitSpec, check_scans


def _check(context: Context) -> None:
    check_scans(context.cfg["scan"], training=False)


DATA = Stage(
    name="data",
    help="simulate the simulated scans; check and describe the measured ones",
    writes="frames of simulated scans with their truth, grains and instrument, `scans.json`",
    work="braggnn_edge.grains.simulated:work",
    tables={"scan": tuple[ScanSpec, ...]},
    files="braggnn_edge.label.acquisition:files",
    settings="braggnn_edge.label.acquisition:settings",
    check=_check,
)

LABEL = Stage(
    name="label",
    help="find peaks, fit pseudo-Voigts, cut patches, split",
    writes="`peaks.h5`: peaks, crops, pseudo-Voigt fits with covariance, truth, splits",
    work="braggnn_edge.label.labelling:work",
    tables={"peaks": PeakSpec, "split": SplitSpec},
    reads=lambda cfg: ("scan", "peaks", "split"),
    needs=lambda cfg: ("data",),
    files="braggnn_edge.label.acquisition:files",  # it reads the measured frames again
    check=_check,
)
