"""Keep runs of benchmarks/gpu.sh in benchmarks/gpu.json, one a card, and write their table into the page.

python benchmarks/gpu_table.py OUT/gpu.json ...     # a later run of a card replaces the earlier one
python benchmarks/gpu_table.py                      # the table alone
"""

import argparse
import json
import sys
from pathlib import Path

from braggnn_edge.core.rundir import write_json
from braggnn_edge.locate import gpu_figures

PAGE = Path(__file__).parent.parent / "docs/reference/inference.md"
BEGIN, END = "<!-- gpu: written by benchmarks/gpu_table.py -->\n", "<!-- end of gpu -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    kept = {gpu_figures.card(run): run for run in gpu_figures.runs()}
    for path in parser.parse_args().runs:
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["rehearsal"] or run["device"] != "cuda":
            parser.exit(2, f"{path} is a rehearsal: its figures mean nothing\n")
        kept[gpu_figures.card(run)] = run
    if kept:
        document = {"schema": gpu_figures.SCHEMA, "version": gpu_figures.VERSION, "runs": list(kept.values())}
        write_json(gpu_figures.PATH, document)
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{gpu_figures.table()}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
