"""What a search may choose from, and a trial's choice as a circuit to train."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Protocol

from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from firmware_sim.search.material import HeldOut
from firmware_sim.search.spec import OPTIONAL, SearchSpec
from quant.training.circuit_spec import UNUSED_KEYS, CircuitNetworkSpec, CircuitSpec, FrontEndSpec

#: Of what a study holds: raised when trials of before and after are no longer comparable.
VERSION = 1

#: Orders of each matrix that the tracing tries: more of them save a few per cent, alike for all trials.
ORDERS = 4

#: How look-up tables and latency are measured: part of what makes trials comparable.
MEASURE = f"da4ml trace of the whole circuit, {ORDERS} orders, adders of three operands"


#: Keys of the circuit, and of its parts, that trials choose.
_CHOSEN = {
    "": ("float_loop", "loop", "sparsity", "channel_sparsity", "lut_budget"),
    "front_end": ("window", "centroid", "bits"),
    "network": ("conv", "kernel", "dense", "weight_bits", "activation_bits", "widths"),
}
#: Keys of :class:`SearchSpec` that leave old trials comparable when they change.
_FREE = ("trials", "storage", "study", "sampler", "seed", "startup", "map")


class Chooser(Protocol):
    """The part of ``optuna.trial.Trial`` that is used."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float) -> float: ...


def choose(trial: Chooser, spec: SearchSpec, circuit: CircuitSpec) -> CircuitSpec:
    """The circuit that a trial stands for; UserError where its parts do not fit together.

    Every parameter is drawn in every trial, also that of a layer it has not: samplers that learn from all parameters
    together know no others. Sizes and budgets are drawn by their logarithm: one channel more counts for less where
    there are many.
    """
    window = trial.suggest_categorical("window", spec.windows)
    centroid = trial.suggest_categorical("centroid", spec.centroids)
    optional = {name: trial.suggest_categorical(name, choices) for name in OPTIONAL if (choices := getattr(spec, name))}
    front_end = dataclasses.replace(
        circuit.front_end,
        window=window,
        centroid=centroid,
        bits=trial.suggest_int("input_bits", *spec.input_bits),
        **{**optional, **config.without(FrontEndSpec, UNUSED_KEYS[centroid])},
    )
    convolutions = trial.suggest_int("convolutions", *spec.convolutions)
    layers = trial.suggest_int("layers", *spec.layers)
    channels = [trial.suggest_int(f"channels_{i + 1}", *spec.channels, log=True) for i in range(spec.convolutions[1])]
    units = [trial.suggest_int(f"units_{i + 1}", *spec.units, log=True) for i in range(spec.layers[1])]
    kernel = trial.suggest_categorical("kernel", spec.kernels)
    network = dataclasses.replace(
        circuit.network,
        conv=tuple(channels[:convolutions]),
        kernel=kernel if convolutions else CircuitNetworkSpec.kernel,
        dense=tuple(units[:layers]),
        weight_bits=trial.suggest_int("weight_bits", *spec.weight_bits),
        activation_bits=trial.suggest_int("activation_bits", *spec.activation_bits),
        widths=trial.suggest_categorical("widths", spec.widths),
    )
    budget = trial.suggest_int("lut_budget", *spec.lut_budget, log=True)
    return dataclasses.replace(
        circuit,
        front_end=front_end,
        network=network,
        float_loop=spec.float_loop,
        loop=spec.loop,
        sparsity=trial.suggest_float("sparsity", *spec.sparsity),
        channel_sparsity=trial.suggest_float("channel_sparsity", *spec.channel_sparsity),
        lut_budget=budget if trial.suggest_categorical("budgeted", spec.budgeted) else 0,
    )


def parameters(spec: SearchSpec, circuit: CircuitSpec) -> dict[str, Any] | None:
    """What :func:`choose` would have to draw for ``circuit`` but for its loops; None where it is outside the space.

    Parameters of what the circuit has not are those in the middle of their range.
    """
    front_end, network = circuit.front_end, circuit.network
    wanted = {
        "window": front_end.window, "centroid": front_end.centroid, "input_bits": front_end.bits,
        "convolutions": len(network.conv), "layers": len(network.dense), "kernel": network.kernel,
        "weight_bits": network.weight_bits, "activation_bits": network.activation_bits, "widths": network.widths,
        "sparsity": circuit.sparsity, "channel_sparsity": circuit.channel_sparsity, "budgeted": circuit.lut_budget > 0,
        **{name: getattr(front_end, name) for name in OPTIONAL if getattr(spec, name)},
        **{f"channels_{i + 1}": value for i, value in enumerate(network.conv)},
        **{f"units_{i + 1}": value for i, value in enumerate(network.dense)},
    }  # fmt: skip
    if circuit.lut_budget:
        wanted["lut_budget"] = circuit.lut_budget
    if not network.conv:
        wanted["kernel"] = spec.kernels[0]
    given = _Given(wanted)
    try:
        choose(given, spec, circuit)
    except UserError:  # of the middle of ranges that the circuit is not in
        return None
    return given.drawn if given.inside and wanted.keys() <= given.drawn.keys() else None


class _Given:
    """A chooser that draws what it is given, and notes whether it could have been drawn."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted, self.drawn, self.inside = wanted, dict[str, Any](), True

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._note(name, choices[0], lambda value: value in choices)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return self._note(name, round((low * high) ** 0.5 if log else (low + high) / 2), lambda v: low <= v <= high)

    def suggest_float(self, name: str, low: float, high: float) -> float:
        return self._note(name, (low + high) / 2, lambda value: low <= value <= high)

    def _note(self, name: str, middle: Any, could: Callable[[Any], bool]) -> Any:
        value = self._wanted.get(name, middle)
        self.inside &= could(value)
        self.drawn[name] = value if could(value) else middle
        return self.drawn[name]


def table_of(circuit: CircuitSpec) -> dict[str, Any]:
    """The ``[circuit]`` table as JSON-able values, every key written."""
    return json.loads(json.dumps(dataclasses.asdict(circuit)))


def circuit_of(table: dict[str, Any], where: str) -> CircuitSpec:
    """The circuit of :func:`table_of`; UserError naming ``where`` for a table of another version."""
    return config.parse(CircuitSpec, table, where)


def identity(spec: SearchSpec, circuit: CircuitSpec, held: HeldOut, seed: int) -> dict[str, Any]:
    """What two trials must share to be compared: what is chosen from, all that is not chosen, peaks, teacher, seed."""
    space = {key: value for key, value in dataclasses.asdict(spec).items() if key not in _FREE and value != ()}
    fixed = {key: value for key, value in table_of(circuit).items() if key not in _CHOSEN[""]}
    chosen = _CHOSEN | {"front_end": (*_CHOSEN["front_end"], *(name for name in OPTIONAL if name in space))}
    for part in ("front_end", "network"):
        fixed[part] = {key: value for key, value in fixed[part].items() if key not in chosen[part]}
    return {
        "version": VERSION, "measure": MEASURE, "seed": seed, "data": held.data, "teacher": held.teacher,
        "circuit": fixed, "search": json.loads(json.dumps(space)),
    }  # fmt: skip
