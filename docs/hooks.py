"""Links from the documentation to files outside docs/ (benchmarks, examples, configurations), for mkdocs.

On disk and in a repository's browser such a link is relative to the page. mkdocs knows only what lies in docs/, so
those files join the site under their path in the repository, and links to and from them are rewritten.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

#: Pages that lie outside docs/.
PAGES = (
    "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "benchmarks/ablation/ablation.md",
    "benchmarks/circuits_family/README.md",
)  # fmt: skip

_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/."""
    for name in PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page that leave docs/, or that lead from outside into it; the files join the site."""
    source = Path(str(page.file.abs_src_path))

    def rewritten(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match[2]))
        if not target.is_file() or not target.is_relative_to(ROOT):
            return match[0]  # mkdocs says what is wrong with it
        place = _place(target)
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(target)))
        return f"{match[1]}{os.path.relpath(place, Path(page.file.src_uri).parent)}{match[3] or ''}{match[4]}"

    return _LINK.sub(rewritten, markdown)


def _place(path: Path) -> str:
    """Where a file of the repository is in the site's sources."""
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
