"""Step (b): every network in every precision against the CPU's float64, in px; integers exactly."""

import sys
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor

from braggnn_edge.locate.device import DevicePipeline
from braggnn_edge.locate.fused import FusedNetwork
from braggnn_edge.universal.device import UniversalOnDevice
from braggnn_edge.universal.network import SHIPPED, load
from quant.contract import locator as locators
from quant.exchange.device import IntegersOnDevice
from quant.shipped import path_of

PRECISIONS = ("float32", "bfloat16", "float16")


def forms(name: str, device: torch.device) -> dict[str, Callable[[], Callable[[Tensor], Tensor]]]:
    """How a network can be computed, by form and precision; each is made when it is asked for."""

    def triton(precision: str) -> Callable[[Tensor], Tensor]:
        from braggnn_edge.locate.triton_network import TritonNetwork  # noqa: PLC0415  # may be missing

        return TritonNetwork(common.network(name), precision).to(device)

    if name == "universal":
        net, calibration, _ = load(SHIPPED)
        return {
            f"torch {p}": lambda p=p: UniversalOnDevice(net, calibration, p).to(device)
            for p in ("float16", "bfloat16", "float32")
        }
    found: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        f"triton {p}": lambda p=p: triton(p) for p in ("float16", "bfloat16")
    }
    for p in ("float16", "bfloat16", "float32"):
        found[f"torch {p}"] = lambda p=p: FusedNetwork(common.network(name), p).to(device)
    return found


@torch.inference_mode()
def reference(name: str, given: Tensor) -> np.ndarray:
    """Offsets (n, 2) px by the CPU in float64."""
    if name == "universal":
        net, _, _ = load(SHIPPED)
        return net.double().answer(given.to(torch.float64)).numpy()
    return FusedNetwork(common.network(name), "float64")(given).numpy()


def main() -> int:
    step = common.Step(__doc__)
    given = common.spots(step.pick(4096, 100), step.device)[0]
    host = given.cpu()
    for name in (*common.SPECS, "universal"):
        exact = reference(name, host)
        for form, make in forms(name, step.device).items():
            if form == "triton bfloat16" and not step.cuda:
                step.put(f"{name}: {form}", {"skipped": "Triton's interpreter has no bfloat16"})
                continue
            few = 3 if "triton" in form and not step.cuda else len(given)  # the interpreter is slow

            def one(make: Any = make, few: int = few, exact: np.ndarray = exact) -> dict[str, float]:
                with torch.inference_mode():
                    return common.errors(make()(given[:few]).float().cpu().numpy(), exact[:few])

            step.attempt(f"{name}: {form}", one)
    many = step.pick(200_000, 300)
    for name in ("shipped", "shipped_circuit"):
        step.attempt(f"integers: {name}", lambda name=name: integers(step, name, many))
    return 0


def integers(step: common.Step, name: str, many: int) -> dict[str, Any]:
    """Patches with a wrong code, of spots and of corner cases, and the rate from pinned host memory."""
    locator = locators.load(path_of(name))
    given = common.spots(many, step.device)[0].cpu().numpy()
    rng = np.random.default_rng(2)
    given[:50] = rng.integers(0, 65536, (50, common.SIZE, common.SIZE), dtype=np.uint16)
    for i, value in enumerate((0, 1, 7, 32767, 32768, 65535)):
        given[50 + i] = value
    module = IntegersOnDevice(locator).to(step.device)
    checked = given[: step.pick(20_000, 300)]
    found = module(torch.from_numpy(checked).to(step.device)).cpu().numpy()
    wrong = int((found != locator.run(locator.codes(checked))).any(axis=1).sum())
    source = step.pinned(given).numpy()

    def timed(size: int) -> dict[str, float]:
        pipeline = DevicePipeline(module.values, step.device, 6, step=size)
        return {**step.wall_ms(lambda: pipeline(source), rounds=3), "captured": pipeline.captured}

    time, size = common.halved(timed, step.pick(16_384, 128), 64)
    return {
        "patches_checked": len(checked), "wrong": wrong, "sums": sorted({str(kind) for kind in module.sums}),
        "patches_per_s": len(given) / (1e-3 * time["ms"]), "step": size, **time,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
