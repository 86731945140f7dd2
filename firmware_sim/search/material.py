"""What the trials of a search learn from and are judged by: peaks of a labelled scan, or patches of the family."""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.estimators import centre_of_mass_squared
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.peaks.splits import TRAIN, VALIDATION
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.dataset import Peaks
from braggnn_edge.training.model import BraggNN
from braggnn_edge.universal.locator import SHIPPED as UNIVERSAL
from quant.training.build import family_examples, teacher
from quant.training.circuit_spec import CircuitSpec
from quant.training.examples import Examples, held_out_of_family


@dataclass(frozen=True)
class HeldOut:
    """Validation patches (n, size, size) in counts, offsets (n, 2) in px from the centre pixel, and whose they are.

    data, teacher: digests of all that is trained and validated on, and of the network whose answers are learned from
    (None without one): trials that differ in one of them cannot be compared. bar: mean error in px of the centroid of
    squared intensity, which needs no network.
    """

    patches: NDArray[np.generic]
    offsets: NDArray[np.float64]
    data: str
    teacher: str | None
    bar: float

    @staticmethod
    def of(peaks: Peaks, data: str, teacher: str | None) -> "HeldOut":
        """UserError where there are no peaks."""
        if len(peaks) == 0:
            raise UserError("search: no validation peaks with a label; label/summary.json says why peaks are excluded")
        patches, offsets = (tensor.numpy() for tensor in peaks.centred())
        bar = float(distances(centre_of_mass_squared(patches), offsets).mean())
        return HeldOut(patches, offsets.astype(np.float64), data, teacher, bar)

    @staticmethod
    def of_table(table: PeakTable, taught_by: BraggNN | None = None) -> "HeldOut":
        """The validation peaks of a labelled scan."""
        taught = None if taught_by is None else _weights_digest(taught_by)
        return HeldOut.of(Peaks.of(table.of(VALIDATION), "best"), peaks_digest(table), taught)

    @staticmethod
    def of_family(drawn: FamilySpec, circuit: CircuitSpec, seed: int, workers: int = 1) -> "HeldOut":
        """The held-out patches that :func:`quant.training.examples.Examples.of_family` draws for the run's seed."""
        peaks = held_out_of_family(drawn, seed + circuit.seed, circuit.validation, workers)
        digest = hashlib.sha256(json.dumps(asdict(drawn)).encode())
        for values in (peaks.crops, peaks.offsets):
            digest.update(np.ascontiguousarray(values.numpy()).tobytes())
        return HeldOut.of(peaks, digest.hexdigest(), sha256(UNIVERSAL) if circuit.teacher else None)


@dataclass(frozen=True)
class Material:
    """What trials are trained on, and the held-out part; teacher: the full float network, where labels need it."""

    examples: Examples
    held: HeldOut
    teacher: BraggNN | None = None

    @staticmethod
    def of_table(table: PeakTable, taught_by: BraggNN | None = None) -> "Material":
        """The peaks of a labelled scan. Raises UserError where there are none to train or to validate on."""
        held = HeldOut.of_table(table, taught_by)
        return Material(Examples.of_table(table), held, taught_by)


def held_out(context: Context) -> HeldOut:
    """What the trials of this configuration are judged by; nothing that they are trained on is drawn."""
    cfg = context.cfg
    if cfg["circuit"].source == "family":
        return HeldOut.of_family(cfg["family"], cfg["circuit"], cfg.seed, context.workers)
    return HeldOut.of_table(load_table(context.run / "label" / "peaks.h5"), teacher(context))


def material(context: Context) -> Material:
    """What the trials of this configuration learn from: the label stage's peaks, or patches that are drawn here."""
    circuit = context.cfg["circuit"]
    if circuit.source == "family":
        return Material(family_examples(context, circuit, UNIVERSAL), held_out(context))
    return Material.of_table(load_table(context.run / "label" / "peaks.h5"), teacher(context))


def peaks_digest(table: PeakTable) -> str:
    """sha256 of what is trained and validated on: crops and labels, not the columns that no trial reads."""
    digest = hashlib.sha256(json.dumps([table.size, table.shift, str(table.crops.dtype)]).encode())
    for part in (TRAIN, VALIDATION):
        rows = table.of(part)
        for values in (rows.crops, rows.offsets("best"), rows.has("best")):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _weights_digest(net: BraggNN) -> str:
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
