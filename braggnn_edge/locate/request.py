"""What a command line, and a scenario behind it, ask of ``locate``."""

from argparse import Namespace
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.options import GUESS, guessed_format
from braggnn_edge.label.acquisition import located
from braggnn_edge.label.spec import DetectorSpec, ScanSpec
from braggnn_edge.locate.networks import INTEGERS, network_file
from braggnn_edge.peaks.layouts import Writer, beam_center, writers
from braggnn_edge.peaks.rules import RULES, Find
from braggnn_edge.peaks.significance import significance_of

#: Keys of a [[scan]] that options have the names of.
_KEYS = (
    "dataset", "dark", "mask", "negative", "overflow_value", "omega_start", "omega_step", "on_bad_frame", "threshold",
    "sigma", "background_box", "min_area",
)  # fmt: skip
_DETECTOR = ("gain", "read_noise", "saturation")


@dataclass(frozen=True)
class Request:
    """spec: the scan, its paths complete; network: a name or file; backend: its form, or "auto"; find: the rule, by its
    name and as it is called; frames: (start, stop), stop None for all; trust: largest sigma that is trusted, px;
    outputs: files and what writes them; center: (row, col) of the beam, px; records: file of the firmware's records,
    None: they are not asked for; significance: of a peak, in standard deviations of the noise, 0: there is no test."""

    spec: ScanSpec
    network: str
    backend: str
    rule: str
    find: Find
    frames: tuple[int, int | None]
    trust: float
    outputs: tuple[tuple[Path, Writer], ...]
    center: tuple[float, float] | None
    records: Path | None = None
    significance: float = 0.0


def request_of(arguments: Namespace) -> Request:
    """The request of a command line. Raises UserError for anything that does not fit, before any work."""
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers} must be at least 1")
    trust = arguments.do_not_trust_above
    if trust is not None and not trust > 0:
        raise UserError(f"--do-not-trust-above {trust}: expected a positive number of px")
    outputs = writers(arguments.output)
    spec, network = _spec(arguments), network_file(arguments.network)
    return Request(
        spec, network, arguments.backend, arguments.find, _find(arguments, spec), _frames(arguments.frames),
        float("inf") if trust is None else trust, outputs, beam_center(arguments.beam_center),
        _records(arguments, network), arguments.significance,
    )  # fmt: skip


def _records(arguments: Namespace, network: str) -> Path | None:
    """The file of records, which only what is in firmware can fill."""
    path: Path | None = arguments.records
    if path is None:
        return None
    if arguments.find != "window":
        raise UserError(f"--records {path}: firmware finds peaks by the window rule; add --find window")
    if Path(network).suffix != ".json":
        raise UserError(
            f"--records {path}: firmware has a network in integers; choose {' or '.join(INTEGERS)}, or a locator.json "
            "with --network"
        )
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"--records {path}: expected the name of a file in a folder that exists")
    if path.absolute() in [output.absolute() for output in arguments.output]:
        raise UserError(f"--records {path}: the list of peaks has this name; give the records another")
    return path


def _find(arguments: Namespace, spec: ScanSpec) -> Find:
    significance_of(arguments.significance, spec.detector.gain, spec.detector.read_noise)  # refuses what has no test
    return RULES[arguments.find](
        spec.threshold, spec.min_area, spec.sigma, spec.background_box, spec.detector.saturation, spec.detector.gain,
        spec.detector.read_noise, significance=arguments.significance,
    )  # fmt: skip


