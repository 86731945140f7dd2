"""The circuit: detector counts of a patch to an offset in px, all of it in integers, and its file, ``circuit.json``.

    patch -> central window -> normalizer -> codes -> network  -+-> saturated sum: offset (row, col)
                                                   -> centroid -+

The network corrects the centroid where there is one, and is the whole estimate where there is none.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract import emulate, network
from quant.contract.arithmetic import Codes, Format, requantize
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer

_VERSION = 1


@dataclass(frozen=True)
class Circuit:
    """size: side of the patches that come in, px; window: side of the part that is used, px, centred.

    ``output`` has the fraction of the network's output and of the centroid's result. Raises UserError where the parts
    do not fit together.
    """

    size: int
    window: int
    normalizer: Normalizer | BlockShift
    network: IntegerNetwork
    centroid: Centroid | None
    output: Format

    def __post_init__(self) -> None:
        if self.size % 2 == 0 or self.window % 2 == 0 or not 1 <= self.window <= self.size:
            raise UserError(f"circuit: window {self.window} of patches of {self.size} px; expected odd, not larger")
        bits, expected = self.normalizer.bits, self.network.input
        if self.network.size != self.window or (expected.bits, expected.frac, expected.signed) != (bits, bits, False):
            raise UserError(
                f"circuit: the network takes {self.network.size} px and {expected}, expected {self.window} px and "
                f"unsigned codes of {bits} bits, all of them after the point"
            )
        if self.network.output.frac != self.output.frac or not self.output.signed:
            raise UserError(
                f"circuit: the network's output has {self.network.output.frac} fraction bits, the circuit's "
                f"{self.output.frac}; expected the same, signed"
            )
        base = self.centroid
        if base is not None and (base.window, base.bits, base.frac) != (self.window, bits, self.output.frac):
            raise UserError(
                f"circuit: the centroid is for {base.window} px, codes of {base.bits} bits and {base.frac} fraction "
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
        """A hash of everything that the circuit computes."""
        return hashlib.sha256(json.dumps(_document(self)).encode()).hexdigest()


def save(circuit: Circuit, path: Path) -> None:
    """Write ``circuit.json``: the same bytes for the same circuit."""
    path.write_text(json.dumps(_document(circuit), separators=(",", ":")) + "\n")


def load(path: Path) -> Circuit:
    """Read ``circuit.json``; a file of another kind or version, or a damaged one, is refused."""
    try:
        document = json.loads(path.read_text())
        if document["version"] != _VERSION:
            raise UserError(f"{path}: circuit version {document['version']}, expected {_VERSION}; make it again")
        entry = dict(document["normalizer"])
        kind = entry.pop("kind")
        normalizer = BlockShift(**entry) if kind == "block_shift" else Normalizer.from_document(entry)
        base = document["centroid"]
        return Circuit(
            int(document["size"]),
            int(document["window"]),
            normalizer,
            network.from_document(document["network"]),
            None if base is None else Centroid.from_document(base),
            Format(**document["output"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a circuit ({error!r}); make it with `make circuit`") from error


def _document(circuit: Circuit) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "size": circuit.size,
        "window": circuit.window,
        "normalizer": {"kind": "min_max"} | circuit.normalizer.document(),
        "centroid": None if circuit.centroid is None else circuit.centroid.document(),
        "network": network.as_document(circuit.network),
        "output": asdict(circuit.output),
    }
