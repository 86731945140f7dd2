"""The table ``[grains]``: from the peaks of a scenario to grains, by several estimators."""

from dataclasses import dataclass
from typing import Literal

from braggnn_edge.core.config import FilePath
from braggnn_edge.core.errors import UserError

#: What the table's ``estimators`` may name besides networks: the fit of the label stage, and trivial estimators.
FIT = "voigt"
TRIVIAL = ("maximum", "centre_of_mass", "centre_of_mass_squared")
#: How the stage makes grains, by the keys of ``grains.json``, in the words of the terminal, the report and the pages.
KINDS = {
    "free": "found anew",
    "plain": "found anew, sigma not used",
    "fixed": "from the spots of the fit's grains",
}


@dataclass(frozen=True)
class GrainSpec:
    """Grains from the peaks of the scenario's scan, with the positions of several estimators.

    A scan that is simulated from grains knows its lattice and its instrument, which may then be left out.
    """

    # the [[scan]] of each detector, in the order of the instrument, or as `"DETECTOR=SCAN"`; empty: all of them
    scans: tuple[str, ...] = ()
    instrument: FilePath = ""  # `instrument.yml` of HEXRD, `.par` of ImageD11, or `.toml` with the keys of a `.par`
    lattice: tuple[float, ...] = ()  # cell in angstrom and degrees: a, or a b c, or a b c alpha beta gamma
    centring: Literal["", "P", "A", "B", "C", "I", "F", "R"] = ""  # of the lattice; empty: the scan's own, else P
    # mm: no grain lies farther than this from the origin; 0: as far as the simulated ones, of a measured scan 0.5
    sample: float = 0.0
    completeness: float = 0.5  # least share of the expected spots of the first rings that make a grain
    least: int = 12  # spots of a grain
    indexer: Literal["own", "imaged11"] = "own"  # what finds the grains: our indexer, or ImageD11's (to be installed)
    omega_sign: Literal[0, 1, -1] = 0  # -1: the sample turns against the omega of the scan; 0: as the instrument says
    flip: str = ""  # frames are first flipped `v` (up-down), `h` (left-right), `t` (transposed), in this order
    # `"voigt"` (the fit), `"maximum"`, `"centre_of_mass"`, `"centre_of_mass_squared"`, `"universal"`,
    # `"universal_layers"` and `"universal_circuit"` (what ships), or the file of a network
    estimators: tuple[str, ...] = (
        "voigt", "universal", "universal_layers", "universal_circuit", "centre_of_mass_squared",
    )  # fmt: skip
    own: bool = True  # also with the networks that the run has trained so far; none is trained for it
    least_size: float = 30.0  # um: of the true grains that must be found
    median_size: float = 0.0  # um, diameter of the median grain: gives sizes of a measured scan; 0: not known

    def __post_init__(self) -> None:
        for name in ("sample", "least_size", "median_size"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"grains: {name} {getattr(self, name)}; expected a positive number, or 0")
        if len(self.lattice) not in (0, 1, 3, 6):
            raise UserError(
                f"grains: lattice {self.lattice}; expected a (cubic), a b c (right angles), or a b c alpha beta gamma"
            )
        if set(self.flip) - set("vht"):
            raise UserError(
                f"grains: flip {self.flip!r}; expected letters of v (up-down), h (left-right), t (transpose)"
            )
        if not 0 < self.completeness <= 1:
            raise UserError(f"grains: completeness {self.completeness}; expected a share above 0, at most 1")
        if self.least < 8:
            raise UserError(f"grains: {self.least} spots of a grain; expected 8 or more; its fit has 12 parameters")
        if FIT not in self.estimators or len(set(self.estimators)) != len(self.estimators):
            raise UserError(
                f'grains: estimators {self.estimators}; expected different ones, "{FIT}" among them: all are compared '
                "with it"
            )
