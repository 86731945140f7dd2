"""Training by several processes that torchrun started: the first runs the command, the others help it train."""

import os
from collections.abc import Callable

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.training import train
from braggnn_edge.training.optimize import process_group


def run(command: str, context: Context, work: Callable[[], None]) -> None:
    """``work()`` in the first process; in the others, the gradients of the networks that it trains."""
    if command == "ablation":
        raise UserError("the ablation trains on one device; run it without torchrun")
    with process_group(train.choose_device()):
        if int(os.environ.get("RANK", "0")):  # the first process alone keeps the run directory
            specs = {"full": "train", "compact": "compact"}
            named = {name: (stage, train.spec_of(context, name)) for name, stage in specs.items()}
            train.assist(context.run, named, context.cfg.seed)
            return
        work()
        train.dismiss()
