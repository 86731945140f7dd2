"""Stage "rtlsim": every form of a circuit on the same patches, compared code for code, and the test set's positions.

Forms: the trained network in float64, QONNX, the C simulation of every HLS project, the RTL cycle by cycle with random
gaps and back-pressure, and the mapped netlist, each against the integer circuit. One differing code fails the stage.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.table import TEST, PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.training import train
from firmware_sim.forms import csim, csim_circuit, rtlsim
from firmware_sim.forms.compare import Comparison
from firmware_sim.verification.evidence import conclude, layer_rows, progress, record, self_check
from hls.project.layered import load_project
from hls.rtl.project import load_rtl
from hls.rtl.synthesis import synthesize_project
from quant.contract import circuit as circuits
from quant.contract import emulate
from quant.contract.arithmetic import Codes, Format
from quant.contract.circuit import Circuit
from quant.contract.vectors import hostile_codes, random_codes
from quant.exchange.execute import run_qonnx
from quant.training.circuit_spec import CircuitSpec
from quant.training.compress import load_learned
from quant.training.mixed_precision_integers import exact_outputs


@dataclass(frozen=True)
class RtlSimSpec:
    """patches: compared in RTL and C simulation at least: test peaks first, then the other peaks of the scans, then
    random ones; hostile patches come on top. netlist: patches of those that the mapped netlist is simulated on, 0 for
    no netlist. software: patches for the trained network and QONNX, whose executor takes a millisecond each. chunk:
    patches of the C simulation at a time.
    """

    patches: int = 100_000
    netlist: int = 1000
    software: int = 5000
    chunk: int = 2000

    def __post_init__(self) -> None:
        if min(self.patches, self.software, self.chunk) < 1 or self.netlist < 0:
            raise UserError(
                f"rtlsim: patches {self.patches}, software {self.software} and chunk {self.chunk} must be at least 1, "
                f"netlist {self.netlist} at least 0"
            )


#: Patches of the C simulation on which every part and every layer is compared.
_EVERY_PART = 1000


def inputs(circuit: Circuit, table: PeakTable, least: int, seed: int) -> tuple[Codes, int, int]:
    """Counts (n, window, window) of the comparison; how many of the first are test peaks, of the last hostile ones."""
    rng = np.random.default_rng((seed, 6))
    test = table.peaks["split"] == TEST
    order = np.concatenate([np.flatnonzero(test), np.flatnonzero(~test)])[: max(least, int(test.sum()))]
    parts = [circuit.counts(table.patches()[order])]
    low, high = circuit.normalizer.count_range
    form = Format(high.bit_length() + (low < 0), 0, low < 0)
    missing = least - len(order)
    if missing > 0:
        parts.append(random_codes(circuit.window, form, missing, rng) >> rng.integers(0, 12, (missing, 1, 1)))
    parts.append(hostile_codes(circuit.window, form))
    return np.concatenate(parts), int(test.sum()), len(parts[-1])


def run(
    spec: RtlSimSpec,
    circuit_spec: CircuitSpec,
    run_directory: Path,
    seed: int,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """The stage: write ``results.json`` and ``predictions.npz`` (positions of the test peaks, offsets (n, 2) px)."""
    table = load_table(run_directory / "label" / "peaks.h5")
    circuit = circuits.load(run_directory / "circuit" / "circuit.json")
    net = load_learned(run_directory / "circuit", circuit_spec)
    counts, test, hostile = inputs(circuit, table, spec.patches, seed)
    codes = circuit.normalizer.codes(counts)
    expected = circuit.run(codes)
    say(f"  {len(counts)} patches, {test} of them test peaks, {hostile} hostile")
    bit_exact: dict[str, dict[str, Any]] = {}
    predictions = {
        "float": train.predict(train.load_network(run_directory / "train", "full"), table.of(TEST).patches())
    }
    predictions["quantized"] = circuit.output.values(circuit.combined(codes[:test], exact_outputs(net, codes[:test])))

    chosen = _spread(len(codes), spec.software)
    model = run_directory / "circuit" / "model.onnx"
    for name, rows, outputs in (
        ("quantized", np.arange(len(codes)), exact_outputs(net, codes)),
        ("qonnx", chosen, run_qonnx(model, codes[chosen])),
    ):
        wrong = (circuit.combined(codes[rows], outputs) != expected[rows]).any(axis=1)
        record(bit_exact, name, len(rows), int(wrong.sum()), say)

    compared: dict[str, Comparison] = {}
    for project in sorted(path.parent for path in (run_directory / "hls").glob("*/project.json")):
        name = f"csim:{load_project(project).io_type}"
        executable = csim.build(project, directory / "build" / project.name)
        self_check(project, directory / "bench" / project.name)
        say(f"  {name}: compiled; its own test bench passes")
        outputs = csim_circuit.run(
            executable, circuit, counts, workers=workers, chunk=spec.chunk,
            out_dir=directory / "chunks" / project.name, progress=progress(name, say),
        )  # fmt: skip
        _, compared[name] = csim_circuit.simulate(
            executable, circuit, counts[_spread(len(counts), _EVERY_PART)], workers=workers, chunk=spec.chunk,
            out_dir=directory / "chunks" / f"{project.name}-parts",
        )  # fmt: skip
        wrong = int((outputs != expected).any(axis=1).sum())
        record(bit_exact, name, len(outputs), max(wrong, compared[name].wrong), say)
        predictions[name] = circuit.output.values(outputs[:test])
    hardware, outputs = _rtl_forms(
        spec, circuit, counts, expected, run_directory / "rtl" / "verilog", directory, bit_exact, say
    )
    predictions["rtl"] = circuit.output.values(outputs[:test])
    results = {
        "bit_exact": bit_exact,
        "layers": layer_rows(circuit.network, emulate.run(circuit.network, codes), compared),
        "hardware": hardware,
        "hostile": {"patches": hostile},
        "first_difference": {name: str(c.first) for name, c in compared.items() if c.first is not None},
    }
    conclude(directory, results, predictions, compared)


def _rtl_forms(
    spec: RtlSimSpec,
    circuit: Circuit,
    counts: Codes,
    expected: Codes,
    project: Path,
    directory: Path,
    bit_exact: dict[str, dict[str, Any]],
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], Codes]:
    """Compare the RTL, with and without stalls, and its mapped netlist.

    Returns the report's rows on hardware, and what the RTL answered (n, 2) at a patch a clock.
    """
    described = load_rtl(project)
    if described.digest != circuit.digest:
        raise UserError(f"{project} is not of this circuit; run `braggnn-edge rtl`")
    simulator = rtlsim.build(project, directory / "build" / "rtl")
    say("  rtl: compiled")
    for name, stalls, seed in (("rtl:stalls", True, 1), ("rtl:every clock", False, 2)):
        found = rtlsim.run(simulator, counts, seed=seed, stalls=stalls)
        record(bit_exact, name, len(counts), int((found.outputs != expected).any(axis=1).sum()), say)
        say(
            f"  {name}: {found.cycles} clocks, latency {found.latency}, {found.interval:.3f} clocks a patch; patches "
            f"waited in {found.waited}, results in {found.stalled}"
        )
    outputs = found.outputs
    row: dict[str, Any] = {
        "form": "rtl", "project": "verilog", "part": "UltraScale+ cells", "io": "valid/ready, a patch a beat",
        "latency_cycles": found.latency, "interval_cycles": round(found.interval),
    }  # fmt: skip
    if spec.netlist:
        mapped, netlist = synthesize_project(project, directory / "build" / "netlist")
        say(f"  netlist: {mapped.luts} LUTs, {mapped.flip_flops} FF, {mapped.dsps} DSP, {mapped.brams} block RAM")
        some = _spread(len(counts), spec.netlist)
        found = rtlsim.run(rtlsim.build(project, directory / "build" / "rtl", netlist), counts[some], seed=3)
        record(bit_exact, "netlist", len(some), int((found.outputs != expected[some]).any(axis=1).sum()), say)
        row |= {
            "lut": mapped.luts, "ff": mapped.flip_flops, "dsp": mapped.dsps, "bram": mapped.brams,
            "source": "synthesis", "tool": "Yosys",
        }  # fmt: skip
    return [row], outputs


def _spread(count: int, wanted: int) -> Codes:
    """``wanted`` of ``count`` indices, or all, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
