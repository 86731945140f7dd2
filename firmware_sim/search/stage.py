"""Command "search" and stage "pareto": trials of circuits, and those that no other one beats."""

from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage, require_network, stages
from firmware_sim.search.spec import SearchSpec


def _check(context: Context) -> None:
    require_network(context, "search", "circuit", 'a search is for circuits: set network = "circuit"')
    if context.cfg["qat"].is_shipped:
        raise UserError(
            'search: the circuit that ships is not trained; set network = "circuit" in [qat], and source = "labels" or '
            '"family" in [circuit]'
        )
    stages()["qat"].check(context)


def _needs(cfg: Config) -> tuple[str, ...]:
    if _drawn(cfg):
        return ()
    return ("label", "train") if cfg["circuit"].teacher else ("label",)


def _drawn(cfg: Config) -> bool:
    return cfg["circuit"].source == "family"


SEARCH = Stage(
    name="search",
    help="trials of circuits in a storage that many processes and machines may share",
    writes="`search.db`, unless another storage is named",
    work="firmware_sim.search.trials:work",
    tables={"search": SearchSpec},
    needs=_needs,
    check=_check,
    folder=False,
)

PARETO = Stage(
    name="pareto",
    help="the Pareto front of a search: picture, configuration and circuit of every point",
    writes="`pareto.json`, `pareto.png`, the configuration and circuit of every point",
    work="firmware_sim.search.pareto:work",
    reads=lambda cfg: ("search", "circuit", "family") if _drawn(cfg) else ("search", "circuit"),
    needs=lambda cfg: () if _drawn(cfg) else ("label", "train"),
    files="firmware_sim.search.pareto:files",
    settings="firmware_sim.search.pareto:settings",
    check=_check,
)
