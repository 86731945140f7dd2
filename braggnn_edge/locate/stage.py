"""Command "evaluate": networks on the peaks of a labelled scan."""

from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage, resolve

#: The name that stands for the network that ships.
SHIPPED = "universal"
#: The back end that stands for the fastest form of a network on this machine (:mod:`braggnn_edge.locate.choice`).
AUTO = "auto"


def _check(context: Context) -> None:
    """Refuse networks that are not there: now, not after labelling."""
    for name in context.options["network"] or ():
        resolve("braggnn_edge.locate.networks:network_file")(name)
    out = context.options["json"]
    if out and (out.suffix != ".json" or not out.parent.is_dir()):
        raise UserError(
            f"--json {out}: expected the name of a .json file in a folder that exists; a picture lies beside it"
        )
    largest = context.options["largest_sigma"]
    if largest is not None and not 0 < largest < float("inf"):
        raise UserError(f"--largest-sigma {largest}: expected a length in px, above 0")
    resolve("braggnn_edge.locate.evaluate:check")(context)


EVALUATE = Stage(
    name="evaluate",
    help="errors of any networks beside the trivial estimators, on the test peaks of a labelled scan",
    writes="beside the stages, `evaluate.json` and `evaluate.png`",
    work="braggnn_edge.locate.evaluate:work",
    needs=lambda cfg: ("label",),
    options={
        "--network": {
            "action": "append",
            "metavar": "FILE",
            "help": "universal_layers or universal_circuit (what ships, as integers), universal.npz, locator.json, "
            "full.pt, compact.pt, or an upstream checkpoint; may be repeated "
            "(default: the universal network that ships)",
        },
        "--largest-sigma": {
            "type": float,
            "metavar": "PX",
            "help": "peaks with a larger sigma of either axis are flagged, as not to be trusted (default: the one that "
            "a twentieth of the peaks exceed)",
        },
        "--json": {"type": Path, "metavar": "OUT", "help": "result (default: evaluate.json in the run's folder)"},
    },
    check=_check,
    folder=False,
)
