"""Stage "reference": the firmware's positions against the float networks, the labels and the truth; every form of
inference against the float64 reference.

The float networks run on the GPU when there is one. Only what ran is written; what could not is named with its reason.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.metrics import distances, summary
from braggnn_edge.evaluation.positions import load_positions
from braggnn_edge.locate import gpu_figures
from braggnn_edge.locate.float_forms import float_locator
from braggnn_edge.locate.locator import Locator
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.report.figures_reference import firmware_distances
from braggnn_edge.training import train
from braggnn_edge.training.model import BraggNN
from quant.contract import locator as locators
from quant.exchange.compiled_locator import compiled_locator
from quant.exchange.locators import emulator_locator, qdq_locator
from quant.exchange.qdq import TARGETS, export_qdq
from quant.training.spec import FLOAT_NETWORKS
from quant.training.stage import float_stages

Offsets = NDArray[np.float64]

#: Forms of the float networks: backend, precision, device.
FORMS: tuple[tuple[str, str, str], ...] = (
    ("eager", "float32", "cpu"),
    ("compiled", "float32", "cpu"),
    ("torch", "float32", "cpu"),
    ("torch", "bfloat16", "cpu"),
    ("torch", "float16", "cpu"),
    ("onnxruntime", "float32", "cpu"),
    ("onnxruntime", "float16", "cpu"),
    ("torch", "float32", "cuda"),
    ("torch", "bfloat16", "cuda"),
    ("torch", "float16", "cuda"),
    ("triton", "float16", "cuda"),
    ("onnxruntime", "float32", "cuda"),
    ("onnxruntime", "float16", "tensorrt"),
)
#: Patches for the rates, at least; a few test peaks are repeated.
_TIMED = 2048


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`run` with the float networks of the configuration."""
    run(context.run, float_stages(context.cfg), directory, context.say)


def run(run_directory: Path, stages: tuple[str, ...], directory: Path, say: Callable[[str], None]) -> None:
    """The stage: write ``reference.json`` and ``reference.png``, and the int8 files ``qdq_<target>.onnx``.

    stages: those that trained float networks, "train" and perhaps "compact".
    Raises UserError when there are no test peaks, or when the predictions of the csim stage do not fit them.
    """
    test = load_table(run_directory / "label" / "peaks.h5").of(TEST)
    if not len(test.peaks):
        raise UserError("no test peaks to compare on; label/summary.json says why peaks are excluded")
    trained = {name: stage for name, (stage, _) in FLOAT_NETWORKS.items() if stage in stages}
    nets = {name: train.load_network(run_directory / stage, name) for name, stage in trained.items()}
    firmware = _predictions(run_directory / "csim" / "predictions.npz", len(test.peaks))
    patches = test.patches()
    device = train.choose_device().partition(":")[0]

    rows: list[dict[str, Any]] = []
    absent: list[dict[str, str]] = []
    for name, net in nets.items():
        rows += _float_rows(name, net, patches, absent)
    rows += _integer_rows(run_directory / "qat" / "locator.json", patches, absent, directory)
    eager = next(row["patches_per_s"] for row in rows if row["backend"] == "eager torch" and row["network"] == "full")
    for row in rows:
        row["ratio_to_eager"] = round(row["patches_per_s"] / eager, 2)
        error = row["error_px"]
        say(
            f"  {row['network']:8s} {row['backend']:26s} {row['precision']:14s} {row['device']:8s} "
            f"p50 {error['p50']:.1e}  max {error['max']:.1e} px  {row['ratio_to_eager']:8.2f} x eager"
        )

    shown = {"full": "float", "compact": "float_compact"}
    float_forms = {shown[name]: float_locator(net, "torch", device=device) for name, net in nets.items()}
    references = {name: locator.locate(patches) for name, locator in float_forms.items()}
    compared = compare(firmware, references, test)
    for form, against in compared.items():
        for name, entry in against.items():
            say(f"  {form} against {name:14s} p50 {entry['p50']:.4f}  p95 {entry['p95']:.4f} px  n {entry['n']}")
    document = {
        "patches": len(patches),
        "float_device": float_forms["float"].device,
        "backends": rows,
        "absent": absent,
        "firmware": compared,
        "gpu": gpu_figures.figures() or gpu_figures.NOT_MEASURED,
    }
    if not isinstance(document["gpu"], dict):
        say("  on a GPU: not measured (benchmarks/gpu.sh)")
    first = next(iter(firmware))
    firmware_distances(
        {name: distances(*pair) for name, pair in _pairs(firmware[first], references, test).items()},
        first,
        directory / "reference.png",
    )
    write_json(directory / "reference.json", document)


