"""The chain of stages: what is declared, in which order it runs, what is refused, and what a result depends on."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braggnn_edge import cli, listing
from braggnn_edge.core import config, rundir, stages
from braggnn_edge.core.config import Config
from braggnn_edge.core.stages import REGISTRY, Context, Stage, resolve

ROOT = Path(__file__).parents[1]
SCAN = '[[scan]]\nname = "scan"\n'
COMPACT = '[compact]\nnetwork = { attention = false, slope = 0.0 }\n[qat]\nnetwork = "compact"\n'
KINDS = {
    "shipped": "",
    "shipped circuit": '[qat]\nnetwork = "shipped_circuit"\n',
    "universal": '[qat]\nnetwork = "universal"\n',
    "circuit of the family": '[qat]\nnetwork = "circuit"\n[circuit]\nsource = "family"\nsigma = true\n',
    "compact": COMPACT,
    "full": '[qat]\nnetwork = "full"\n',
    "circuit": '[qat]\nnetwork = "circuit"\n',
    "compact, taught": COMPACT + "teacher = 0.2\n",
    "full, taught": '[qat]\nnetwork = "full"\nteacher = 0.2\n',
    "circuit, taught": '[qat]\nnetwork = "circuit"\n[circuit]\nteacher = 0.2\n',
}


@pytest.fixture
def context(tmp_path: Path) -> Callable[[str], Context]:
    """A function that makes the context of a kind of network."""

    def make(kind: str) -> Context:
        path = tmp_path / "scene.toml"
        path.write_text(SCAN + KINDS[kind])
        return Context(config.load(path, stages.tables()), path, tmp_path / "runs/scene", 1, print)

    return make


def test_every_entry_of_the_registry_is_a_stage_of_its_own() -> None:
    found = [resolve(name) for name in REGISTRY]
    assert all(isinstance(stage, Stage) for stage in found)
    assert len({stage.name for stage in found}) == len(REGISTRY) == len(stages.stages())
    assert list(stages.stages()) == [stage.name for stage in found]


def test_what_a_stage_names_can_be_called() -> None:
    for stage in stages.stages().values():
        assert callable(resolve(stage.work)), stage.name
        for name in (stage.files, stage.settings):
            assert not name or callable(resolve(name)), stage.name
        assert stage.help
        assert stage.writes


def test_every_table_is_declared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = [name for stage in stages.stages().values() for name in stage.tables]
    assert sorted(declared) == sorted(stages.tables())
    twice = Stage("twice", "a help", "nothing", "os:getcwd", tables={"hls": stages.tables()["hls"]})
    monkeypatch.setattr(stages, "stages", lambda: {"hls": stages.resolve("hls.project.stage:HLS"), "twice": twice})
    with pytest.raises(ValueError, match="table hls is declared by stage 'twice' and by one before it"):
        stages.tables.__wrapped__()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_needs_those_before_it_alone(kind: str, context: Callable[[str], Context]) -> None:
    cfg, before = context(kind).cfg, set[str]()
    for name, stage in stages.stages().items():
        assert set(stage.needs(cfg)) <= before, name
        assert set(stage.reads(cfg) if stage.reads else ()) <= set(stages.tables()), name
        assert set(stage.also(cfg)) <= set(stages.stages()), name
        before.add(name)


LAYERS = {
    "data": "data",
    "label": "data label",
    "train": "data label train",
    "tune": "data label tune",
    "grains": "data label grains",
    "search": "data label search",
    "pareto": "data label train pareto",
    "ablation": "data label ablation",
}
ORDERS = {
    "compact": LAYERS
    | {
        "train": "data label train compact",
        "qat": "data label compact qat",
        "hls": "data label compact qat hls",
        "csim": "data label train compact qat hls csim",
        "reference": "data label train compact qat hls csim reference",
        "report": "data label train compact qat hls csim reference report",
    },
    "full": LAYERS
    | {
        "qat": "data label train qat",
        "hls": "data label train qat hls",
        "csim": "data label train qat hls csim",
        "reference": "data label train qat hls csim reference",
        "report": "data label train qat hls csim reference report",
    },
    "circuit": LAYERS
    | {
        "qat": "data label qat",
        "hls": "data label qat hls",
        "rtl": "data label qat rtl",
        "csim": "data label train qat hls rtl csim",
        "report": "data label train qat hls rtl csim report",
    },
    "shipped": LAYERS
    | {
        "qat": "qat",
        "hls": "data label qat hls",
        "csim": "data label qat hls csim",
        "report": "data label qat hls csim report",
    },
    "shipped circuit": {"rtl": "data label qat rtl", "csim": "data label qat hls rtl csim"},
    "universal": {"qat": "universal qat", "hls": "data label universal qat hls"},
    "circuit of the family": {
        "qat": "qat",
        "csim": "data label qat hls rtl csim",
        "search": "search",
        "pareto": "pareto",
    },
    "compact, taught": {"qat": "data label compact train qat", "hls": "data label compact train qat hls"},
    "full, taught": {"qat": "data label train qat"},
    "circuit, taught": {"qat": "data label train qat", "search": "data label train search"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_order_in_which_the_stages_of_a_command_run(kind: str, context: Callable[[str], Context]) -> None:
    cfg = context(kind).cfg
    found = {name: " ".join(stage.name for stage in stages.asked_for(name, cfg)) for name in ORDERS[kind]}
    assert found == ORDERS[kind]


@pytest.mark.parametrize(
    ("command", "kind", "extra", "message"),
    [
        ("rtl", "compact", "", r"rtl: the network of this configuration is 'compact' .*use `make hls`"),
        ("rtl", "full", "", r"rtl: the network of this configuration is 'full'"),
        ("reference", "circuit", "", r"the firmware's network is 'circuit' .*use `make csim`"),
        ("search", "compact", "", r"search: the network of this configuration is 'compact' .*network = \"circuit\""),
        ("pareto", "compact", "", r"the network of this configuration is 'compact' .*network = \"circuit\""),
        ("reference", "shipped", "", r"the firmware's network is 'shipped' .*use `make csim`"),
        ("search", "shipped circuit", "", r"the circuit that ships is not trained"),
        ("rtl", "shipped", "", r"the network of this configuration is 'shipped' .*use `make hls`"),
        ("qat", "shipped", "[quant]\n", r"\[quant\] has no effect on the network that ships"),
        ("hls", "shipped circuit", "[peaks]\nsize = 9\n", "is for patches of 11 px, those of this scan have 9 px"),
        ("train", "compact", "[full]\nshift = 2\n", "full: shift 2 is out of range; expected 0 to 1 px"),
        ("train", "full", "[full]\nshift = 2\n", "full: shift 2 is out of range"),
        ("report", "full", "[full]\nshift = 2\n", "full: shift 2 is out of range"),
        ("csim", "circuit", "[circuit]\nshift = 2\n", "circuit: shift 2 is out of range; expected 0 to 1 px"),
        ("search", "circuit", "[circuit]\nshift = 2\n", "circuit: shift 2 is out of range"),
        ("grains", "shipped", "", "grains: instrument is not known; give it in \\[grains\\]"),
        ("grains", "shipped", '[grains]\nscans = ["other"]\n', "there is no scan 'other'; expected one of scan"),
        ("hls", "compact", '[hls]\nstrategy = "Resource"\nreuse = 7\n', "factor 7 does not cut its 9 x"),
        ("csim", "full", "[hls]\nreuse = 100_000\n", "reuse factor 100000 is more than its 576 products"),
        ("hls", "circuit", "[hls]\nreuse = 100_000\n", "reuse factor 100000 is more than its"),
        ("hls", "shipped", '[hls]\nstrategy = "Resource"\nreuse = 7\n', "factor 7 does not cut its 137 x 512"),
        ("hls", "compact", '[[hls.boards]]\ntarget = "u250"\nreuse = 100_000\n', "more than its"),
        ("report", "shipped", '[[hls.boards]]\ntarget = "u250"\n', "hls.boards: not offered for locators with a"),
        ("hls", "circuit", '[[hls.boards]]\ntarget = "u250"\n', "hls.boards: not offered for locators with a"),
        (
            "hls",
            "compact",
            "[rtl.front_end]\npixels = 4\n",
            r"layers do not fit inside .* is 'compact' .*external = true",
        ),
        (
            "rtl",
            "shipped",
            "[rtl.front_end]\npixels = 4\n",
            r"layers do not fit inside .* is 'shipped' .*external = true",
        ),
        (
            "csim",
            "shipped",
            '[hls]\nio_types = ["io_parallel"]\n[rtl.front_end]\npixels = 4\nexternal = true\n',
            'add "io_stream" to io_types in \\[hls\\]',
        ),
        (
            "rtl",
            "compact",
            "[peaks]\nsize = 13\n[rtl.front_end]\npixels = 4\nexternal = true\n",
            "window of 13 px cannot",
        ),
        ("rtl", "circuit", "[circuit.front_end]\nwindow = 5\n[rtl.front_end]\npixels = 4\n", "window of 5 px cannot"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    command: str, kind: str, extra: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scene.toml").write_text(SCAN + KINDS[kind] + extra)
    arguments = [command, "--config", str(tmp_path / "scene.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err)
    assert not (tmp_path / "runs").exists()
    assert captured.out == ""


#: For each table another valid value of one key.
CHANGES: dict[str, dict[str, Any]] = {
    "peaks": {"shift": 2},
    "split": {"test": 0.15},
    "full": {"huber": 0.1},
    "compact": {"huber": 0.1},
    "family": {"neighbours": 0.5},
    "universal": {"beta": 0.25},
    "tune": {"beta": 0.25},
    "grains": {"sample": 0.25},
    "quant": {"weight_bits": 7},
    "qat": {"huber": 0.1},
    "circuit": {"sparsity": 0.25},
    "universal_layers": {"beta": 0.25},
    "hls": {"vectors": 7},
    "rtl": {"vectors": 7},
    "csim": {"chunk": 7},
    "report": {"notes": ("a note",)},
    "search": {"trials": 7},
    "ablation": {"seeds": (4, 5, 6)},
}

#: Tables that the result of a stage depends on, beside those of the stages it needs.
DEPENDS = {
    "data": {"scan"},
    "label": {"scan", "peaks", "split"},
    "train": {"full"},
    "compact": {"compact"},
    "universal": {"family", "universal"},
    "tune": {"family", "tune"},
    "grains": {"grains"},
    "qat": {"quant", "qat"},
    "hls": {"hls"},
    "csim": {"csim", "quant"},
    "reference": set(),
    "report": {"report"},
    "ablation": {"ablation"},
}
CIRCUIT_DEPENDS = {
    "data": {"scan"},
    "label": {"scan", "peaks", "split"},
    "train": {"full"},
    "qat": {"circuit"},
    "hls": {"hls"},
    "rtl": {"rtl"},
    "csim": {"csim", "circuit"},
    "report": {"report"},
    "pareto": {"search", "circuit"},
}


def changed(cfg: Config, table: str, **values: Any) -> Config:
    """The configuration with other values in one table."""
    old = cfg[table]
    new = (dataclasses.replace(old[0], **values),) if table == "scan" else dataclasses.replace(old, **values)
    return dataclasses.replace(cfg, sections={**cfg.sections, table: new})


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Callable[[Context], dict[str, Any]]:
    """A function that says what each stage with a folder is told that its result depends on."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(rundir, "execute", lambda run, stage, say: found.update({stage.name: dict(stage.settings)}))
    monkeypatch.setattr("firmware_sim.search.pareto.fingerprint", lambda spec, where: "trials")

    def of(context: Context) -> dict[str, Any]:
        found.clear()
        for name, stage in stages.stages().items():
            if stage.folder:
                stages.bring_up_to_date(name, context)
        return dict(found)

    return of


