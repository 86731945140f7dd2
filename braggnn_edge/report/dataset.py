"""What a report says of its peaks: where they come from, how they were split and selected."""

from collections.abc import Mapping
from typing import Any

from braggnn_edge.peaks.splits import TEST, TRAIN, VALIDATION
from braggnn_edge.peaks.table import PeakTable


def dataset_entry(table: PeakTable, info: Mapping[str, Any]) -> dict[str, Any]:
    """``dataset`` of ``report.json``: sources, numbers of peaks, labels, patches; info: as the report is given it."""
    config = info.get("config", {})
    entry: dict[str, Any] = {"source": _source(table)}
    for name, split in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        entry[name] = int((table.peaks["split"] == split).sum())
    entry["split_by"] = info.get("split_by") or _split_by(config)
    shift = max((config[s]["shift"] for s in ("full", "compact", "qat") if "shift" in config.get(s, {})), default=0)
    train = table.of(TRAIN)
    truth = int(train.has("truth").sum())
    entry["labels"] = {"truth": truth, "voigt": int((train.has("best") & ~train.has("truth")).sum())}
    entry["patch"] = {"size": table.size, "centred_on": "brightest pixel", "training_shift": shift}
    entry["test_scans"] = _test_scans(table, config)
    return {key: value for key, value in entry.items() if value not in (None, [])}


def _source(table: PeakTable) -> str:
    known = table.has("truth")
    words = []
    for index, name in enumerate(table.scans):
        mine = table.peaks["scan"] == index
        words.append(f"{name} ({'simulated' if known[mine].any() else 'measured'})")
    return ", ".join(words)


def _split_by(config: Mapping[str, Any]) -> str | None:
    split = config.get("split")
    if not split:
        return None
    return (
        f"blocks of {split['block']} frames; {split['guard']} frame(s) on either side of a border are left "
        "out, since a reflection rocks through several; a scan used for one part alone is whole in it"
    )


def _test_scans(table: PeakTable, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the peaks of every test scan were selected."""
    peaks = table.of(TEST).peaks
    keys = ("name", "format", "threshold", "min_area", "max_residual", "unsaturated")
    described = []
    for index, name in enumerate(table.scans):
        count = int((peaks["scan"] == index).sum())
        scan = next((s for s in config.get("scan", []) if s.get("name") == name), {"name": name})
        if count:
            lone = {"lone": config["peaks"]["lone"]} if "lone" in config.get("peaks", {}) else {}
            described.append({key: scan[key] for key in keys if key in scan} | lone | {"peaks": count})
    return described
