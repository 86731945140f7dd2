"""The chain: the stages of a configuration, what each needs, and what makes it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braggnn_edge.ablation import stage as ablation
from braggnn_edge.core import config
from braggnn_edge.core.rundir import Stage
from braggnn_edge.label import acquisition, split
from braggnn_edge.label import shard as label_part
from braggnn_edge.label import stage as label
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.report import stage as report
from braggnn_edge.training import train
from braggnn_edge.training.model import BraggNN
from firmware_sim.search import pareto
from firmware_sim.search import storage as search_storage
from firmware_sim.search import trials as search
from firmware_sim.search.space import SearchSpec
from firmware_sim.verification import circuit_evidence, evidence, reference
from hls.cost import hardware
from hls.project import build
from hls.rtl import stage as rtl_stage
from hls.rtl.synthesis import mapped_luts
from quant.contract import circuit as circuits
from quant.contract import network
from quant.training import compress, plan, qat
from quant.training.circuit_spec import CircuitSpec

SECTIONS: dict[str, Any] = {
    "scan": tuple[acquisition.ScanSpec, ...],
    "peaks": label_part.PeakSpec,
    "split": split.SplitSpec,
    "full": train.TrainSpec,
    "compact": train.TrainSpec,
    "quant": plan.BitPlan,
    "qat": qat.QatSpec,
    "circuit": CircuitSpec,
    "hls": build.HlsSpec,
    "rtl": rtl_stage.RtlSpec,
    "csim": evidence.CsimSpec,
    "rtlsim": circuit_evidence.RtlSimSpec,
    "search": SearchSpec,
    "report": report.ReportSpec,
    "ablation": ablation.AblationSpec,
}


@dataclass(frozen=True)
class Context:
    """What every stage gets: the configuration, the run directory, the number of processes, and a voice.

    scheduler: of the Dask cluster that labels; empty: processes of this machine; scenario: the configuration's file.
    """

    cfg: config.Config
    scenario: Path
    run: Path
    workers: int
    say: Callable[[str], None]
    scheduler: str = ""


def stage(name: str, c: Context) -> Stage:
    """One stage of the chain for this configuration."""
    cfg, run = c.cfg, c.run
    floats = float_stages(cfg)
    source = qat.FLOAT_NETWORKS.get(cfg["qat"].network, ("", ""))
    circuit = cfg["qat"].network == "circuit"
    files: dict[str, tuple[Path, ...]] = {
        "data": acquisition.external_files(cfg["scan"], cfg.folder),
        "label": acquisition.external_files(cfg["scan"], cfg.folder),  # it reads the measured frames again
        "train": _initial(cfg, "full"),
        "compact": _initial(cfg, "compact"),
        "report": hardware.vendor_files(run / "hls"),  # those of a synthesis after the simulation
    }
    needs: dict[str, tuple[str, ...]] = {
        "data": (),
        "label": ("data",),
        "train": ("label",),
        "compact": ("label",),
        "qat": ("label", *dict.fromkeys((source[0], "train"))) if cfg["qat"].teacher else ("label", source[0]),
        "circuit": ("label", "train") if cfg["circuit"].teacher else ("label",),
        "hls": ("label", "circuit" if circuit else "qat"),
        "rtl": ("label", "circuit"),
        "rtlsim": ("label", "train", "circuit", "hls", "rtl"),
        "pareto": ("label", "train"),
        "csim": ("label", *floats, "qat", "hls"),
        "reference": ("label", *floats, "qat", "csim"),
        "report": (
            ("data", "label", "train", "circuit", "hls", "rtl", "rtlsim")
            if circuit
            else ("data", "label", *floats, "qat", "hls", "csim", "reference")
        ),
        "ablation": ("label",),
    }
    sections: dict[str, tuple[str, ...]] = {
        "data": ("scan",),
        "label": ("scan", "peaks", "split"),
        "train": ("full",),
        "compact": ("compact",),
        "qat": ("quant", "qat"),
        "circuit": ("circuit",),
        "hls": ("hls",),
        "rtl": ("rtl",),
        "rtlsim": ("rtlsim",),
        "pareto": ("search", "circuit"),
        "csim": ("csim",),
        "reference": (),
        "report": ("report",),
        "ablation": ("ablation",),
    }
    work: dict[str, Callable[[Path], None]] = {
        "data": lambda out: acquisition.run(cfg["scan"], cfg.folder, cfg.seed, out, c.workers, c.say),
        "label": lambda out: label.run(
            cfg["scan"],
            cfg["peaks"],
            cfg["split"],
            cfg.seed,
            run / "data",
            cfg.folder,
            out,
            c.workers,
            c.say,
            c.scheduler,
        ),
        "train": lambda out: train.run(peaks_of(run), "full", float_spec(cfg, "full"), cfg.seed, out, c.say),
        "compact": lambda out: train.run(peaks_of(run), "compact", float_spec(cfg, "compact"), cfg.seed, out, c.say),
        "qat": lambda out: qat.run(
            peaks_of(run),
            cfg["qat"],
            cfg["quant"],
            train.load_network(run / source[0], source[1]),
            train.load_network(run / "train", "full") if cfg["qat"].teacher else None,
            cfg.seed,
            out,
            c.say,
        ),
        "circuit": lambda out: compress.run(
            peaks_of(run),
            cfg["circuit"],
            _teacher(c),
            cfg.seed,
            out,
            c.say,
        ),
        "hls": lambda out: (
            build.run_circuit(cfg["hls"], peaks_of(run), run / "circuit", out, c.say)
            if circuit
            else build.run(cfg["hls"], peaks_of(run), run / "qat", out, c.say)
        ),
        "rtl": lambda out: rtl_stage.run(cfg["rtl"], peaks_of(run), run / "circuit", out, c.say),
        "rtlsim": lambda out: circuit_evidence.run(cfg["rtlsim"], cfg["circuit"], run, cfg.seed, out, c.workers, c.say),
        "csim": lambda out: evidence.run(cfg["csim"], cfg["quant"], source, run, cfg.seed, out, c.workers, c.say),
        "reference": lambda out: reference.run(run, floats, out, c.say),
        "report": lambda out: report.run(
            cfg["report"],
            cfg,
            run,
            needs["report"],
            hardware.hardware_rows(run / "hls", _integer(run, circuit), c.say),
            out,
            c.say,
        ),
        "pareto": lambda out: _pareto(c, out),
        "ablation": lambda out: ablation.run(peaks_of(run), cfg["ablation"], cfg.seed, out, c.say),
    }
    settings = cfg.plain(sections[name])
    if name == "data":  # how peaks are found and used later is none of its business: no new simulation for a threshold
        settings["scan"] = [{key: scan[key] for key in acquisition.DATA_KEYS} for scan in settings["scan"]]
    if name == "pareto":
        settings["search"].pop("storage")  # where the trials are is no part of the result, and may hold a password
        settings["trials"] = pareto.fingerprint(cfg["search"], _storage(c))
    return Stage(name, needs[name], settings, files.get(name, ()), work[name])


def _teacher(c: Context) -> BraggNN | None:
    """The full float network, where the circuit learns from it."""
    return train.load_network(c.run / "train", "full") if c.cfg["circuit"].teacher else None


def _storage(c: Context) -> str:
    return search_storage.address(c.cfg["search"].storage, c.run, c.cfg.folder)


def _pareto(c: Context, out: Path) -> None:
    full = train.load_network(c.run / "train", "full")
    pareto.run(
        c.cfg["search"],
        c.cfg["circuit"],
        peaks_of(c.run),
        _teacher(c),
        full,
        c.cfg.seed,
        _storage(c),
        c.scenario,
        c.run.name,
        out,
        c.say,
        lambda circuit: mapped_luts(circuit)["luts"],
    )


def float_stages(cfg: config.Config) -> tuple[str, ...]:
    """The stages that train float networks: the compact one is not trained when another goes to the firmware."""
    return ("train", "compact") if cfg["qat"].network == "compact" else ("train",)


def _integer(run: Path, circuit: bool) -> network.IntegerNetwork:
    """The integer network that the HLS projects of a run are of."""
    if circuit:
        return circuits.load(run / "circuit" / "circuit.json").network
    return network.load(run / "qat" / "integer.json")


def _initial(cfg: config.Config, name: str) -> tuple[Path, ...]:
    text = cfg[name].initial
    return (config.resolve_path(text, cfg.folder),) if text else ()


def float_spec(cfg: config.Config, name: str) -> train.TrainSpec:
    """The table of a float network, its initial checkpoint a path that can be opened."""
    return dataclasses.replace(cfg[name], initial="".join(map(str, _initial(cfg, name))))


def peaks_of(run: Path) -> PeakTable:
    """The peak table of a run's label stage."""
    return load_table(run / "label" / "peaks.h5")


def search_circuits(c: Context) -> None:
    """Work on the search of this configuration (``firmware_sim.search.trials``), whose label stage is finished."""
    cfg = c.cfg
    search.run(cfg["search"], cfg["circuit"], peaks_of(c.run), _teacher(c), cfg.seed, _storage(c), c.say, c.workers)
