"""Code-for-code comparison of the C simulation with the integer network, layer by layer."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import csim
from firmware_sim.forms.chunks import Arrays, Progress, map_chunks
from hls.project.attention import steps
from quant.contract import emulate
from quant.contract.arithmetic import Codes
from quant.contract.attention import NonLocal, nonlocal_codes
from quant.contract.block_shift import BlockShift
from quant.contract.network import Flatten, IntegerNetwork, Layer, Linear, Requantize
from quant.contract.normalize import Normalizer

#: Patches of a network with a non-local block that are traced at a time.
_BLOCK_PATCHES = 100


@dataclass(frozen=True)
class LayerCount:
    """One layer: codes compared, codes that differ, and what the C simulation did.

    saturations: codes clipped by a requantization, from the simulation's own codes before it. overflows: sums that
    differ from the exact sum by a multiple of 2**bits of the accumulator, that is, that wrapped.
    """

    name: str
    kind: str
    elements: int
    wrong: int
    saturations: int
    overflows: int


@dataclass(frozen=True)
class Mismatch:
    """Where two forms differ first: the first layer or step in order, its first patch, and the first code in it."""

    layer: str
    patch: int
    index: tuple[int, ...]
    expected: int
    found: int

    def __str__(self) -> str:
        return f"layer {self.layer}, patch {self.patch}, index {self.index}: {self.found}, expected {self.expected}"


@dataclass(frozen=True)
class Comparison:
    """``wrong``: patches with a wrong output code. ``first`` is None when all codes of all layers agree."""

    patches: int
    wrong: int
    layers: tuple[LayerCount, ...]
    first: Mismatch | None

    @property
    def exact(self) -> bool:
        """No code of any layer differs."""
        return self.first is None and self.wrong == 0

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @staticmethod
    def from_document(document: dict[str, Any]) -> "Comparison":
        """Read :meth:`document`."""
        first = document["first"]
        return Comparison(
            document["patches"],
            document["wrong"],
            tuple(LayerCount(**entry) for entry in document["layers"]),
            Mismatch(**{**first, "index": tuple(first["index"])}) if first else None,
        )

    def require_exact(self, name: str) -> None:
        """Raise a UserError that names the first layer and patch unless every code agrees."""
        if not self.exact:
            raise UserError(
                f"{name}: {self.wrong} of {self.patches} patches differ from the integer network, first at "
                f"{self.first}; generate the project again from the same model"
            )


def compare(network: IntegerNetwork, expected: list[Codes], found: list[Codes], start: int = 0) -> Comparison:
    """Compare two traces of the same patches: one array (n, ...) for each of :func:`points`, in order.

    ``start`` is the number of the first patch, for messages.
    """
    compared = points(network)
    if not len(compared) == len(expected) == len(found):
        raise UserError(
            f"{len(compared)} layers, but traces of {len(expected)} and {len(found)}; trace the same network"
        )
    counts, first = [], None
    before: tuple[Layer, Codes] | None = None  # the layer before and its codes
    for (name, layer), want, have in zip(compared, expected, found, strict=True):
        if want.shape != have.shape:
            raise UserError(f"layer {name}: traces of shape {want.shape} and {have.shape}; trace the same network")
        wrong = want != have
        saturations = overflows = 0
        if layer is not None:
            saturations = _saturations(*before, layer) if before else 0
            if isinstance(layer, Linear | NonLocal):
                difference = (have - want)[wrong]
                overflows = int(np.count_nonzero(difference % (1 << layer.accumulator.bits) == 0))
            before = layer, have
        kind = layer.kind if layer is not None else "step"
        counts.append(LayerCount(name, kind, want.size, int(wrong.sum()), saturations, overflows))
        if first is None and wrong.any():
            patch, *index = (int(n) for n in np.argwhere(wrong)[0])
            at = (patch, *index)
            first = Mismatch(name, start + patch, tuple(index), int(want[at]), int(have[at]))
    outputs = (expected[-1] != found[-1]).reshape(len(found[-1]), -1).any(axis=1)
    return Comparison(len(outputs), int(outputs.sum()), tuple(counts), first)


def points(network: IntegerNetwork) -> list[tuple[str, Layer | None]]:
    """What is compared, in order: each layer that is no flatten, and before a non-local block its steps.

    A step is named ``<block>.<step>`` and has no layer of its own.
    """
    found: list[tuple[str, Layer | None]] = []
    for layer in network.layers:
        if isinstance(layer, NonLocal):
            found += [(f"{layer.name}.{step.name}", None) for step in steps(layer)]
        if not isinstance(layer, Flatten):
            found.append((layer.name, layer))
    return found


def expected_traces(network: IntegerNetwork, codes: NDArray[np.integer]) -> list[Codes]:
    """The emulator's codes at each of :func:`points` for input codes (n, size, size)."""
    kept: list[Codes] = []
    before = np.asarray(codes)
    for layer, codes_after in zip(network.layers, emulate.run(network, codes, trace=True).trace, strict=True):
        if isinstance(layer, NonLocal):
            inside = nonlocal_codes(layer, before).trace
            kept += [inside[step.name] for step in steps(layer)]
        if not isinstance(layer, Flatten):
            kept.append(codes_after)
        before = codes_after
    return kept


