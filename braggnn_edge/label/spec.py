"""The tables ``[[scan]]``, ``[peaks]`` and ``[split]``: where frames come from, and how peaks are found and used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from braggnn_edge.core.config import LONGEST_NAME, FilePath, refuse_unused
from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.spec import Meaning
from braggnn_edge.peaks.splits import SPLITS
from braggnn_edge.simulation.spec import SimulationSpec

#: Smaller boxes than this hold too few pixels beside a peak, px.
SMALLEST_BOX = 8
#: A detector that is left out, until the scan's other keys say which one it is.
_NOT_GIVEN: Any = None


@dataclass(frozen=True)
class DetectorSpec:
    """What the fit needs to know of the detector.

    It may be left out for a simulated scan: the fit then takes gain, read noise, saturation and threshold from
    `[scan.simulate]`. Where both are given, gain, read noise and saturation must agree.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"floor": "zero_suppression"}

    gain: float = 1.0  # counts a photon
    read_noise: float = 1.0  # standard deviation, counts
    saturation: float = 0.0  # counts at and above which a pixel is saturated; 0: never
    zero_suppression: float = 0.0  # pixels below were stored as zero; 0: none were

    def __post_init__(self) -> None:
        if self.gain <= 0 or min(self.read_noise, self.saturation, self.zero_suppression) < 0:
            raise UserError("detector: gain must be positive; read_noise, saturation and zero_suppression 0 or more")


