"""The scans of a configuration, and stage "data": simulated ones are made, measured ones are opened and described."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from braggnn_edge import simulate as simulation
from braggnn_edge.config import resolve_path
from braggnn_edge.errors import UserError
from braggnn_edge.rundir import write_json
from braggnn_edge.scan import Scan, open_scan, split_name
from braggnn_edge.table import SPLITS


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
    peaks: an upstream peaks file, checked against the frames (labels are always fitted anew); threshold: counts above
    which a pixel belongs to a peak; min_area: pixels of the smallest component that is a peak; max_residual: largest
    rms residual of the fit over its amplitude (0: any); unsaturated: leave saturated peaks out; use: the splits that
    it feeds.
    """

    name: str
    format: Literal["simulated", "braggnn", "hexrd", "hdf5"] = "simulated"
    path: str = ""
    dataset: str = ""
    dark: str = ""
    mask: str = ""
    peaks: str = ""
    threshold: float = 150.0
    min_area: int = 4
    max_residual: float = 0.0
    unsaturated: bool = False
    use: tuple[str, ...] = ("train", "validation", "test")
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    simulate: simulation.SimulationSpec = field(default_factory=simulation.SimulationSpec)

    def __post_init__(self) -> None:
        if (self.format == "simulated") == bool(self.path):
            raise UserError(f"scan {self.name!r}: a measured scan needs a path, a simulated one has none")
        if not self.use or not set(self.use) <= set(SPLITS[:3]) or len(set(self.use)) != len(self.use):
            raise UserError(f"scan {self.name!r}: use {self.use} must name some of {', '.join(SPLITS[:3])}, each once")
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise UserError(f"scan name {self.name!r} is not a file name; use letters, digits, '-' and '_'")
        if self.min_area < 1 or self.max_residual < 0:
            raise UserError(f"scan {self.name!r}: min_area must be 1 or more, max_residual 0 or more")


#: The keys of a scan on which its frames depend.
DATA_KEYS = ("name", "format", "path", "dataset", "dark", "mask", "peaks", "simulate")


def check_scans(scans: tuple[ScanSpec, ...]) -> None:
    """Refuse a configuration without scans, with two of one name, or with nothing to train or to test on."""
    if not scans:
        raise UserError("the configuration has no [[scan]]; add one (configs/demo.toml shows how)")
    names = [scan.name for scan in scans]
    if len(set(names)) != len(names):
        raise UserError(f"scan names {names} must differ")
    for scan in scans:
        if scan.format == "simulated" and f"{scan.name}_truth" in names:
            raise UserError(f"scan name '{scan.name}_truth' is that of the truth of scan {scan.name!r}; choose another")
    for part in SPLITS[:3]:
        if not any(part in scan.use for scan in scans):
            raise UserError(f"no scan is used for {part!r}; name it in the `use` of a [[scan]]")


def external_files(scans: tuple[ScanSpec, ...], folder: Path) -> tuple[Path, ...]:
    """The measured files that a configuration reads."""
    texts = [t for s in scans for t in (s.path, s.peaks, s.dark, s.mask) if t]
    return tuple(dict.fromkeys(split_name(str(resolve_path(text, folder)))[0] for text in texts))


def open_spec(spec: ScanSpec, data: Path, folder: Path) -> Scan:
    """The frames of one scan: from the data stage when simulated, else from its file."""
    if spec.format == "simulated":
        return open_scan("braggnn", data / f"{spec.name}.h5")
    optional = {"dataset": spec.dataset or None}
    for key, text in (("dark", spec.dark), ("mask", spec.mask), ("peaks", spec.peaks)):
        optional[key] = str(resolve_path(text, folder)) if text else None
    return open_scan(spec.format, resolve_path(spec.path, folder), **optional)


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
