"""A locator in integers: detector counts of a patch to an offset in px, and its file, ``locator.json``.

    patch -> central window -> normalizer -> codes -> network  -+-> saturated sum: offset and ln sigma, (row, col)
                                                   -> centroid -+

The network corrects the centroid where there is one, and is the whole estimate where there is none. It may take the
patch's exponent too, which says how bright it is, and it may know its own uncertainty, which leaves as it is: codes of
ln sigma, which a calibration in the file turns into px. Layers that become an HLS project, and a circuit that is
unrolled, are both locators: they differ in their hardware, not in their file.
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
from braggnn_edge.locate.calibration import Calibration
from quant.contract import emulate, network
from quant.contract.arithmetic import Codes, Format, requantize
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.sizing import check_accumulators

SCHEMA = "braggnn-edge locator"
_VERSION = 3


@dataclass(frozen=True)
class IntegerLocator:
    """Everything between the counts of a patch and its offset. Raises UserError where the steps do not fit together.

    ``output`` has the fraction of the network's output and of the centroid's result. Outputs are 2 codes a patch, the
    offset, or 4 with ``calibration``: then ln sigma follows.
    """

    size: int  # side of the patches that come in, px, odd
    window: int  # side of the part of them that is used, px, odd, centred
    normalizer: Normalizer | BlockShift
    network: IntegerNetwork
    centroid: Centroid | None
    output: Format
    calibration: Calibration | None = None  # of ln sigma; None: the network does not know its uncertainty
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)  # plain data; computes nothing

    def __post_init__(self) -> None:
        part = self.window != self.size  # of the patch; whole patches may have any size
        if part and (self.size % 2 == 0 or self.window % 2 == 0 or not 1 <= self.window < self.size):
            raise UserError(f"locator: window {self.window} of patches of {self.size} px; expected odd, not larger")
        bits = self.normalizer.bits
        expected = Format(bits, bits, signed=False)
        offered = self.normalizer.count_bits if isinstance(self.normalizer, BlockShift) else 0
        if self.network.exponent not in (0, offered):
            raise UserError(
                f"locator: the network takes {self.network.exponent} codes of an exponent, its normalizer has "
                f"{offered}; expected the same, or none"
            )
        if self.network.size != self.window or self.network.input != expected:
            raise UserError(
                f"locator: the network takes {self.network.size} px and {self.network.input}, expected {self.window} "
                f"px and unsigned codes of {bits} bits, all of them after the point"
            )
        outputs = 2 if self.calibration is None else 4
        if self.network.outputs != outputs:
            raise UserError(
                f"locator: the network has {self.network.outputs} outputs, expected {outputs} "
                f"{'without' if outputs == 2 else 'with'} a calibration of sigma"
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

    @property
    def outputs(self) -> int:
        """Codes that leave for a patch: 2, or 4 with sigma."""
        return self.network.outputs

    def inputs(self, counts: NDArray[np.generic]) -> Codes:
        """Counts (N, window, window) to the network's inputs (N, *network.shape): codes, with the exponent if asked."""
        return network_inputs(self.network, self.normalizer, counts)

    def codes(self, patches: NDArray[np.generic]) -> Codes:
        """Patches (N, size, size) to the network's inputs (N, *network.shape)."""
        return self.inputs(self.crop(patches))

    def pixels(self, inputs: NDArray[np.integer]) -> NDArray[np.integer]:
        """The codes (N, window, window) of the pixels among a network's inputs."""
        pixels = inputs[:, : self.window**2] if self.network.exponent else inputs
        return pixels.reshape(len(inputs), self.window, self.window)

    def run(self, inputs: NDArray[np.integer]) -> Codes:
        """A network's inputs to output codes (N, 2 or 4): (row, col) from the centre pixel, then ln sigma."""
        return self.combined(inputs, emulate.run(self.network, inputs).outputs)

    def combined(self, inputs: NDArray[np.integer], outputs: Codes) -> Codes:
        """What a network's output codes (N, 2 or 4) for its inputs become, whatever form made them."""
        found = np.array(outputs)
        if self.centroid is not None:
            found[:, :2] += self.centroid.codes(self.pixels(inputs))
        return requantize(found, self.output.frac, self.output)[0]

    def locate(self, patches: NDArray[np.generic]) -> NDArray[np.float64]:
        """Patches (N, size, size) in counts to offsets (N, 2) in px, (row, col) from the patch's centre pixel."""
        return self.positions(self.run(self.codes(patches)))

    def locate_with_sigma(self, patches: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """:meth:`locate`, and the standard deviations (N, 2) px. Raises UserError for a locator that knows none."""
        return self.locate_with_intervals(patches)[:2]

    def locate_with_intervals(
        self, patches: NDArray[np.generic]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """:meth:`locate_with_sigma`, and the half-widths (N, 2) px of the intervals that hold 95.45 % of the errors."""
        codes = self.run(self.codes(patches))
        return self.positions(codes), *self.intervals(codes)

    def positions(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Output codes (N, 2 or 4) to offsets (N, 2) in px."""
        return self.output.values(codes[:, :2])

    def sigma(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Output codes (N, 4) to calibrated standard deviations (N, 2) in px; UserError where there are none."""
        return self.intervals(codes)[0]

    def intervals(self, codes: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Output codes (N, 4), of whatever form, to half-widths (N, 2) in px that hold 68.27 and 95.45 % of the errors.

        The first are the standard deviations. Raises UserError for a locator that knows none.
        """
        if self.calibration is None:
            raise UserError("this locator knows no sigma; choose one that was trained with it")
        return self.calibration.half_widths(self.output.values(codes[:, 2:]))

    def code_of_sigma(self, largest: float) -> int:
        """The code of ln sigma above which, and only there, sigma is larger than ``largest`` px: a flag for hardware.

        One less than the lowest code where sigma is always larger. Raises UserError for a locator that knows none, and
        for a length that no code stands for.
        """
        codes = np.arange(self.output.low, self.output.high + 1)
        sigma, _ = self.intervals(np.repeat(codes[:, None], 4, axis=1))
        if not sigma[0, 0] <= largest < np.inf:
            raise UserError(
                f"sigma of at most {largest} px: this locator's is at least {sigma[0, 0]:.3g} px; expected a length in "
                "px from there on"
            )
        return int(np.searchsorted(sigma[:, 0], largest, side="right")) + self.output.low - 1

    @property
    def is_bare(self) -> bool:
        """Whether it is a network of whole patches behind a normalizer, and nothing else."""
        return self.centroid is None and self.window == self.size and not self.network.exponent and self.outputs == 2

    @property
    def digest(self) -> str:
        """A hash of everything that the locator computes; its provenance is not part of it."""
        return hashlib.sha256(json.dumps({"version": 1, **_document(self)}).encode()).hexdigest()


def network_inputs(layers: IntegerNetwork, normalizer: Normalizer | BlockShift, counts: NDArray[np.generic]) -> Codes:
    """What a network is given for counts (N, size, size): codes (N, *layers.shape), the exponent's last if it asks."""
    return normalized(normalizer, counts, exponent=layers.exponent > 0)


def normalized(normalizer: Normalizer | BlockShift, counts: NDArray[np.generic], *, exponent: bool) -> Codes:
    """Counts (N, S, S) to codes (N, S, S), or with the exponent's codes behind them flat, (N, S**2 + count_bits)."""
    codes = normalizer.codes(counts)
    if not exponent or not isinstance(normalizer, BlockShift):
        return codes
    return np.concatenate([codes.reshape(len(codes), codes.shape[1] ** 2), normalizer.exponents(counts)], axis=1)


def of_layers(
    layers: IntegerNetwork, normalizer: Normalizer | BlockShift, provenance: Mapping[str, Any] | None = None
) -> IntegerLocator:
    """The locator of a network that takes whole patches and answers alone."""
    return IntegerLocator(
        layers.size, layers.size, normalizer, layers, None, layers.output, provenance=provenance or {}
    )


def save(locator: IntegerLocator, path: Path) -> None:
    """Write ``locator.json``: the same bytes for the same locator and provenance. It appears whole or not at all."""
    document = {
        "schema": SCHEMA, "version": _VERSION, "digest": locator.digest, **_document(locator),
        "provenance": dict(locator.provenance),
    }  # fmt: skip
    with written_aside(path) as aside:
        aside.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


def load(path: Path) -> IntegerLocator:
    """Read ``locator.json``, or an ``integer.json`` or ``circuit.json`` of an earlier version.

    Raises UserError for a file of another kind or version, for one whose contents are not those that its digest is of
    (files of before have none), and for any other damaged one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document["version"]
        if version not in range(1, _VERSION + 1) or (version > 1 and document["schema"] != SCHEMA):
            raise UserError(
                f"{path}: locator version {version} of schema {document.get('schema')!r}, expected {_VERSION} of "
                f"{SCHEMA!r}; make it again with `make qat`"
            )
        found = _read(document if "network" in document else _from_network(document, path))
        if document.get("digest", found.digest) != found.digest:
            raise UserError(
                f"its contents give the digest {found.digest[:12]}, it names {document['digest']!s:.12}: it was "
                "changed or is damaged; make it again with `make qat`"
            )
        return found
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
    base, calibration = document["centroid"], document.get("calibration")
    layers = network.from_document(document["network"])
    check_accumulators(layers)
    return IntegerLocator(
        network.whole(document["size"]),
        network.whole(document["window"]),
        normalizer,
        layers,
        None if base is None else Centroid.from_document(base),
        Format(**document["output"]),
        None if calibration is None else Calibration(**{k: tuple(map(float, v)) for k, v in calibration.items()}),
        dict(document.get("provenance", {})),
    )


def _document(locator: IntegerLocator) -> dict[str, Any]:
    """What it computes, as plain data."""
    sigma = {} if locator.calibration is None else {"calibration": asdict(locator.calibration)}
    return sigma | {
        "size": locator.size,
        "window": locator.window,
        "normalizer": {"kind": "min_max"} | locator.normalizer.document(),
        "centroid": None if locator.centroid is None else locator.centroid.document(),
        "network": network.as_document(locator.network),
        "output": asdict(locator.output),
    }