@dataclass(frozen=True)
class ScanSpec:
    """Where the frames of a scan come from, how peaks are found in it, and what its peaks are used for.

    A configuration has one such table for each scan.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"type_maximum": "overflow_value"}

    name: str  # of the scan; letters, digits, `-`, `_`
    # `"simulated"`, `"images"`, `"hdf5"`, `"braggnn"`, `"hexrd"` or `"imaged11"` ([formats.md](formats.md))
    format: Literal["simulated", "braggnn", "hexrd", "hdf5", "imaged11", "images"] = "simulated"
    path: FilePath = ""  # file of a measured scan, or a pattern for a series of image files
    dataset: str = ""  # 3-D data set inside an HDF5 file; may be left out when there is only one
    dark: FilePath = ""  # 2-D image that is subtracted: `file.npy`, `file.h5`, `file.h5:data/set` or an image file
    mask: FilePath = ""  # 2-D image, true or 1 where a pixel is bad
    peaks: FilePath = ""  # peaks file of the BraggNN project, checked against the frames; labels are fitted anew
    negative: Meaning = "auto"  # raw pixels below zero are `"bad"`, `"data"`, or what is usual for the format
    overflow_value: Meaning = "auto"  # the same of the largest value of an unsigned type
    # rotation at the start of the first frame, degrees, in place of what the file says; needs omega_step
    omega_start: float | None = None
    omega_step: float | None = None  # rotation of every frame, degrees; needs omega_start
    on_bad_frame: Literal["stop", "skip"] = "stop"  # at a frame that cannot be used: `"stop"`, or `"skip"` it
    # look at a few frames first, and stop where they show noise, powder rings, spots larger than a patch, or nothing
    check: bool = True
    background_box: int = 0  # side of the boxes in which the local background is found, px; 0: none
    # counts, above the local background if there is one, above which a pixel belongs to a peak
    threshold: float = 150.0
    sigma: float = 0.0  # the same in standard deviations of the local noise; 0: `threshold` holds
    min_area: int = 4  # pixels of the smallest component that is a peak
    max_residual: float = 0.0  # largest rms residual of the fit over its amplitude; 0: any
    unsaturated: bool = False  # leave saturated peaks out
    use: tuple[str, ...] = ("train", "validation", "test")  # parts that the scan feeds
    detector: DetectorSpec = _NOT_GIVEN  # table below
    simulate: SimulationSpec = field(default_factory=SimulationSpec)  # table below

    def __post_init__(self) -> None:
        made = self.simulate
        if self.detector is None and self.format == "simulated":
            zero_suppression = made.threshold + 0.5 if made.threshold else 0.0
            same = DetectorSpec(made.gain, made.read_noise, float(made.saturation), zero_suppression)
            object.__setattr__(self, "detector", same)
        elif self.detector is None:
            object.__setattr__(self, "detector", DetectorSpec())
        if (self.format == "simulated") == bool(self.path):
            raise UserError(f"scan {self.name!r}: a measured scan needs a path, a simulated one has none")
        if self.format == "simulated":
            keys = ("dataset", "dark", "mask", "peaks", "negative", "overflow_value", "on_bad_frame")
            refuse_unused(self, (*keys, "omega_start", "omega_step"), "on a simulated scan")
        else:
            refuse_unused(self, ("simulate",), "on a measured scan")
        if self.sigma:
            refuse_unused(self, ("threshold",), "beside sigma")
        if (self.omega_start is None) != (self.omega_step is None) or self.omega_step == 0:
            raise UserError(
                f"scan {self.name!r}: omega_start {self.omega_start} and omega_step {self.omega_step}: give both in "
                "degrees, with a step that is not 0, or neither"
            )
        if not self.use or not set(self.use) <= set(SPLITS[:3]) or len(set(self.use)) != len(self.use):
            raise UserError(f"scan {self.name!r}: use {self.use} must name some of {', '.join(SPLITS[:3])}, each once")
        usable = self.name and all(c.isalnum() or c in "-_" for c in self.name)
        if not usable or len(self.name.encode()) > LONGEST_NAME:
            raise UserError(
                f"scan name {self.name!r} is not a file name; use letters, digits, '-' and '_', at most {LONGEST_NAME}"
            )
        if self.min_area < 1 or self.max_residual < 0:
            raise UserError(f"scan {self.name!r}: min_area must be 1 or more, max_residual 0 or more")
        if self.background_box < 0 or 0 < self.background_box < SMALLEST_BOX:
            raise UserError(
                f"scan {self.name!r}: background_box {self.background_box} must be 0 (none) or at least "
                f"{SMALLEST_BOX} px, several times the width of a peak"
            )
        if self.sigma < 0 or (self.sigma and not self.background_box):
            raise UserError(
                f"scan {self.name!r}: sigma {self.sigma} must be 0 or more, and needs a background_box (32, say): it "
                "counts standard deviations above the local background"
            )


#: The keys of a scan on which its frames depend.
DATA_KEYS = ("name", "format", "path", "dataset", "dark", "mask", "peaks", "simulate")


def check_scans(scans: tuple[ScanSpec, ...], training: bool = True) -> None:
    """Refuse a configuration without scans, with two of one name, or, for training, with a part that no scan feeds.

    A simulated scan's detector must be the one that its frames are made with.
    """
    if not scans:
        raise UserError("the configuration has no [[scan]]; add one (configs/demo.toml shows how)")
    names = [scan.name for scan in scans]
    if len(set(names)) != len(names):
        raise UserError(f"scan names {names} must differ")
    for scan in scans:
        for what in ("truth", "grains"):
            if scan.format == "simulated" and f"{scan.name}_{what}" in names:
                raise UserError(
                    f"scan name '{scan.name}_{what}' is that of the {what} of scan {scan.name!r}; choose another"
                )
        for key in ("gain", "read_noise", "saturation"):
            told, made = getattr(scan.detector, key), getattr(scan.simulate, key)
            if scan.format == "simulated" and told != made:
                raise UserError(
                    f"scan {scan.name!r}: detector {key} = {told} but simulate {key} = {made}; a simulated scan is "
                    "fitted with the detector that made it: give both the same"
                )
    for part in SPLITS[:3]:
        if training and not any(part in scan.use for scan in scans):
            raise UserError(f"no scan is used for {part!r}; name it in the `use` of a [[scan]]")


@dataclass(frozen=True)
class PeakSpec:
    """The patches that are cut out around peaks, and which peaks are used."""

    size: int = 11  # patch side, px, odd
    shift: int = 1  # px kept around a patch for shifts in training
    # train and test on unsaturated peaks with one maximum, and neither another component nor a bad pixel in the
    # patch; the others are in the table, excluded
    lone: bool = True
    # train on measured peaks, too, whose fit ended on a bound of position or width, or is wider than the patch
    bounded_fits: bool = False

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise UserError(f"patch size {self.size} is not usable; expected an odd number of at least 3")
        if self.shift < 0:
            raise UserError(f"shift {self.shift} is negative; expected 0 or more")


@dataclass(frozen=True)
class SplitSpec:
    """How peaks are dealt to training, validation and test: by blocks of frames."""

    block: int = 30  # frames that go to one part together
    validation: float = 0.1  # share of the blocks
    test: float = 0.2  # share of the blocks
    guard: int = 2  # frames left out on both sides of a border

    def __post_init__(self) -> None:
        if self.validation <= 0 or self.test < 0 or self.validation + self.test >= 1:
            raise UserError(
                f"split: validation {self.validation} and test {self.test} must be positive with a sum below 1"
            )
        if self.guard < 0 or self.block <= 2 * self.guard:
            raise UserError(f"split: block of {self.block} frames must be longer than two guards of {self.guard}")
