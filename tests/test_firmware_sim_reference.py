"""Stage "reference" on a run made by hand: what is compared with what, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks import splits, table
from braggnn_edge.report.inference_section import reference_section
from braggnn_edge.training import train, upstream
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from firmware_sim.verification import reference
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize
from quant.contract.normalize import Normalizer

SIZE, COUNT = 9, 60


def integer_network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    wide = Format(24, 15, True)
    return IntegerNetwork(
        SIZE,
        Format(8, 8, signed=False),
        (
            Linear(
                "conv0",
                "conv2d",
                rng.integers(-128, 128, (2, 1, 3, 3)),
                Format(8, 7, True),
                np.zeros(2, np.int64),
                wide,
            ),
            Requantize("relu0", "relu", Format(8, 6, signed=False)),
            Flatten("flatten"),
            Linear(
                "dense0", "dense", rng.integers(-128, 128, (2, 98)), Format(8, 9, True), np.zeros(2, np.int64), wide
            ),
            Requantize("result", "identity", Format(16, 11, True)),
        ),
    )


def peak_table() -> table.PeakTable:
    """COUNT test peaks, and as many training peaks that must not be looked at; some without fit, some without truth."""
    rng = np.random.default_rng(1)
    rows = np.zeros(2 * COUNT, table.PEAK)
    rows["row"], rows["col"] = 50, 70
    rows["split"] = np.repeat([splits.TEST, splits.TRAIN], COUNT)
    for name in ("voigt", "truth"):
        rows[f"{name}_row"], rows[f"{name}_col"] = (
            50 + rng.normal(0, 0.3, 2 * COUNT),
            70 + rng.normal(0, 0.3, 2 * COUNT),
        )
    rows["voigt_converged"] = True
    rows["voigt_converged"][:5] = False
    rows["truth_row"][:7] = np.nan
    crops = rng.poisson(20, (2 * COUNT, SIZE + 2, SIZE + 2)).astype(np.uint16)
    crops[:, 5, 5] = 500
    return table.PeakTable(rows, crops, ("scan",), SIZE, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for stage in ("label", "train", "compact", "qat", "csim"):
        (folder / stage).mkdir()
    table.save(peak_table(), folder / "label/peaks.h5")
    torch.manual_seed(0)
    for stage, name, spec in (
        ("train", "full", NetworkSpec((6, 4), (8,))),
        ("compact", "compact", NetworkSpec((4, 2), (6,), False, 0.0)),
    ):
        upstream.save_checkpoint(BraggNN(spec, SIZE), folder / stage / f"{name}.pt")
        (folder / stage / f"{name}.json").write_text(json.dumps({"spec": train._describe(train.TrainSpec(spec))}))
    integer, normalizer = integer_network(), Normalizer()
    locators.save(locators.of_layers(integer, normalizer), folder / "qat/locator.json")
    patches = peak_table().of(splits.TEST).patches()
    offsets = integer.output.values(emulate.run(integer, normalizer.codes(patches)).outputs)
    np.savez(
        folder / "csim/predictions.npz",
        **{"csim:io_parallel": offsets, "csim:io_parallel/sigma": offsets, "float": offsets + 9},
    )
    return folder


def test_stage_compares_the_firmware_with_floats_labels_and_truth(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_TIMED", 64)  # the rates themselves are no matter here
    said: list[str] = []
    reference.run(run, ("train", "compact"), tmp_path, said.append)
    document = json.loads((tmp_path / "reference.json").read_text())
    assert document["patches"] == COUNT
    assert list(document["firmware"]) == ["csim:io_parallel"]
    against = document["firmware"]["csim:io_parallel"]
    assert {name: entry["n"] for name, entry in against.items()} == {
        "float": COUNT, "float_compact": COUNT, "voigt": COUNT - 5, "truth": COUNT - 7,
    }  # fmt: skip
    test = peak_table().of(splits.TEST)
    with np.load(run / "csim/predictions.npz") as file:
        firmware = file["csim:io_parallel"]
    distance = np.linalg.norm(
        firmware - train.predict(train.load_network(run / "train", "full"), test.patches()), axis=1
    )
    assert against["float"]["p95"] == pytest.approx(np.percentile(distance, 95), abs=1e-4)
    distance = np.linalg.norm(firmware - test.offsets("truth"), axis=1)[7:]
    assert against["truth"]["max"] == pytest.approx(distance.max())

    rows = {(r["network"], r["backend"], r["precision"]): r for r in document["backends"] if r["device"] == "CPU"}
    for name in ("full", "compact"):
        for backend in ("eager torch", "compiled", "torch", "onnxruntime"):
            assert rows[name, backend, "float32"]["error_px"]["max"] < 2e-5
        assert 1e-7 < rows[name, "torch", "bfloat16"]["error_px"]["max"] < 0.2
    integer = [row for (name, _, _), row in rows.items() if name == "integer"]
    assert [row["backend"] for row in integer][:2] == ["integer emulator", "compiled integers"]
    assert [row["error_px"]["max"] for row in integer] == [0, 0, 0, 0]
    assert [row["wrong"] for row in integer[1:]] == [0, 0, 0]
    assert rows["full", "eager torch", "float32"]["ratio_to_eager"] == 1.0
    assert {path.name for path in tmp_path.iterdir()} == {
        "reference.json", "reference.png", "qdq_cpu.onnx", "qdq_tensorrt.onnx",
    }  # fmt: skip
    if not torch.cuda.is_available():
        assert document["float_device"] == "CPU"
        assert any("no CUDA device" in entry["reason"] for entry in document["absent"])
    assert str(run) not in json.dumps(document)

    html = reference_section(document, tmp_path)
    plain = reference_section(document | {"gpu": "not measured"}, tmp_path)
    assert plain.count("<tr>") == 2 + len(against) + len(document["backends"])
    assert "data:image/png;base64," in html
    assert "Not measured here" in html
    assert "On a GPU: not measured" in html or isinstance(document["gpu"], dict)
    measured = reference_section(document | {"gpu": {"card 1": {"fits/s": "3,000,000"}}}, tmp_path)
    assert "<td>card 1</td><td>3,000,000</td>" in measured
    assert reference_section(None, tmp_path) == ""
    assert "<img" not in reference_section(document | {"absent": []}, tmp_path / "none")


def test_predictions_that_do_not_fit_are_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    with pytest.raises(UserError, match=r"cannot be read.*run `braggnn-edge csim`"):
        reference._predictions(path, COUNT)
    np.savez(path, **{"float": np.zeros((COUNT, 2))})
    with pytest.raises(UserError, match=f"no C simulation of all {COUNT} test peaks"):
        reference._predictions(path, COUNT)
    np.savez(path, **{"csim:io_stream": np.zeros((COUNT - 1, 2))})
    with pytest.raises(UserError, match="no C simulation of all"):
        reference._predictions(path, COUNT)


def test_a_run_without_test_peaks_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "label").mkdir()
    everything = peak_table()
    table.save(everything.of(splits.TRAIN), tmp_path / "label/peaks.h5")
    with pytest.raises(UserError, match="no test peaks"):
        reference.run(tmp_path, ("train", "compact"), tmp_path, lambda _: None)
