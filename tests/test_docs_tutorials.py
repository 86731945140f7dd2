"""The documentation: tutorials do what they say, links lead somewhere, and what pages name exists."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *ROOT.glob("docs/**/*.md")]
)

#: What pages name though no file has to be there: examples of a reader's own files, results of commands.
NOT_HERE = {"configs/mine.toml", "configs/NAME.toml", "configs/point_07.toml", "benchmarks/gpu.json"}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of these languages, in order."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def prose(page: Path) -> str:
    """A page without its fenced and indented blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(    .*\n)+", "", text)


def identify(page: object) -> str:
    return page.relative_to(ROOT).as_posix() if isinstance(page, Path) else str(page)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout, whose runs/ are its own and whose .venv is the environment of this test."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "examples", "Makefile", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "ready").touch()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"), [("scan_to_positions", 7), ("scan_to_grains", 8), ("network_to_firmware", 7)]
)
def test_tutorial_runs_from_top_to_bottom(checkout: Path, name: str, least: int) -> None:
    steps = blocks(ROOT / f"docs/tutorials/{name}.md", "sh", "python")
    assert len(steps) >= least
    # The environment is there already: make must neither create nor change it.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MAKEFLAGS": f"READY={checkout / 'ready'}"}
    for language, text in steps:
        shell = ["bash", "-euo", "pipefail", "-c", text]
        command = shell if language == "sh" else [".venv/bin/python", "-W", "error", "-c", text]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_readme_is_short_and_shows_a_picture() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
    assert any(line.startswith("![") for line in lines[:30])


@pytest.mark.parametrize("page", ["README.md", "docs/reference/stages.md"])
def test_the_way_to_grains_is_linked(page: str) -> None:
    linked = re.findall(r"\]\((?:docs/|\.\./)([^)]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert {"tutorials/scan_to_grains.md", "how_to/merge.md", "how_to/grains.md", "how_to/simulate_grains.md"} <= set(
        linked
    )


def test_scans_whose_grains_are_compared_with_the_truth_have_no_jitter() -> None:
    """It is in the true positions, too, which would then seem to be as far off as a network's."""
    pages = ("docs/tutorials/scan_to_grains.md", "docs/how_to/simulate_grains.md", "configs/grains.toml")
    for page in (*pages, "configs/grains_large.toml"):
        assert re.search(r"^jitter = 0\.0\b", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE), page


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)\s#:]*)(?:#([^)\s]+))?\)", prose(page)):
        file = page.parent / target if target else page
        assert file.is_file(), f"{target} is not there"
        if heading:
            titles = re.findall(r"^#+ (.+)$", prose(file), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{target} has no heading #{heading}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "side_by_side"], ids=identify)
def test_files_that_pages_name_exist(page: Path) -> None:
    # side_by_side.md names files of other projects.
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/.])(?:configs|benchmarks|examples)/[\w./*-]*\w", text):
        assert name in NOT_HERE or any(ROOT.glob(name)), f"{name} is not there"


def test_pages_that_sources_name_exist() -> None:
    folders = ("braggnn_edge", "quant", "hls", "firmware_sim", "configs", "benchmarks", "examples")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    named = {
        (path, page)
        for path in [*sources, ROOT / "CHANGELOG.md", ROOT / "pyproject.toml"]
        if path.suffix in (".py", ".cpp", ".h", ".toml", ".txt", ".md")
        for page in re.findall(r"docs/[\w/.-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    missing = [f"{identify(path)}: {page}" for path, page in sorted(named) if not (ROOT / page).is_file()]
    assert not missing


def test_targets_of_make_that_pages_name_exist(tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    code = "\n".join(
        text for page in PAGES for text in re.findall(r"`[^`\n]+`|^```.*?^```$", page.read_text(), flags=re.M | re.S)
    )
    targets = sorted(set(re.findall(r"\bmake ([a-z]+)\b", code)))
    assert {"demo", "qat", "docs"} < set(targets)
    command = ["make", "-n", f"READY={tmp_path / 'ready'}", *targets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_toml_in_pages_is_toml(page: Path) -> None:
    for _, text in blocks(page, "toml"):
        tomllib.loads(text)
