"""The committed circuits of the family: files that belong together, and figures that are theirs."""

import gzip
import json
from pathlib import Path

import pytest

from braggnn_edge.core import config
from braggnn_edge.core.stages import tables
from quant.contract import locator as locators
from quant.contract.lut_model import predicted_luts
from quant.shipped import path_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "circuits_family"
FIGURES = json.loads((ROOT / "benchmarks" / "circuits_family.json").read_text())["circuits"]
CONFIGS = {
    "shipped_7px": "universal_circuit", "small_7px": "universal_circuit_small", "wide_9px": "universal_circuit_wide",
}  # fmt: skip


def test_every_circuit_has_its_figures() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(FIGURES) == sorted(CONFIGS)
    assert locators.load(FOLDER / "shipped_7px.json").digest == locators.load(path_of("shipped_circuit")).digest


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_locator_verilog_figures_and_configuration_are_of_one_circuit(name: str) -> None:
    made, figures = locators.load(FOLDER / f"{name}.json"), FIGURES[name]
    assert (figures["digest"], figures["window_px"]) == (made.digest, made.window)
    assert figures["luts_by_model"] == round(predicted_luts(made))
    assert all(row["wrong"] == 0 for row in figures["exactness"].values())
    assert figures["interval_cycles"] == 1
    plain, packed = FOLDER / f"{name}.v", FOLDER / f"{name}.v.gz"
    verilog = plain.read_text() if plain.exists() else gzip.decompress(packed.read_bytes()).decode()
    assert verilog.count("\nmodule braggnn_rtl (") + verilog.startswith("module braggnn_rtl (") == 1
    assert f"input [{made.window**2 * made.normalizer.count_bits}-1:0] in_data" in verilog
    cfg = config.load(ROOT / "configs" / f"{CONFIGS[name]}.toml", tables())
    trained = made.provenance["training"]
    assert config.parse(type(cfg["circuit"]), trained, name) == cfg["circuit"]
    assert made.provenance["family"]["fwhm"] == list(cfg["family"].fwhm)
