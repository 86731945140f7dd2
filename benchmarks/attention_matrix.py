"""The network with attention, form by form and code for code: io types, widths and parallelism.

    python benchmarks/attention_matrix.py --run 8=runs/full_w8 --run 6=runs/full_w6 --run 4=runs/full_w4 \\
        --measured runs/full_ruby --output benchmarks/attention_matrix.json

For each run (its qat stage finished): the quantized network in float64, QONNX as executed by qonnx, and the C
simulation of a project generated and compiled for every io type and parallelism, each against the integer emulator.
Patches: half simulated peaks, the test split first; half measured ones; and corner cases. On --traced of them, spread
over all three kinds, every code of every layer and of every step inside the block is compared, on the others the
result. Then one long run of simulated peaks alone: --long patches of --long-bits, io_stream.

Cells that are in the output and whose network, patches, kernel and options are the same are skipped; an interrupted one
continues from its last chunk (--work holds projects, programs and chunks). Seconds are those of one machine that may
do other work; CPU seconds are beside them. One differing code anywhere makes the exit status 1.
"""

import argparse
import hashlib
import itertools
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from attention_forms import SEED, Forms, load_forms, matrix_codes, simulated_patches, spread

from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.peaks import table
from braggnn_edge.peaks.splits import TEST
from firmware_sim.forms import csim
from firmware_sim.forms.chunks import Progress, map_chunks
from firmware_sim.forms.compare import Comparison, simulate
from hls.project.layered import write_project
from hls.project.spec import IO_TYPES
from quant.contract import emulate
from quant.contract.arithmetic import Codes
from quant.exchange.execute import run_qonnx
from quant.training.qnet import eval_exact

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "brevitas", "qonnx", "onnx", "onnxruntime", "hls4ml", "numpy")
#: Patches handed to one process at a time: what an interruption costs at most.
CHUNK = 100