def _spec(arguments: Namespace) -> ScanSpec:
    given = {key: getattr(arguments, key) for key in _KEYS if getattr(arguments, key) is not None}
    for key in ("dark", "mask"):
        if key in given:
            given[key] = str(Path(given[key]).absolute())
    if arguments.config is None:
        if arguments.scan_name:
            raise UserError(f"--scan {arguments.scan_name} names a [[scan]] of a scenario; give its --config too")
        if not arguments.scan:
            raise UserError("no scan is named; give its file, or a scenario with --config")
        if "threshold" not in given and "sigma" not in given:
            raise UserError(
                "no threshold; give --threshold COUNTS, or --background-box PX (32, say) with --sigma N (5, say)"
            )
        base = ScanSpec(
            name=_name(arguments.scan), path=str(Path(arguments.scan).absolute()), format=_format(arguments)
        )
    else:
        base = _of_scenario(arguments)
    if "sigma" in given and "threshold" in given:
        raise UserError("--threshold and --sigma exclude each other; give one of them")
    if "sigma" in given:
        given["threshold"] = _default("threshold")
    elif "threshold" in given:
        given["sigma"] = 0.0
    if arguments.no_check:
        given["check"] = False
    detector = {key: getattr(arguments, key) for key in _DETECTOR if getattr(arguments, key) is not None}
    return replace(base, **given, detector=replace(base.detector or DetectorSpec(), **detector))


def _of_scenario(arguments: Namespace) -> ScanSpec:
    """The [[scan]] of a scenario, with the file that the command line names in the place of its own."""
    cfg = config.load(arguments.config, stages.tables(), stages.RENAMED_TABLES)
    scans: dict[str, ScanSpec] = {scan.name: scan for scan in cfg["scan"]}
    name = arguments.scan_name or (next(iter(scans)) if len(scans) == 1 else "")
    if name not in scans:
        said = f"has no [[scan]] {name!r}" if name else "has several scans, or none"
        raise UserError(f"{arguments.config} {said}; choose one of {', '.join(scans) or '(none)'} with --scan")
    spec = replace(located(scans[name], cfg.folder), peaks="")
    if spec.format == "simulated":
        made = Path(arguments.scan) if arguments.scan else Path("runs") / cfg.name / "data" / f"{name}.h5"
        if not made.is_file():
            raise UserError(
                f"{made}: no such file; simulate it with `braggnn-edge data --config {arguments.config}`, or name the "
                "file of the simulated scan"
            )
        return replace(
            spec, format="braggnn", path=str(made.absolute()), omega_start=0.0, omega_step=spec.simulate.omega_step,
            simulate=_default("simulate"),
        )  # fmt: skip
    if arguments.scan:
        spec = replace(spec, path=str(Path(arguments.scan).absolute()))
    if arguments.format is not None or arguments.scan:
        spec = replace(spec, format=spec.format if arguments.format is None else _format(arguments, spec.path))
    return spec


def _default(key: str) -> Any:
    """The default of a key of [[scan]]."""
    found = next(field for field in fields(ScanSpec) if field.name == key)
    return found.default if found.default_factory is MISSING else found.default_factory()


def _format(arguments: Namespace, path: str = "") -> Any:
    asked = arguments.format
    return guessed_format(Path(path or arguments.scan)) if asked in (None, GUESS) else asked


def _name(scan: str) -> str:
    """A name for a scan by its file, or by what a pattern says besides the numbers; else by its folder."""
    path = Path(scan).absolute()
    name = path.stem if path.exists() else path.name.partition(".")[0]
    # What a name may not hold becomes ``_``.
    cleaned, folder = ("".join(c if c.isalnum() or c in "-_" else "_" for c in n) for n in (name, path.parent.name))
    name = cleaned.strip("-_") or folder.strip("-_") or "scan"
    while len(name.encode()) > config.LONGEST_NAME:
        name = name[:-1]
    return name


def _frames(text: str | None) -> tuple[int, int | None]:
    if not text:
        return 0, None
    first, colon, last = text.partition(":")
    try:
        start, stop = int(first or 0), int(last) if last else None
        if not colon or start < 0 or (stop is not None and stop <= start):
            raise ValueError
    except ValueError:
        raise UserError(f"--frames {text}: expected START:STOP, two numbers from 0, the second the larger") from None
    return start, stop
