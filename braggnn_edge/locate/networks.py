"""One way to open any network, by its file: float checkpoints, integers of a run, universal networks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import resolve
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.stage import AUTO, SHIPPED
from braggnn_edge.peaks.table import PeakTable

#: What opens a file, by its suffix: dotted names, since some of it lies in packages above this one,
#: and some takes long to import.
OPENERS = {
    ".npz": "braggnn_edge.universal.locator:universal_locator",
    ".json": "quant.exchange.locators:load_integer_locator",
    ".pt": "braggnn_edge.locate.checkpoints:checkpoint_locator",
}


#: Names of what ships as integers, which equal the firmware: the universal network in layers, and the circuit.
INTEGERS = ("universal_layers", "universal_circuit")

#: The one form of a float universal network.
_UNIVERSAL_FORM = "torch"

#: What a run's folder may hold of networks, the first that is there is meant: the integers that its firmware has, then
#: float networks.
_OF_RUN = (
    "qat/locator.json", "universal/universal.npz", "compact/compact.pt", "full/full.pt",
    "locator.json", "universal.npz", "compact.pt", "full.pt",
)  # fmt: skip


def network_file(name: str | Path) -> str:
    """The name of the network that ships, or the complete path of a file: that which is named, or that of a run's
    folder. Raises UserError for anything else."""
    if str(name) == SHIPPED:
        return SHIPPED
    if str(name) in INTEGERS:
        return str(resolve("braggnn_edge.universal.network:SHIPPED").with_name(f"{name}.json"))
    path = Path(name).absolute()
    if path.is_dir():
        found = [path / inside for inside in _OF_RUN if (path / inside).is_file()]
        if not found:
            raise UserError(f"network {name}: this folder holds no network; expected one of {', '.join(_OF_RUN)} in it")
        path = found[0]
    if path.suffix not in OPENERS:
        raise UserError(
            f"network {str(name)!r}: expected {SHIPPED!r} (the one that ships), {' or '.join(INTEGERS)} (it as "
            f"integers), a run's folder, or a file of {', '.join(OPENERS)}"
        )
    if not path.is_file():
        raise UserError(f"network {name} does not exist; correct its path, or train it first")
    return str(path)


def file_of(name: str) -> Path:
    """The file of a network by :func:`network_file`."""
    return resolve("braggnn_edge.universal.locator:SHIPPED") if name == SHIPPED else Path(name)


def open_network(name: str | Path, backend: str = AUTO, threads: int = 0) -> Locator:
    """A network as a locator: "universal", the one that ships, "universal_layers" or "universal_circuit", which are
    its integers, a run's folder, or a file.

    The file is ``universal.npz``, ``locator.json`` of a run, ``full.pt`` or ``compact.pt`` of a run, or a checkpoint of
    the upstream project. backend: the form, by default the fastest on this machine; threads: 0 for torch's number.
    Raises UserError for anything else.
    """
    found = network_file(name)
    suffix = ".npz" if found == SHIPPED else Path(found).suffix
    opener = resolve(OPENERS[suffix])
    if suffix != ".npz":
        return opener(Path(found), backend=backend, threads=threads)
    if backend not in (AUTO, _UNIVERSAL_FORM):
        raise UserError(
            f"backend {backend!r}: the float universal network has one form, {_UNIVERSAL_FORM}; leave the backend out, "
            f"or choose {INTEGERS[0]}"
        )
    locator: Locator = opener() if found == SHIPPED else opener(Path(found))
    locator.form = _UNIVERSAL_FORM
    return locator


def margin(network: Locator, size: int) -> int | None:
    """Pixels at each side of patches of ``size`` px that a network does not see; None where the patches do not suit."""
    found, odd = divmod(size - network.size, 2)
    return None if found < 0 or odd else found


def patches_for(network: Locator, table: PeakTable) -> NDArray[np.generic]:
    """Patches (n, size, size) of a table as a network of that size sees them; it must not need larger ones."""
    edge = margin(network, table.size) or 0
    inner = slice(edge, table.size - edge)
    return np.ascontiguousarray(table.patches()[:, inner, inner])
