"""The table ``[report]``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportSpec:
    """notes: lines that open the report, such as that a run was trained for a short time only.

    float_beats_centroid: refuse to report a float BraggNN whose p95 is not below that of the centre of mass.
    """

    notes: tuple[str, ...] = ()
    float_beats_centroid: bool = False