class Ledger:
    """Wall and CPU seconds by kind of work, in a file, so that an interrupted cell goes on counting."""

    def __init__(self, path: Path) -> None:
        self.path, self.mark = path, self._now()
        self.spent: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}

    @staticmethod
    def _now() -> tuple[float, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.monotonic(), sum(u.ru_utime + u.ru_stime for u in used)

    def add(self, kind: str) -> None:
        """All time since the last call is of this kind."""
        now = self._now()
        before = self.spent.get(kind, [0.0, 0.0])
        self.spent[kind] = [round(old + new - mark, 2) for old, new, mark in zip(before, now, self.mark, strict=True)]
        self.mark = now
        write_json(self.path, self.spent)

    def document(self) -> dict[str, Any]:
        """``{kind: {"wall": s, "cpu": s}}``."""
        return {kind: dict(zip(("wall", "cpu"), seconds, strict=True)) for kind, seconds in self.spent.items()}


def evaluated(name: str, forms: Forms, codes: Codes, work: Path, progress: Progress | None = None) -> Codes:
    """Output codes (n, 2) of one form in software, in resumable chunks that all cells share."""
    evaluate: Callable[[Codes], Codes] = {
        "integer": lambda part: emulate.run(forms.integer, part).outputs,
        "quantized": lambda part: eval_exact(forms.quantized, part),
        "qonnx": lambda part: run_qonnx(forms.qonnx, part, batch=CHUNK),
    }[name]
    parts = map_chunks(
        lambda _, part: {"outputs": evaluate(part)}, codes, key=f"{name} {forms.digest}", chunk=5 * CHUNK, workers=1,
        out_dir=work.parent / "software", progress=progress,
    )  # fmt: skip
    return np.concatenate([part["outputs"] for part in parts])


def software_forms(forms: Forms, codes: Codes, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The quantized network and QONNX against the emulator."""
    work.mkdir(parents=True, exist_ok=True)
    ledger, found = Ledger(work / "spent.json"), {}
    for name in ("integer", "quantized", "qonnx"):

        def progress(done: int, total: int, name: str = name) -> None:
            ledger.add(name)
            say(f"{name}: {done} of {total} chunks, {ledger.spent[name][0]:.0f} s")

        found[name] = evaluated(name, forms, codes, work, progress)
    wrong = {name: int((found[name] != found["integer"]).any(axis=1).sum()) for name in ("quantized", "qonnx")}
    return {
        "wrong": {f"{name}/integer": count for name, count in wrong.items()},
        "distinct_outputs": len(np.unique(found["integer"], axis=0)),
        "seconds": ledger.document(),
    }


def hardware_form(
    forms: Forms, codes: Codes, io: str, keys_per_cycle: int, options: argparse.Namespace, work: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """One project generated, compiled and run; its codes against the emulator's."""
    work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(work / "spent.json")
    if not (work / "project").exists():
        write_project(
            forms.qonnx, forms.integer, forms.normalizer, work / "project",
            counts=forms.peaks.of(TEST).patches()[:20], io_type=io, keys_per_cycle=keys_per_cycle,
        )  # fmt: skip
    ledger.add("generate")
    executable = csim.build(work / "project", work / "build", optimization=f"-O{options.optimization}")
    ledger.add("compile")
    say(f"compiled ({ledger.spent['compile'][0]:.0f} s)")

    def progress(kind: str) -> Callable[[int, int], None]:
        def told(done: int, total: int) -> None:
            ledger.add(kind)
            if total and (done == total or done * 10 // total > (done - 1) * 10 // total):
                say(f"{kind}: {done} of {total} chunks, {ledger.spent[kind][0]:.0f} s")

        return told

    chosen = np.zeros(len(codes), bool)
    chosen[spread(len(codes), options.traced)] = True
    given: dict[str, Any] = {"workers": options.processes, "out_dir": work / "chunks"}
    _, layers = simulate(
        executable, forms.integer, codes[chosen], chunk=CHUNK // 2, progress=progress("every step"), **given
    )
    outputs = csim.run(executable, codes[~chosen], chunk=CHUNK, progress=progress("result"), **given)
    wrong = int((outputs != evaluated("integer", forms, codes, work)[~chosen]).any(axis=1).sum())
    return {
        "wrong": {"csim/integer": wrong + layers.wrong},
        "every_step": steps_document(layers),
        "ms_a_patch": {
            kind: dict(zip(("wall", "cpu"), (round(1e3 * s / n, 1) for s in ledger.spent[kind]), strict=True))
            for kind, n in (("every step", int(chosen.sum())), ("result", int((~chosen).sum())))
            if n
        },
        "seconds": ledger.document(),
    }


def steps_document(found: Comparison) -> dict[str, Any]:
    """What was compared at each layer and step, without names of places."""
    return {
        "patches": found.patches,
        "codes": sum(layer.elements for layer in found.layers),
        "wrong_codes": sum(layer.wrong for layer in found.layers),
        "overflows": sum(layer.overflows for layer in found.layers),
        "first_difference": str(found.first) if found.first else None,
        "compared": {layer.name: layer.elements for layer in found.layers},
        "differ": {layer.name: layer.wrong for layer in found.layers if layer.wrong},
    }


def commit() -> str | None:
    """Commit of the checkout, "+" when it has changes."""
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")


def versions() -> dict[str, str]:
    """Of Python, the packages and the compiler."""
    gcc = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
    return {"python": platform.python_version(), "g++": gcc} | {name: version(name) for name in PACKAGES}


class Matrix:
    """The output file: cells by identity, written after each."""

    def __init__(self, path: Path, options: argparse.Namespace) -> None:
        self.path, self.options = path, options
        self.document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"cells": []}
        self.document |= {"seed": SEED, "versions": versions(), "optimization": f"-O{options.optimization}"}

    def cell(self, head: dict[str, Any], identity: list[Any], work: Callable[[Path, Any], dict[str, Any]]) -> None:
        """Do ``work(directory, say)`` unless the output holds its result; ``head`` names the cell."""
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        name = " ".join(f"{key} {value}" for key, value in head.items() if not isinstance(value, dict))
        cells = self.document["cells"]
        if any(cell["identity"] == digest for cell in cells):
            print(f"{name}: done before", flush=True)
            return
        found = work(self.options.work / digest, lambda text: print(f"{name}: {text}", flush=True))
        made = head | {"identity": digest, "git_commit": commit()} | found
        # A cell of other patches or of another run makes way.
        same = ("bits", "set", "form", "io", "keys_per_cycle")
        self.document["cells"] = [cell for cell in cells if any(cell.get(k) != made.get(k) for k in same)] + [made]
        write_json(self.path, self.document)
        print(f"{name}: {found['wrong']} patches differ", flush=True)


def run(options: argparse.Namespace) -> int:
    """All cells, those of software before those that are compiled; the number of differing patches and codes."""
    matrix = Matrix(options.output, options)
    kernel = sha256(ROOT / "hls" / "templates" / "nnet_nonlocal.h")
    runs = {bits: load_forms(path) for bits, path in options.run}
    measured = table.load(options.measured / "label" / "peaks.h5" if options.measured.is_dir() else options.measured)
    sets = [
        (
            "matrix",
            bits,
            *matrix_codes(forms, measured, options.patches, options.corner_cases),
            options.keys_per_cycle,
            options.io,
        )
        for bits, forms in runs.items()
    ]
    if options.long and options.long_bits in runs:
        forms = runs[options.long_bits]
        codes = forms.normalizer.codes(simulated_patches(forms, options.long))
        sets.append(
            ("long", options.long_bits, codes, {"simulated": len(codes)}, [options.long_keys_per_cycle], ["io_stream"])
        )
    for name, bits, codes, kinds, rates, ios in sets:
        forms = runs[bits]
        head = {"bits": bits, "set": name, "run": forms.name, "patches": kinds}
        identity = [forms.digest, hashlib.sha256(codes.tobytes()).hexdigest()]
        matrix.cell(head | {"form": "software"}, identity, partial(software_forms, forms, codes))
        for keys_per_cycle, io in itertools.product(rates, ios):
            matrix.cell(
                head | {"form": "csim", "io": io, "keys_per_cycle": keys_per_cycle},
                [*identity, kernel, io, keys_per_cycle, options.traced, options.optimization],
                partial(hardware_form, forms, codes, io, keys_per_cycle, options),
            )
    cells = matrix.document["cells"]
    steps = sum(cell["every_step"]["wrong_codes"] for cell in cells if "every_step" in cell)
    wrong = sum(sum(cell["wrong"].values()) for cell in cells)
    print(f"{markdown(cells)}\n\n{len(cells)} cells: {wrong} patches and {steps} codes differ")
    return wrong + steps


def markdown(cells: list[dict[str, Any]]) -> str:
    """The table of docs/explanation/attention_accuracy.md."""
    lines = [
        "| bits | forms against the emulator | patches | differ | codes at every step | differ |",
        "|" + "---|" * 6,
    ]
    for cell in sorted(cells, key=lambda c: (c["set"] != "matrix", -c["bits"], c["form"] != "software")):
        form = "quantized, QONNX"
        if cell["form"] == "csim":
            form = f"csim {cell['io']}, keys per cycle {cell['keys_per_cycle']}"
        steps = cell.get("every_step", {"codes": "", "wrong_codes": ""})
        row = (cell["bits"], form, sum(cell["patches"].values()), sum(cell["wrong"].values()))
        lines.append("| " + " | ".join(map(str, (*row, steps["codes"], steps["wrong_codes"]))) + " |")
    return "\n".join(lines)


def _named(text: str) -> tuple[int, Path]:
    bits, _, path = text.partition("=")
    if not bits.isdecimal() or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not BITS=RUN_DIRECTORY")
    return int(bits), Path(path)


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=_named, action="append", required=True, metavar="BITS=DIRECTORY")
    parser.add_argument("--measured", type=Path, required=True, help="run directory or peaks.h5 with measured peaks")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "attention_matrix.json")
    parser.add_argument("--work", type=Path, required=True, help="folder for projects, programs and finished chunks")
    parser.add_argument("--patches", type=int, default=1000)
    parser.add_argument("--corner-cases", type=int, default=100)
    parser.add_argument("--traced", type=int, default=1100, help="patches of which every step is compared")
    parser.add_argument("--io", type=lambda text: text.split(","), default=list(IO_TYPES))
    parser.add_argument("--keys-per-cycle", type=_integers, default=[1, 8, 32])
    parser.add_argument("--long", type=int, default=20_000, help="patches of the long run; 0: none")
    parser.add_argument("--long-bits", type=int, default=8)
    parser.add_argument("--long-keys-per-cycle", type=int, default=8)
    parser.add_argument("--optimization", type=int, default=1, help="g++'s -O1; projects themselves say -O2")
    parser.add_argument("--processes", type=int, default=2)
    try:
        return 1 if run(parser.parse_args()) else 0
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