def _saturations(before: Layer, codes: Codes, layer: Layer) -> int:
    """Codes that ``layer`` clips when it is given ``codes``, those of the layer before it."""
    if isinstance(layer, NonLocal):
        return sum(nonlocal_codes(layer, codes).saturations.values())
    if isinstance(layer, Requantize):
        return emulate.activate(layer, codes, _frac(before))[1]
    return 0


def _frac(layer: Layer) -> int:
    if isinstance(layer, Requantize):
        return layer.output.frac
    if isinstance(layer, Flatten):
        raise UserError(f"layer {layer.name} only moves codes; their fraction is that of the layer before it")
    return layer.accumulator.frac


def merge(comparisons: list[Comparison]) -> Comparison:
    """One comparison of all patches; the first mismatch is that of the earliest layer, then of the earliest patch."""
    if not comparisons:
        raise UserError("there is nothing to compare: no patches")
    layers = []
    for same in zip(*(one.layers for one in comparisons), strict=True):
        sums = {key: sum(getattr(c, key) for c in same) for key in ("elements", "wrong", "saturations", "overflows")}
        layers.append(replace(same[0], **sums))
    order = [layer.name for layer in layers]
    firsts = [one.first for one in comparisons if one.first is not None]
    first = min(firsts, key=lambda m: (order.index(m.layer), m.patch), default=None)
    return Comparison(sum(p.patches for p in comparisons), sum(p.wrong for p in comparisons), tuple(layers), first)


def simulate(
    executable: csim.Executable, network: IntegerNetwork, codes: NDArray[np.integer], *,
    workers: int, chunk: int, out_dir: Path, progress: Progress | None = None,
) -> tuple[Codes, Comparison]:  # fmt: skip
    """Run the C simulation on input codes (n, size, size) and compare every code of every layer with the emulator.

    Returns the simulation's output codes (n, 2) and the comparison. In chunks, in parallel and resumable like
    :func:`firmware_sim.forms.csim.run`; no trace is kept.
    """

    def work(start: int, some: NDArray[np.integer]) -> tuple[Codes, Comparison]:
        return compare_layers(executable, network, some, start)

    data = np.asarray(codes, np.int32).reshape(-1, *network.shape)
    digest = f"simulate {executable.key} {network_key(network)}"
    return compare_chunks(work, data, key=digest, chunk=chunk, workers=workers, out_dir=out_dir, progress=progress)


def compare_layers(
    executable: csim.Executable, network: IntegerNetwork, codes: NDArray[np.integer], start: int = 0
) -> tuple[Codes, Comparison]:
    """Output codes (n, 2) of the simulated network and the comparison of its layers, of all codes (n, size, size)."""
    # The steps of a block are some hundred thousand codes a patch at full size: few patches at a time.
    has_block = any(isinstance(layer, NonLocal) for layer in network.layers)
    step = _BLOCK_PATCHES if has_block else max(len(codes), 1)
    outputs, comparisons = [], []
    for at in range(0, len(codes), step):
        some = codes[at : at + step]
        found = csim.trace(executable, some)
        outputs.append(found[-1])
        comparisons.append(compare(network, expected_traces(network, some), found, start + at))
    return np.concatenate(outputs), merge(comparisons)


def compare_chunks(
    work: Callable[[int, NDArray[np.integer]], tuple[Codes, Comparison]], data: NDArray[np.integer], *,
    key: str, chunk: int, workers: int, out_dir: Path, progress: Progress | None = None,
) -> tuple[Codes, Comparison]:  # fmt: skip
    """:func:`firmware_sim.forms.chunks.map_chunks` of a ``work`` that simulates and compares; its results joined."""

    def kept(start: int, some: NDArray[np.integer]) -> Arrays:
        outputs, comparison = work(start, some)
        return {"outputs": outputs, "comparison": np.array(json.dumps(comparison.document()))}

    results = map_chunks(kept, data, key=key, chunk=chunk, workers=workers, out_dir=out_dir, progress=progress)
    merged = merge([Comparison.from_document(json.loads(str(result["comparison"]))) for result in results])
    return np.concatenate([result["outputs"] for result in results]), merged


def network_key(network: IntegerNetwork) -> str:
    """A text that is the same for the same network only."""
    plain = asdict(network, dict_factory=lambda items: {k: getattr(v, "tolist", lambda v=v: v)() for k, v in items})
    return json.dumps(plain, sort_keys=True)


def compare_normalizer(
    executable: csim.Executable, normalizer: Normalizer | BlockShift, patches: NDArray[np.generic]
) -> Comparison:
    """Compare the compiled normalizer with the integer normalizer on detector values (n, size, size)."""
    counts, saturations = normalizer.counts(patches)
    return compare_step("normalizer", normalizer.codes(patches), csim.normalize(executable, counts), saturations)


def compare_step(name: str, expected: Codes, found: Codes, saturations: int = 0, start: int = 0) -> Comparison:
    """Compare one step outside the network, codes (n, ...); ``start`` is the number of the first patch."""
    wrong = expected != found
    first = None
    if wrong.any():
        patch, *index = (int(n) for n in np.argwhere(wrong)[0])
        at = (patch, *index)
        first = Mismatch(name, start + patch, tuple(index), int(expected[at]), int(found[at]))
    count = LayerCount(name, name, wrong.size, int(wrong.sum()), saturations, 0)
    return Comparison(len(found), int(wrong.reshape(len(wrong), -1).any(axis=1).sum()), (count,), first)
