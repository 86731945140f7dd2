"""A trained network with attention in its forms, and the patches on which they are held against each other."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core import config
from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks import table
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training.spec import NetworkSpec
from firmware_sim.verification.vectors import corner_case_codes, corner_case_counts
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.attention import NonLocal
from quant.contract.network import IntegerNetwork, Leaky, Linear
from quant.contract.normalize import Normalizer
from quant.training.plan import BitPlan
from quant.training.qnet import QuantBraggNN

SEED = 20261123


@dataclass(frozen=True)
class Forms:
    """A finished qat stage: its peak table, and one network in three forms."""

    name: str
    peaks: PeakTable
    plan: BitPlan
    quantized: QuantBraggNN
    integer: IntegerNetwork
    normalizer: Normalizer
    qonnx: Path
    digest: str


def load_forms(run: Path) -> Forms:
    """Read ``label/peaks.h5`` and ``qat/`` of a run directory; UserError where something is missing."""
    qat = run / "qat"
    try:
        settings = json.loads((qat / "manifest.json").read_text())["configuration"]["quant"]
        state = torch.load(qat / "quantized.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run.name}: no finished qat stage ({error!r}); run `braggnn-edge qat` first") from error
    locator = locators.load(qat / "locator.json")
    integer = locator.network
    plan = config.parse(BitPlan, settings, f"{run.name}: quant")
    quantized = QuantBraggNN(description(integer), integer.size, plan)
    quantized.load_state_dict(state)
    files = "".join(sha256(qat / name) for name in ("quantized.pt", "model.onnx", "locator.json"))
    digest = hashlib.sha256(files.encode()).hexdigest()
    return Forms(
        run.name, table.load(run / "label" / "peaks.h5"), plan, quantized.eval(), integer,
        locator.normalizer, qat / "model.onnx", digest,
    )  # fmt: skip


def description(integer: IntegerNetwork) -> NetworkSpec:
    """The network that an integer network was made from, so far as its quantized form depends on it."""
    linear = [layer for layer in integer.layers if isinstance(layer, Linear)]
    block = next((layer for layer in integer.layers if isinstance(layer, NonLocal)), None)
    leaky = next((layer for layer in integer.layers if isinstance(layer, Leaky)), None)
    slope = 0.0
    if leaky is not None:
        exact = (leaky.slope_code, leaky.slope_frac) == (164, 14)
        slope = 0.01 if exact else leaky.slope_code * 2.0**-leaky.slope_frac
    return NetworkSpec(
        tuple(len(layer.weight) for layer in linear if layer.kind == "conv2d"),
        tuple(len(layer.weight) for layer in linear if layer.kind == "dense")[:-1],
        block is not None,
        slope,
        len(block.theta.weight) if block else 0,
        block.pool if block else 1,
    )


def measured_rows(peaks: PeakTable) -> NDArray[np.bool_]:
    """(n,) the peaks of scans that have no truth: measured ones, whose fit converged."""
    simulated = np.unique(peaks.peaks["scan"][peaks.has("truth")])
    return ~np.isin(peaks.peaks["scan"], simulated) & peaks.has("voigt")


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """``wanted`` of ``count`` indices, or all, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))


def simulated_patches(forms: Forms, wanted: int) -> NDArray[np.generic]:
    """Simulated peaks: test peaks, evenly spread where there are more than wanted, then those of the other splits."""
    own = forms.peaks.where(forms.peaks.has("truth"))
    test = own.peaks["split"] == TEST
    held, others = own.where(test).patches(), own.where(~test).patches()
    if len(held) >= wanted:
        return held[spread(len(held), wanted)]
    found = np.concatenate([held, others[: wanted - len(held)]])
    if len(found) < wanted:
        raise UserError(f"{forms.name}: {len(found)} simulated peaks, expected {wanted}; simulate a longer scan")
    return found


def matrix_codes(forms: Forms, measured: PeakTable, patches: int, corner_cases: int) -> tuple[Codes, dict[str, int]]:
    """Input codes of the matrix, and how many are of which kind."""
    rng = np.random.default_rng(SEED)
    real = measured.where(measured_rows(measured)).patches()
    if measured.size != forms.integer.size or len(real) < patches // 2:
        raise UserError(
            f"--measured holds {len(real)} measured peaks of {measured.size} px, expected {patches // 2} of "
            f"{forms.integer.size} px; label a measured scan, or ask for fewer --patches"
        )
    to_codes = forms.normalizer.codes
    size = forms.integer.size
    bad = [to_codes(corner_case_counts(size, rng)), corner_case_codes(size, forms.integer.input, rng, count=100)]
    everything = np.concatenate(bad)
    parts = {
        "simulated": to_codes(simulated_patches(forms, patches - patches // 2)),
        "measured": to_codes(real[spread(len(real), patches // 2)]),
        "corner_cases": everything[spread(len(everything), corner_cases)],
    }
    return np.concatenate(list(parts.values())), {name: len(part) for name, part in parts.items()}