NEAR = {name: DEPENDS[name] for name in ("data", "label", "hls", "report")}
SHIPPED_DEPENDS = NEAR | {"qat": {"qat"}, "csim": {"csim"}}
UNIVERSAL_DEPENDS = NEAR | {
    "universal": {"family", "universal"},
    "qat": {"universal_layers", "family"},
    "csim": {"csim", "universal_layers"},
}
FAMILY_DEPENDS = NEAR | {
    "qat": {"circuit", "family"},
    "csim": {"csim", "circuit"},
    "pareto": {"search", "circuit", "family"},
}


@pytest.mark.parametrize(
    ("kind", "depends"),
    [
        ("compact", DEPENDS),
        ("circuit", CIRCUIT_DEPENDS),
        ("shipped", SHIPPED_DEPENDS),
        ("universal", UNIVERSAL_DEPENDS),
        ("circuit of the family", FAMILY_DEPENDS),
    ],
)
def test_a_result_depends_on_the_tables_it_reads_and_on_no_other(
    kind: str,
    depends: dict[str, set[str]],
    context: Callable[[str], Context],
    settings: Callable[[Context], dict[str, Any]],
) -> None:
    given = context(kind)
    before = settings(given)
    assert set(CHANGES) | {"scan"} == set(stages.tables())
    for table, values in {**CHANGES, "scan": {"name": "other"}}.items():
        after = settings(dataclasses.replace(given, cfg=changed(given.cfg, table, **values)))
        differing = {name for name in depends if after[name] != before[name]}
        assert differing == {name for name, tables in depends.items() if table in tables}, table
    other = settings(dataclasses.replace(given, cfg=dataclasses.replace(given.cfg, seed=2)))
    assert all(other[name] != before[name] for name in depends)


