"""Stage "csim": every form of the locator on the same patches, compared code for code, and the test set's positions.

Every form is compared with the integers (:mod:`firmware_sim.forms.form` has the list). Where the stage rtl wrote a
front end, that is simulated on its vectors. A single differing code or record fails the stage; what was found stays in
its ``.partial`` folder.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.positions import save_positions
from braggnn_edge.evaluation.sigma import Intervals
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.training import train
from firmware_sim.forms import csim, csim_circuit
from firmware_sim.forms.compare import Comparison
from firmware_sim.forms.form import Setting, answers
from firmware_sim.front_end.project import simulate
from firmware_sim.verification.inputs import inputs
from firmware_sim.verification.layers import layer_rows
from hls.project.stage import has_rtl
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.training.build import trained_outputs
from quant.training.stage import float_stages


def work(context: Context, directory: Path) -> None:
    """The stage: write ``results.json`` and ``predictions.npz`` (of the test peaks positions, and sigma if known)."""
    spec, run, say = context.cfg["csim"], context.run, context.say
    unrolled = context.cfg["qat"].is_circuit
    table = load_table(run / "label" / "peaks.h5")
    locator = locators.load(run / "qat" / "locator.json")
    given = inputs(table, locator, spec.patches, context.cfg.seed)
    say(f"  {len(given.codes)} patches, {given.test} of them test peaks, {given.corner_cases} corner cases")
    emulated = emulate.run(locator.network, given.codes)
    expected = locator.combined(given.codes, emulated.outputs)
    setting = Setting(
        locator, unrolled, given.counts, given.codes, trained_outputs(context), run, directory, spec.chunk,
        spec.software, spec.netlist, context.workers, say,
    )  # fmt: skip

    test_patches = table.of(TEST).patches()
    shown = {"train": ("full", "float"), "compact": ("compact", "float_compact")}
    predictions: dict[str, NDArray[np.float64]] = {}
    intervals: dict[str, Intervals] = {}
    for stage in float_stages(context.cfg):
        network, name = shown[stage]
        predictions[name] = train.predict(train.load_network(run / stage, network), test_patches)
    bit_exact: dict[str, dict[str, Any]] = {}
    compared: dict[str, Comparison] = {}
    hardware: dict[str, Any] = {}
    for answer in answers(setting):
        wrong = int((answer.outputs != expected[answer.rows]).any(axis=1).sum())
        record(bit_exact, answer.name, len(answer.rows), max(wrong, answer.wrong), say)
        for name, step in answer.steps.items():
            record(bit_exact, name, step.patches, step.wrong, say)
        if answer.comparison is not None:
            compared[answer.name] = answer.comparison
        if answer.shown:  # its first rows are the test peaks
            shown_codes = answer.outputs[: given.test]
            predictions[answer.shown] = locator.positions(shown_codes)
            if locator.calibration is not None:
                intervals[answer.shown] = Intervals(*locator.intervals(shown_codes))
        hardware |= answer.hardware or {}
    results = {
        "bit_exact": bit_exact,
        "layers": layer_rows(locator.network, emulated, compared),
        "hardware": [hardware] if hardware else [],
        "corner_cases": {"patches": given.corner_cases},
        "first_difference": {name: str(c.first) for name, c in compared.items() if c.first is not None},
    }
    project = run / "rtl" / "front_end"
    if has_rtl(context.cfg) and project.exists():
        results["front_end"] = asdict(simulate(project, directory / "build" / "front_end", say, _external(setting)))
    conclude(directory, results, predictions, intervals, compared)


def _external(setting: Setting) -> Callable[[Codes], Codes]:
    """What a locator outside of the front end answers: the compiled HLS project in io_stream."""

    def answer(patches: Codes) -> Codes:
        executable = csim.build(setting.run / "hls" / "io_stream", setting.scratch / "build" / "io_stream")
        return csim_circuit.steps(executable, setting.locator, patches).outputs

    return answer


def conclude(
    directory: Path,
    results: dict[str, Any],
    predictions: dict[str, NDArray[np.float64]],
    intervals: dict[str, Intervals],
    compared: dict[str, Comparison],
) -> None:
    """Write ``results.json`` and ``predictions.npz``; then refuse forms that differ, else remove what was compiled."""
    save_positions(predictions, intervals, directory / "predictions.npz")
    write_json(directory / "results.json", results)
    require_equal_forms(results["bit_exact"], compared)
    if results.get("front_end", {}).get("wrong"):
        raise UserError(f"the front end's records differ: {results['front_end']['first']}")
    for scratch in ("build", "bench", "chunks"):
        shutil.rmtree(directory / scratch, ignore_errors=True)


def require_equal_forms(bit_exact: dict[str, dict[str, Any]], compared: dict[str, Comparison]) -> None:
    """Raise UserError, with the first difference where one is known, if any form differs on any patch."""
    failed = [
        f"{name}: {entry['wrong']} of {entry['patches']} patches" for name, entry in bit_exact.items() if entry["wrong"]
    ]
    if failed:
        first = "; ".join(str(c.first) for c in compared.values() if c.first is not None)
        raise UserError(f"forms differ: {'; '.join(failed)}" + (f"; first at {first}" if first else ""))


def record(
    bit_exact: dict[str, dict[str, Any]], name: str, patches: int, wrong: int, say: Callable[[str], None]
) -> None:
    """Note, and say, how many of the patches differ from the integer form."""
    bit_exact[f"{name}/integer"] = {"patches": patches, "wrong": wrong}
    say(f"  {name}/integer: {wrong} wrong of {patches} patches")
