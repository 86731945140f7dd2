"""The forms in Python: the trained network in float64, and its QONNX file, executed by qonnx."""

from collections.abc import Iterator

import numpy as np

from firmware_sim.forms.form import Answer, Setting, spread
from quant.exchange.execute import run_qonnx


def quantized(setting: Setting) -> Iterator[Answer]:
    """The network as it was trained; normalizer and centroid around it are the integers'. None of what ships."""
    if setting.trained is None:
        setting.say("  quantized: not compared; what ships was, with its trained network, when it was made")
        return
    outputs = setting.locator.combined(setting.codes, setting.trained(setting.codes))
    yield Answer("quantized", np.arange(len(setting.codes)), outputs, shown="quantized")


def qonnx(setting: Setting) -> Iterator[Answer]:
    """``model.onnx`` of the qat stage, in float32."""
    rows = spread(len(setting.codes), setting.software)
    codes = setting.codes[rows]
    found = run_qonnx(setting.run / "qat" / "model.onnx", codes)
    yield Answer("qonnx", rows, setting.locator.combined(codes, found))
