"""Stage "universal": the float network that ships, made again from nothing."""

from braggnn_edge.core.stages import Stage
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.universal.spec import UniversalSpec

UNIVERSAL = Stage(
    name="universal",
    help="train the float network that travels, on a wide family of simulated patches",
    writes="`universal.npz`: weights, calibration of sigma, and what it was trained on",
    work="braggnn_edge.universal.train:work",
    tables={"family": FamilySpec, "universal": UniversalSpec},
)
