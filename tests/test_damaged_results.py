"""A damaged result of one stage is no business of the stages that do not read it."""

from pathlib import Path

import pytest

from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context

ROOT = Path(__file__).parents[1]


@pytest.fixture
def damaged(tmp_path: Path) -> Context:
    """A run whose HLS project cannot be read."""
    project = tmp_path / "runs/smoke/hls/io_parallel/project.json"
    project.parent.mkdir(parents=True)
    project.write_text('{"backend": "Vit')
    scenario = ROOT / "configs/smoke.toml"
    cfg = config.load(scenario, stages.tables())
    return Context(cfg, scenario, tmp_path / "runs/smoke", 1, lambda _: None)


@pytest.mark.parametrize("name", [name for name in stages.stages() if name not in ("report", "search", "pareto")])
def test_damaged_project_stops_no_stage_before_the_report(damaged: Context, name: str) -> None:
    assert stages._bound(stages.stages()[name], damaged).name == name


def test_report_is_bound_after_the_stages_that_repair_what_it_reads(
    damaged: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage is bound when the stages before it have run, not before the first one runs."""
    seen: list[str] = []

    def execute(run: Path, stage: stages.rundir.Stage, say: object) -> None:
        seen.append(stage.name)
        if stage.name == "hls":
            (run / "hls/io_parallel/project.json").unlink()

    monkeypatch.setattr("braggnn_edge.core.rundir.execute", execute)
    stages.bring_up_to_date("report", damaged)
    assert seen.index("hls") < seen.index("csim") < seen.index("report")


def test_report_alone_names_the_damaged_file(damaged: Context) -> None:
    with pytest.raises(UserError, match=r"project\.json: not an HLS project"):
        stages._bound(stages.stages()["report"], damaged)
