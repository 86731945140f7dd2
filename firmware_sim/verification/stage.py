"""Stages "csim", "reference" and "report": every form compared code for code, and what the positions are worth."""

from braggnn_edge.core.compiler import require_compiler
from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage
from braggnn_edge.report.spec import ReportSpec
from firmware_sim.verification.spec import CsimSpec
from hls.project.stage import has_rtl
from quant.training.stage import float_stages, network_table


def _check(context: Context) -> None:
    if not (context.run / "csim").exists():
        require_compiler()  # now, not after hours of training


def _needs(cfg: Config) -> tuple[str, ...]:
    return ("label", *float_stages(cfg), "qat", "hls", *(("rtl",) if has_rtl(cfg) else ()))


CSIM = Stage(
    name="csim",
    help="compare all forms code for code: quantized network, QONNX, C simulation; RTL and netlist of a circuit",
    writes="`predictions.npz`, `results.json`",
    work="firmware_sim.verification.verify:work",
    tables={"csim": CsimSpec},
    reads=lambda cfg: ("csim", *network_table(cfg)),
    needs=_needs,
    check=_check,
)


def _check_reference(context: Context) -> None:
    spec = context.cfg["qat"]
    if not spec.quantizes:
        raise UserError(
            f"reference: compares the scan's own float networks with their quantized form, and the firmware's network "
            f"is {spec.network!r} ([qat] network); use `make csim` and `make report`"
        )


REFERENCE = Stage(
    name="reference",
    help="firmware against float networks, labels and truth; every form of inference against float64",
    writes="`reference.json`, `reference.png`, `qdq_<target>.onnx`",
    work="firmware_sim.verification.reference:work",
    needs=lambda cfg: ("label", *float_stages(cfg), "qat", "csim"),
    check=_check_reference,
)


def _report_needs(cfg: Config) -> tuple[str, ...]:
    last = ("reference",) if cfg["qat"].quantizes else ()
    return ("data", *_needs(cfg), "csim", *last)


REPORT = Stage(
    name="report",
    help="report.json and report.html",
    writes="`report.json`, `report.html`, `report.png`; `positions.npz`: of all networks, with sigma",
    work="firmware_sim.verification.report:work",
    tables={"report": ReportSpec},
    needs=_report_needs,
    files="firmware_sim.verification.report:files",
)
