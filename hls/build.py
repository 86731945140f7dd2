"""Stage "hls": one hardware project for each io type, from the QONNX file and the integer network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braggnn_edge.errors import UserError
from braggnn_edge.table import TEST, PeakTable
from hls.project import check_options, load_project, write_project
from hls.targets import DEFAULT_TARGET, target
from quant import network


@dataclass(frozen=True)
class HlsSpec:
    """The hardware project.

    io_types: of "io_parallel" and "io_stream"; backend: hls4ml's "Vitis" or "Vivado"; target: a board of hls.targets;
    clock_mhz: the clock to aim at; strategy: hls4ml's "Latency" (unrolled) or "Resource"; reuse: its reuse factor;
    vectors: test peaks whose counts become golden vectors of the test bench, beside the hostile ones; parallel: keys of
    a non-local block handled in a cycle.
    """

    io_types: tuple[str, ...] = ("io_parallel", "io_stream")
    backend: str = "Vitis"
    target: str = DEFAULT_TARGET
    clock_mhz: float = 200.0
    strategy: str = "Latency"
    reuse: int = 1
    vectors: int = 200
    parallel: int = 8

    def __post_init__(self) -> None:
        if not self.io_types or len(set(self.io_types)) != len(self.io_types):
            raise UserError(f"hls: io_types {self.io_types} must name each io type once")
        for io_type in self.io_types:
            check_options(self.backend, io_type, self.clock_mhz, self.strategy, self.reuse)
        target(self.target)
        if self.vectors < 1:
            raise UserError(f"hls: vectors {self.vectors} must be at least 1")
        if self.parallel < 1:
            raise UserError(f"hls: parallel {self.parallel} must be at least 1")


def run(spec: HlsSpec, table: PeakTable, qat: Path, directory: Path, say: Callable[[str], None]) -> None:
    """The stage: write ``<io type>/`` for each io type; finished projects of an interrupted run are kept.

    qat: directory of the qat stage. Golden vectors are spread over the test peaks.
    """
    integer, normalizer = network.load(qat / "integer.json"), network.load_normalizer(qat / "integer.json")
    patches = table.of(TEST).patches()
    chosen = np.unique(np.linspace(0, len(patches) - 1, min(spec.vectors, len(patches))).astype(int))
    for io_type in spec.io_types:
        project = directory / io_type
        if not project.exists():
            write_project(
                qat / "model.onnx", integer, normalizer, project,
                counts=patches[chosen], io_type=io_type, backend=spec.backend, target_name=spec.target,
                clock_mhz=spec.clock_mhz, strategy=spec.strategy, reuse=spec.reuse, parallel=spec.parallel,
            )  # fmt: skip
        say(f"  {io_type}: {len(load_project(project).layers)} layers, every type and weight read back")