def compare(firmware: dict[str, Offsets], references: dict[str, Offsets], test: PeakTable) -> dict[str, dict[str, Any]]:
    """Firmware form to reference to summary of the distances; labels and truth over the peaks that have them."""
    found: dict[str, dict[str, Any]] = {}
    for form, offsets in firmware.items():
        pairs = _pairs(offsets, references, test)
        found[form] = {name: _summary(ours, theirs, name) for name, (ours, theirs) in pairs.items()}
    return found


def _pairs(offsets: Offsets, references: dict[str, Offsets], test: PeakTable) -> dict[str, tuple[Offsets, Offsets]]:
    pairs = {name: (offsets, values) for name, values in references.items()}
    for name in ("voigt", "truth"):
        known = test.has(name)
        if known.any():
            pairs[name] = (offsets[known], test.offsets(name)[known])
    return pairs


def _summary(estimate: Offsets, reference: Offsets, name: str) -> dict[str, Any]:
    return summary(estimate, reference, name) | {"max": float(distances(estimate, reference).max())}


def _predictions(path: Path, count: int) -> dict[str, Offsets]:
    """The firmware's offsets (n, 2) px of the test peaks, by form of the C simulation."""
    found = {name: offsets for name, offsets in load_positions(path)[0].items() if name.startswith("csim")}
    if not found or any(values.shape != (count, 2) for values in found.values()):
        raise UserError(f"{path.name}: no C simulation of all {count} test peaks; run `braggnn-edge csim`")
    return found


def _float_rows(
    name: str, net: BraggNN, patches: NDArray[np.generic], absent: list[dict[str, str]]
) -> list[dict[str, Any]]:
    reference = float_locator(net, "torch", precision="float64").locate(patches)
    rows = []
    for backend, precision, device in FORMS:
        try:
            locator = float_locator(net, backend, precision=precision, device=device)
        except UserError as error:
            entry = {"backend": backend, "precision": precision, "device": device, "reason": str(error)}
            if entry not in absent:
                absent.append(entry)
            continue
        rows.append(_row(name, locator, patches, reference, "float64"))
    return rows


def _integer_rows(
    path: Path, patches: NDArray[np.generic], absent: list[dict[str, str]], directory: Path
) -> list[dict[str, Any]]:
    loaded = locators.load(path)
    integer = loaded.network
    emulator = emulator_locator(loaded)
    reference = emulator.locate(patches)
    rows = [_row("integer", emulator, patches, reference, "integer network")]
    try:
        rows.append(_exact_row(compiled_locator(loaded), patches, reference))
    except UserError as error:
        entry = {"backend": "compiled integers", "precision": "integer", "device": "cpu", "reason": str(error)}
        absent.append(entry)
    for target in TARGETS:
        try:
            export_qdq(integer, directory / f"qdq_{target}.onnx", target)
        except UserError as error:
            absent.append({"backend": f"QDQ ({target})", "precision": "int8", "device": "any", "reason": str(error)})
            continue
        for device in ("cpu",) if target == "cpu" else ("cpu", "tensorrt"):
            try:
                locator = qdq_locator(loaded, target, device)
            except UserError as error:
                reason = {"backend": f"QDQ ({target})", "precision": "int8", "device": device, "reason": str(error)}
                absent.append(reason)
                continue
            rows.append(_exact_row(locator, patches, reference))
    return rows


def _exact_row(locator: Locator, patches: NDArray[np.generic], reference: Offsets) -> dict[str, Any]:
    """A form that should have the emulator's codes, with the number of patches where it has others."""
    wrong = int((locator.locate(patches) != reference).any(axis=1).sum())
    return _row("integer", locator, patches, reference, "integer network") | {"wrong": wrong}


def _row(name: str, locator: Locator, patches: NDArray[np.generic], reference: Offsets, against: str) -> dict[str, Any]:
    """One form: its error against the reference, and its rate, the best of three passes."""
    error = distances(locator.locate(patches), reference)
    many = np.resize(patches, (max(_TIMED, len(patches)), *patches.shape[1:])) if len(patches) < _TIMED else patches
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        locator.locate(many)
        best = min(best, time.perf_counter() - started)
    figures = {f"p{q}": float(np.percentile(error, q)) for q in (50, 75, 95)}
    return {
        "network": name,
        "backend": locator.name,
        "precision": locator.precision,
        "device": locator.device,
        "reference": against,
        "error_px": {"n": len(error), "mean": float(error.mean()), **figures, "max": float(error.max())},
        "patches_per_s": round(len(many) / best),
    }