def test_frames_do_not_depend_on_how_peaks_are_found(
    context: Callable[[str], Context], settings: Callable[[Context], dict[str, Any]]
) -> None:
    given = context("compact")
    before, after = settings(given), settings(dataclasses.replace(given, cfg=changed(given.cfg, "scan", threshold=7.0)))
    assert before["data"] == after["data"]
    assert before["label"] != after["label"]


def test_where_trials_are_kept_is_no_part_of_the_front(
    context: Callable[[str], Context], settings: Callable[[Context], dict[str, Any]]
) -> None:
    given = context("circuit")
    secret = changed(given.cfg, "search", storage="postgresql://me:secret@host/db")
    found = settings(dataclasses.replace(given, cfg=secret))["pareto"]
    assert found == settings(given)["pareto"]
    assert found["trials"] == "trials"
    assert "secret" not in str(found)


@pytest.mark.parametrize("name", listing.LISTS)
def test_lists_of_stages_are_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert listing.written(name, text) == text, f"{name} is out of date; run `python -m braggnn_edge.listing`"
    if name.endswith(("configuration.md", "numerics.md", "detector_link.md")):  # they name no stages
        return
    found = dict(stages.stages())
    found["hls"] = dataclasses.replace(found["hls"], help="another help")
    monkeypatch.setattr(listing, "stages", lambda: found)
    assert "another help" in listing.written(name, text)


def test_renamed_commands_and_tables_name_the_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for old, new in {"circuit": "qat", "rtlsim": "csim"}.items():
        assert cli.main([old, "--config", str(tmp_path / "none.toml")]) == 2
        assert capsys.readouterr().err == (
            f"braggnn-edge: error: {old} is now part of {new}; use `braggnn-edge {new}`\n"
        )
        assert old not in stages.stages()
        assert new in stages.stages()
    (tmp_path / "old.toml").write_text(SCAN + "[rtlsim]\npatches = 5\n")
    assert cli.main(["data", "--config", str(tmp_path / "old.toml"), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert error.endswith("old.toml: table [rtlsim] is now part of [csim]; move its keys there\n")
    assert not (tmp_path / "runs").exists()
    assert not stages.RENAMED_TABLES.keys() & stages.tables().keys()
    assert set(stages.RENAMED_TABLES.values()) <= stages.tables().keys()
