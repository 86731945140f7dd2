"""The table ``[report]``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportSpec:
    """The report."""

    notes: tuple[str, ...] = ()  # lines that open the report
    float_beats_centroid: bool = False  # refuse to report a float BraggNN whose p95 is not below the centre of mass
