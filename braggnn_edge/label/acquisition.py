"""The scans of a configuration, and stage "data": simulated ones are made, measured ones are opened and described."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from braggnn_edge.core.config import resolve_path
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.frames.formats import files_of
from braggnn_edge.frames.scan import Meaning, Scan, open_scan, split_name
from braggnn_edge.peaks.table import SPLITS
from braggnn_edge.simulation import simulate as simulation

#: Smaller boxes than this hold too few pixels beside a peak, px.
SMALLEST_BOX = 8


@dataclass(frozen=True)
class DetectorSpec:
    """What the fit needs to know of the detector.

    gain: counts (ADU) a photon; read_noise: its standard deviation in counts; saturation: counts at and above which
    a pixel is saturated (0: never); floor: pixels below it were stored as zero by the acquisition (0: none were).
    """

    gain: float = 1.0
    read_noise: float = 1.0
    saturation: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.gain <= 0 or min(self.read_noise, self.saturation, self.floor) < 0:
            raise UserError("detector: gain must be positive; read_noise, saturation and floor 0 or more")


@dataclass(frozen=True)
class ScanSpec:
    """One ``[[scan]]``: where its frames come from, how peaks are found in it, and what its peaks are used for.

    format: "simulated" (see SimulationSpec) or a registered file format with a path (and data set, dark and mask);
    peaks: an upstream peaks file, checked against the frames (labels are always fitted anew); negative, type_maximum:
    what raw pixels below zero, and at the largest value of an unsigned type, are (:func:`scan.marks`); on_bad_frame:
    stop at a frame that cannot be used, or leave it out; background_box: side in px of the boxes in which the local
    background is found (0: none); threshold: counts above which, over the local background if there is one, a pixel
    belongs to a peak; sigma: the same in standard deviations of the local noise (0: threshold holds); min_area:
    pixels of the smallest component that is a peak; max_residual: largest rms residual of the fit over its amplitude
    (0: any); unsaturated: leave saturated peaks out; use: the splits that it feeds; detector: left out, that of the
    simulation for a simulated scan.
    """

    name: str
    format: Literal["simulated", "braggnn", "hexrd", "hdf5", "images"] = "simulated"
    path: str = ""
    dataset: str = ""
    dark: str = ""
    mask: str = ""
    peaks: str = ""
    negative: Meaning = "auto"
    type_maximum: Meaning = "auto"
    on_bad_frame: Literal["stop", "skip"] = "stop"
    background_box: int = 0
    threshold: float = 150.0
    sigma: float = 0.0
    min_area: int = 4
    max_residual: float = 0.0
    unsaturated: bool = False
    use: tuple[str, ...] = ("train", "validation", "test")
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    simulate: simulation.SimulationSpec = field(default_factory=simulation.SimulationSpec)

    def __post_init__(self) -> None:
        made = self.simulate
        if self.format == "simulated" and self.detector == DetectorSpec():
            floor = made.threshold + 0.5 if made.threshold else 0.0
            same = DetectorSpec(made.gain, made.read_noise, float(made.saturation), floor)
            object.__setattr__(self, "detector", same)
        if (self.format == "simulated") == bool(self.path):
            raise UserError(f"scan {self.name!r}: a measured scan needs a path, a simulated one has none")
        if not self.use or not set(self.use) <= set(SPLITS[:3]) or len(set(self.use)) != len(self.use):
            raise UserError(f"scan {self.name!r}: use {self.use} must name some of {', '.join(SPLITS[:3])}, each once")
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise UserError(f"scan name {self.name!r} is not a file name; use letters, digits, '-' and '_'")
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
        if scan.format == "simulated" and f"{scan.name}_truth" in names:
            raise UserError(f"scan name '{scan.name}_truth' is that of the truth of scan {scan.name!r}; choose another")
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


def external_files(scans: tuple[ScanSpec, ...], folder: Path) -> tuple[Path, ...]:
    """The measured files that a configuration reads: all of a series, and those behind the links of an HDF5 file."""
    found: list[Path] = []
    for scan in scans:
        if scan.path:
            found += files_of(scan.format, resolve_path(scan.path, folder), scan.dataset or None)
        texts = [text for text in (scan.peaks, scan.dark, scan.mask) if text]
        found += [split_name(str(resolve_path(text, folder)))[0] for text in texts]
    return tuple(dict.fromkeys(found))


def open_spec(spec: ScanSpec, data: Path, folder: Path) -> Scan:
    """The frames of one scan: from the data stage when simulated, else from its file."""
    if spec.format == "simulated":
        return open_scan("braggnn", data / f"{spec.name}.h5")
    dark, mask, peaks = (
        str(resolve_path(text, folder)) if text else None for text in (spec.dark, spec.mask, spec.peaks)
    )
    return open_scan(
        spec.format,
        resolve_path(spec.path, folder),
        name=spec.name,
        dataset=spec.dataset or None,
        dark=dark,
        mask=mask,
        peaks=peaks,
        negative=spec.negative,
        type_maximum=spec.type_maximum,
    )


def _progress(say: Callable[[str], None], frames: int) -> Callable[[int, int], None]:
    """Say something about ten times a scan."""
    step = max(1, frames // 10)

    def report(done: int, total: int) -> None:
        if done % step == 0 or done == total:
            say(f"  simulated {done} of {total} frames")

    return report


def run(
    scans: tuple[ScanSpec, ...],
    folder: Path,
    seed: int,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """The stage: simulate what is simulated (finished scans of an interrupted run are kept), describe every scan."""
    described = {}
    for index, spec in enumerate(scans):
        if spec.format == "simulated":
            frames, truth = directory / f"{spec.name}.h5", directory / f"{spec.name}_truth.h5"
            if not (frames.exists() and truth.exists()):
                say(f"  {spec.name}: simulating")
                simulation.simulate(
                    spec.simulate,
                    seed + 1000 * index,
                    frames,
                    truth,
                    workers,
                    _progress(say, spec.simulate.frames),
                )
        scan = open_spec(spec, directory, folder)
        described[spec.name] = {"format": spec.format, "shape": list(scan.shape), "dtype": str(scan.dtype)}
        say(f"  {spec.name}: {scan.shape[0]} frames of {scan.shape[1]} x {scan.shape[2]}, {scan.dtype}")
    write_json(directory / "scans.json", described)
