"""A locator in integers: detector counts of a patch to an offset in px, and its file, ``locator.json``.

    patch -> central window -> normalizer -> codes -> network  -+-> saturated sum: offset (row, col)
                                                   -> centroid -+

The network corrects the centroid where there is one, and is the whole estimate where there is none. Layers that become
an HLS project, and a circuit that is unrolled, are both locators: they differ in their hardware, not in their file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from quant.contract import emulate, network
from quant.contract.arithmetic import Codes, Format, requantize
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer

SCHEMA = "braggnn-edge locator"
_VERSION = 2


@dataclass(frozen=True)
class IntegerLocator:
    """Everything between the counts of a patch and its offset. Raises UserError where the steps do not fit together.

    ``output`` has the fraction of the network's output and of the centroid's result.
    """

    size: int  # side of the patches that come in, px, odd
    window: int  # side of the part of them that is used, px, odd, centred
    normalizer: Normalizer | BlockShift
    network: IntegerNetwork
    centroid: Centroid | None
    output: Format
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)  # plain data; computes nothing

    def __post_init__(self) -> None:
        part = self.window != self.size  # of the patch; whole patches may have any size
        if part and (self.size % 2 == 0 or self.window % 2 == 0 or not 1 <= self.window < self.size):
            raise UserError(f"locator: window {self.window} of patches of {self.size} px; expected odd, not larger")
        bits, expected = self.normalizer.bits, self.network.input
        if self.network.size != self.window or (expected.bits, expected.frac, expected.signed) != (bits, bits, False):
            raise UserError(
                f"locator: the network takes {self.network.size} px and {expected}, expected {self.window} px and "
                f"unsigned codes of {bits} bits, all of them after the point"
            )
        if self.network.output.frac != self.output.frac or not self.output.signed:
            raise UserError(
                f"locator: the network's output has {self.network.output.frac} fraction bits, the locator's "
                f"{self.output.frac}; expected the same, signed"
            )
        base = self.centroid
        if base is not None and (base.window, base.bits, base.frac) != (self.window, bits, self.output.frac):
            raise UserError(
                f"locator: the centroid is for {base.window} px, codes of {base.bits} bits and {base.frac} fraction "
                f"bits; expected {self.window}, {bits} and {self.output.frac}"
            )

    def crop(self, patches: NDArray[np.generic]) -> NDArray[np.generic]:
        """The central window of patches (N, size, size); another shape is refused."""
        found = np.asarray(patches)
        if found.ndim != 3 or found.shape[1:] != (self.size, self.size):
            raise UserError(f"patches of shape {found.shape}, expected (n, {self.size}, {self.size})")
        edge = (self.size - self.window) // 2
        return found[:, edge : self.size - edge, edge : self.size - edge]

    def counts(self, patches: NDArray[np.generic]) -> Codes:
        """Patches (N, size, size) to what the hardware receives: whole counts (N, window, window), saturated."""
        return self.normalizer.counts(self.crop(patches))[0]

    def codes(self, patches: NDArray[np.generic]) -> Codes:
        """Patches (N, size, size) to input codes (N, window, window)."""
        return self.normalizer.codes(self.crop(patches))

    def run(self, codes: NDArray[np.integer]) -> Codes:
        """Input codes (N, window, window) to output codes (N, 2): (row, col) from the centre pixel."""
        outputs = emulate.run(self.network, codes).outputs
        return self.combined(codes, outputs)

    def combined(self, codes: NDArray[np.integer], outputs: Codes) -> Codes:
        """What a network's output codes (N, 2) for input codes (N, window, window) become, whatever form made them."""
        base = 0 if self.centroid is None else self.centroid.codes(codes)
        return requantize(outputs + base, self.output.frac, self.output)[0]

    def locate(self, patches: NDArray[np.generic]) -> NDArray[np.float64]:
        """Patches (N, size, size) in counts to offsets (N, 2) in px, (row, col) from the patch's centre pixel."""
        return self.output.values(self.run(self.codes(patches)))

    @property
    def digest(self) -> str:
        """A hash of everything that the locator computes; its provenance is not part of it."""
        return hashlib.sha256(json.dumps({"version": 1, **_document(self)}).encode()).hexdigest()


def of_layers(
    layers: IntegerNetwork, normalizer: Normalizer | BlockShift, provenance: Mapping[str, Any] | None = None
) -> IntegerLocator:
    """The locator of a network that takes whole patches and answers alone."""
    return IntegerLocator(layers.size, layers.size, normalizer, layers, None, layers.output, provenance or {})


def save(locator: IntegerLocator, path: Path) -> None:
    """Write ``locator.json``: the same bytes for the same locator and provenance. It appears whole or not at all."""
    document = {"schema": SCHEMA, "version": _VERSION, **_document(locator), "provenance": dict(locator.provenance)}
    with written_aside(path) as aside:
        aside.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


def load(path: Path) -> IntegerLocator:
    """Read ``locator.json``, or an ``integer.json`` or ``circuit.json`` of an earlier version.

    Raises UserError for a file of another kind or version, and for a damaged one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document["version"]
        if version not in (1, _VERSION) or (version == _VERSION and document["schema"] != SCHEMA):
            raise UserError(
                f"{path}: locator version {version} of schema {document.get('schema')!r}, expected {_VERSION} of "
                f"{SCHEMA!r}; make it again with `make qat`"
            )
        return _read(document if "network" in document else _from_network(document, path))
    except UserError as error:  # of one of its steps, which does not know the file
        message = str(error)
        raise UserError(message if message.startswith(f"{path}: ") else f"{path}: {message}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not a locator file ({error!r}); make it with `make qat`") from error


def _from_network(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The document of an ``integer.json`` of version 1, a network with its normalizer, as a locator's."""
    if "normalizer" not in document:
        raise UserError(f"{path}: holds no normalizer; make it again with `make qat`")
    found = network.from_document(document)
    return {
        "size": found.size,
        "window": found.size,
        "normalizer": {"kind": "min_max"} | document["normalizer"],
        "centroid": None,
        "network": document,
        "output": asdict(found.output),
    }


def _read(document: dict[str, Any]) -> IntegerLocator:
    entry = dict(document["normalizer"])
    kind = entry.pop("kind")
    normalizer = BlockShift(**entry) if kind == "block_shift" else Normalizer.from_document(entry)
    base = document["centroid"]
    return IntegerLocator(
        network.whole(document["size"]),
        network.whole(document["window"]),
        normalizer,
        network.from_document(document["network"]),
        None if base is None else Centroid.from_document(base),
        Format(**document["output"]),
        dict(document.get("provenance", {})),
    )


def _document(locator: IntegerLocator) -> dict[str, Any]:
    """What it computes, as plain data."""
    return {
        "size": locator.size,
        "window": locator.window,
        "normalizer": {"kind": "min_max"} | locator.normalizer.document(),
        "centroid": None if locator.centroid is None else locator.centroid.document(),
        "network": network.as_document(locator.network),
        "output": asdict(locator.output),
    }
