"""The work of stage "report": the pages of :mod:`braggnn_edge.report`, with what is known of the hardware."""

from pathlib import Path

from braggnn_edge.core.stages import Context, stages
from braggnn_edge.report import build
from braggnn_edge.report.grains_section import results
from braggnn_edge.universal.locator import SHIPPED as UNIVERSAL
from hls.cost import hardware
from quant.contract import locator as locators


def work(context: Context, directory: Path) -> None:
    """The stage: write ``report.json``, ``report.html`` and pictures."""
    integer = locators.load(context.run / "qat" / "locator.json")
    rows = hardware.hardware_rows(context.run / "hls", integer, context.say)
    cfg = context.cfg
    build.run(cfg["report"], cfg, context.run, stages()["report"].needs(cfg), rows, directory, context.say)


def files(context: Context) -> tuple[Path, ...]:
    """The network that ships, and reports of the vendor's tools, those of a synthesis after the simulation too.

    Also what the stage "grains" found, where it has run on the peaks that are labelled now.
    """
    grains = results(context.run)
    found = () if grains is None else (grains / "grains.json",)
    return (UNIVERSAL, *found, *hardware.vendor_files(context.run / "hls"))
