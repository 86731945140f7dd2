"""The table ``[report]``."""

from dataclasses import dataclass

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class ReportSpec:
    """The report."""

    notes: tuple[str, ...] = ()  # lines that open the report
    float_beats_centroid: bool = False  # refuse to report a float BraggNN whose p95 is not below the centre of mass
    # px: peaks with a larger sigma of either axis are flagged, as not to be trusted; 0: the one that 5 % of the test
    # peaks exceed
    largest_sigma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.largest_sigma < float("inf"):
            raise UserError(f"report: largest_sigma {self.largest_sigma} px; expected a length, or 0 for that of 5 %")
