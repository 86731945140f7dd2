"""The circuits of the family: Verilog, mapped cells, exactness of RTL and netlist, errors on scans they have not seen.

    BRAGGNN_EDGE_DATA=FOLDER python benchmarks/circuits_family.py RUNS [--work FOLDER] [--circuit NAME ...]

For each locator file in benchmarks/circuits_family: the RTL project in FOLDER, its Verilog sources in one file beside
the locator, the cells that Yosys maps it to, and the codes of RTL and netlist against the integers on patches of the
family. RUNS has the labelled scans of benchmarks/travels.py, which are labelled there where that is not done yet.
Writes benchmarks/circuits_family.json.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from travels import SETS, selected

from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation.metrics import PERCENTILES
from braggnn_edge.locate.evaluate import evaluate, named
from braggnn_edge.simulation.family import draw
from braggnn_edge.simulation.family_spec import FamilySpec
from firmware_sim.forms import rtlsim
from hls.rtl.project import load_rtl, write_rtl
from hls.rtl.synthesis import synthesize_project
from quant.contract import locator as locators
from quant.contract.locator import IntegerLocator
from quant.contract.lut_model import predicted_luts

FOLDER = Path(__file__).with_suffix("")
#: Patches, of a seed that no training has, on which RTL and netlist are compared with the integers.
RTL, NETLIST, SEED = 20_000, 500, 98
#: Adders or levels of tables a pipeline stage, and the clock that is asked for, MHz. Deeper stages have fewer registers
#: and share more logic: at 2 levels `small_7px` takes 4,112 look-up tables and `wide_9px` 26,255.
DEPTHS = {"shipped_7px": (2.0, 250.0), "small_7px": (6.0, 100.0), "wide_9px": (4.0, 150.0)}
#: A Verilog file that is longer is stored compressed.
LONGEST = 1_000_000
#: What a circuit may be behind the float network, px; and the sets that it is for (spots up to 3.5 px have no others).
AIM = {"p50": 0.01, "p75": 0.01, "p95": 0.02}
WIDE = ("thaumatin",)


def hardware(circuit: IntegerLocator, name: str, work: Path) -> dict[str, Any]:
    """Write, simulate and map the RTL project of a circuit; its Verilog goes beside the locator."""
    project, net = work / name, work / f"{name}_netlist"
    counts = draw(FamilySpec(), SEED, RTL).counts
    levels, clock = DEPTHS[name]
    if not project.exists():
        write_rtl(circuit, project, counts=counts[:100], logic_levels=levels, clock_mhz=clock, limit=200_000)
    made = load_rtl(project)
    text = "\n".join(path.read_text() for path in sorted((project / "src").glob("*.v")))
    if len(text) > LONGEST:
        (FOLDER / f"{name}.v.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        (FOLDER / f"{name}.v").write_text(text)
    mapped, files = synthesize_project(project, net)
    wrong = {}
    for form, netlist, number in (("rtl", None, RTL), ("netlist", files, NETLIST)):
        patches = circuit.counts(counts[:number])
        expected = circuit.run(circuit.inputs(patches))
        simulator = rtlsim.build(project, work / "build", netlist)
        for stalls in (True, False):
            found = rtlsim.run(simulator, patches, seed=1, stalls=stalls)
            key = f"{form}, {'stalls' if stalls else 'a patch every clock'}"
            wrong[key] = {"patches": number, "wrong": int((found.outputs != expected).any(axis=1).sum())}
            print(f"{name}: {key}: {wrong[key]}, {found.interval:.3f} clocks a patch", flush=True)
    return {
        "luts": mapped.luts, "luts_by_model": round(predicted_luts(circuit)), "flip_flops": mapped.flip_flops,
        "carry": mapped.carry, "dsps": mapped.dsps, "brams": mapped.brams, "logic_levels_a_stage": levels,
        "clock_mhz_asked_for": clock,
        "stages": made.stages, "latency_cycles": made.latency_cycles, "interval_cycles": made.interval_cycles,
        "exactness": wrong,
    }  # fmt: skip


def errors(runs: Path, names: list[str]) -> dict[str, Any]:
    """Of all sets: p50 to p99.5, px, of the float network, of the squared centroid and of each circuit."""
    found = {}
    networks = named(["universal", *(str(FOLDER / f"{name}.json") for name in names)])
    for title, about in SETS.items():
        document = evaluate(selected(runs, *about), networks)
        rows = dict(zip(networks, ("universal", *names), strict=True)) | {
            "centre_of_mass_squared": "centre_of_mass_squared"
        }
        found[title] = {"reference": document["reference"], "peaks": document["peaks"]} | {
            row: {key: document["errors_px"][name][key] for key in PERCENTILES} for name, row in rows.items()
        }
    return found


def judged(sets: dict[str, Any], name: str, narrow: bool) -> dict[str, Any]:
    """Loss against the float network, the aims that are missed, and where the centroid is better (p50, p75, p95)."""
    loss, missed, behind = {}, [], []
    for title, row in sets.items():
        if narrow and title in WIDE:
            continue
        loss[title] = {key: round(row[name][key] - row["universal"][key], 4) for key in AIM}
        missed += [f"{title} {key}" for key, most in AIM.items() if loss[title][key] > most]
        behind += [f"{title} {key}" for key in AIM if row[name][key] > row["centre_of_mass_squared"][key]]
    return {"loss_px": loss, "aim_px": AIM, "missed": missed, "behind_the_squared_centroid": behind}


def on_the_family(circuit: IntegerLocator) -> dict[str, float]:
    """Errors, px, on patches of the circuit's own family, of a seed of their own, and the share within one sigma."""
    given = circuit.provenance["family"]
    spec = FamilySpec(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
    held = draw(spec, 20_000_000, 40_960)
    offsets, sigma = circuit.locate_with_sigma(held.counts)
    error = offsets - held.offsets
    whole = np.hypot(*error.T)
    found = {"mean": float(whole.mean())} | {key: float(np.percentile(whole, q)) for key, q in PERCENTILES.items()}
    return {key: round(value, 5) for key, value in found.items()} | {
        "within_one_sigma": round(float((np.abs(error) <= sigma).mean()), 4)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/circuits_family"), help="folder of the RTL projects")
    parser.add_argument("--circuit", action="append", default=[], metavar="NAME", help="to map; default: all")
    parser.add_argument("--no-sets", action="store_true", help="map and compare only; leave the errors as they are")
    arguments = parser.parse_args()
    output = Path(__file__).with_suffix(".json")
    document: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {"circuits": {}}
    every = sorted(path.stem for path in FOLDER.glob("*.json"))
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.circuit or every:
        circuit = locators.load(FOLDER / f"{name}.json")
        document["circuits"][name] = {
            "digest": circuit.digest, "window_px": circuit.window, **hardware(circuit, name, arguments.work),
            "family_px": on_the_family(circuit),
        }  # fmt: skip
        write_json(output, document)
    if arguments.no_sets:
        return
    document["sets"] = errors(arguments.runs, every)
    for name in every:
        narrow = locators.load(FOLDER / f"{name}.json").provenance["family"]["fwhm"][1] < 9
        document["circuits"][name] |= judged(document["sets"], name, narrow)
    write_json(output, document)
    print(json.dumps(document["circuits"], indent=1))


if __name__ == "__main__":
    main()
