"""Print the errors of committed reports as one Markdown table: python benchmarks/table.py benchmarks/*/report.json"""

import json
import sys
from pathlib import Path

SHOWN = (
    "constant", "centre_of_mass", "centre_of_mass_squared", "voigt", "cramer_rao_bound", "float", "float_compact",
    "quantized", "csim:io_parallel", "csim:io_stream",
)  # fmt: skip


def main() -> None:
    print("| run | reference | peaks | estimator | p50 | p75 | p95 |\n|---|---|---|---|---|---|---|")
    for path in map(Path, sys.argv[1:]):
        document = json.loads(path.read_text())
        for name in SHOWN:
            if name in document["errors_px"]:
                e = document["errors_px"][name]
                row = (path.parent.name, e["reference"], e["n"], name, *(f"{e[q]:.4f}" for q in ("p50", "p75", "p95")))
                print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
