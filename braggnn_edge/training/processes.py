"""Training by several processes that torchrun started: the first runs the command, the others help it train."""

from collections.abc import Callable

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.training import team, train


def run(command: str, context: Context, work: Callable[[], None]) -> None:
    """``work()`` in the first process; in the others, the gradients of the networks that it trains.

    The others wait as long as the first one prepares, and end with its exit status.
    """
    if command == "ablation":
        raise UserError("the ablation trains on one device; run it without torchrun")
    team.lead_or_follow(work, lambda name: train.assist(context, name), train.choose_device())
