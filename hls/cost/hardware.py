"""The report's ``hardware``: for every project what counting says, and beside it what the vendor's tools left there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from braggnn_edge.core.errors import UserError
from hls.cost.locator import locator_cost
from hls.cost.network import network_cost
from hls.project.layered import Project, load_project
from hls.project.spec import ACCELERATOR
from hls.project.targets import target
from hls.tools.vendor_report import read_reports, report_files
from quant.contract.locator import IntegerLocator


def hardware_rows(directory: Path, locator: IntegerLocator, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows of the projects below ``directory``, the hls stage's: analytic ones first, project by project.

    A report that is left out, or a project that the model does not describe, is said and not reported.
    """
    counted, reported = [], []
    for path in _projects(directory):
        project = load_project(path)
        named = _named(directory, path, project)
        try:
            counted.append(named | analytic(project, locator))
        except UserError as error:
            say(f"  {named['project']}: no analytic figures: {error}")
            counted.append(named)
        rows, left_out = read_reports(path, project.top, project.part)
        reported += [named | row for row in rows]
        for reason in left_out:
            say(f"  {named['project']}: report left out: {reason}")
    return counted + reported


def vendor_files(directory: Path) -> tuple[Path, ...]:
    """Every vendor report that :func:`hardware_rows` looks at."""
    return tuple(path for found in _projects(directory) for path in report_files(found, load_project(found).top))


def analytic(project: Project, locator: IntegerLocator) -> dict[str, Any]:
    """By ``hls.cost.network``: ``dsp`` is the bound if every multiplier takes DSP slices, ``layers`` the bill."""
    if project.backend == ACCELERATOR:
        raise UserError("the cycles of the board flow's AXI wrapper are not counted")
    options: dict[str, Any] = {
        "io_type": project.io_type, "reuse": project.reuse, "keys_per_cycle": max(project.keys_per_cycle, 1),
        "strategy": project.strategy,
    }  # fmt: skip
    whole = bool(project.circuit)
    cost = locator_cost(locator, **options) if whole else network_cost(locator.network, **options)
    return {
        "source": "analytic",
        "counted": "from counts on" if whole else "the network alone, from codes on",
        "latency_cycles": cost.latency_cycles,
        "interval_cycles": cost.interval_cycles,
        "dsp": cost.dsps(project.part),
        "dsp_available": target(project.target).dsps,
        "memory_bits": cost.memory_bits,
        "keys_per_cycle": project.keys_per_cycle,
        "layers": [layer.row() for layer in cost.layers],
    }


def _projects(directory: Path) -> list[Path]:
    return sorted(path.parent for path in directory.rglob("project.json"))


def _named(directory: Path, path: Path, project: Project) -> dict[str, Any]:
    return {
        "form": "hls4ml", "project": path.relative_to(directory).as_posix(), "part": project.part,
        "io": project.io_type, "clock_mhz": project.clock_mhz,
    }  # fmt: skip
