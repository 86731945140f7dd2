"""Golden vectors, and the C++ test bench, normalizer and centroid that come with a project."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.contract.arithmetic import Codes, Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.emulate import run
from quant.contract.locator import IntegerLocator, network_inputs
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.vectors import corner_case_codes

_TEMPLATES = Path(__file__).parents[1] / "templates"

#: Feeding one patch to the top function: for each io type, for hls4ml's AXI stream around either, for a whole locator.
_CALLS = {
    "io_parallel": """\
    input_t input[INPUTS];
    result_t result[OUTPUTS];
    for (int i = 0; i < INPUTS; i++)
        set_code(input[i], codes[i]);
    @NAME@(input, result);
    for (int k = 0; k < OUTPUTS; k++)
        outputs[k] = code_of(result[k]);""",
    "io_stream": """\
    hls::stream<input_t> input("input");
    hls::stream<result_t> result("result");
    for (int i = 0; i < INPUTS; i++) {
        input_t pixel;
        set_code(pixel[0], codes[i]);
        input.write(pixel);
    }
    @NAME@(input, result);
    const result_t last = result.read();
    for (int k = 0; k < OUTPUTS; k++)
        outputs[k] = code_of(last[k]);""",
    "axi": """\
    input_axi_t input[INPUTS];
    output_axi_t result[OUTPUTS];
    for (int i = 0; i < INPUTS; i++) {
        input[i].data = std::ldexp((float)codes[i], -@INPUT_FRAC@);
        input[i].last = i == INPUTS - 1;
    }
    @NAME@_axi(input, result);
    for (int k = 0; k < OUTPUTS; k++) {
        outputs[k] = (long long)std::ldexp(result[k].data, @OUTPUT_FRAC@);
        if ((result[k].last == 1) != (k == OUTPUTS - 1)) {
            std::cerr << "ERROR: TLAST of output " << k << " is " << result[k].last << std::endl;
            std::exit(2);
        }
    }""",
    "locator": """\
    normalize::count_t counts[INPUTS];
    locator::output_t output[OUTPUTS];
    for (int i = 0; i < INPUTS; i++)
        counts[i] = codes[i];
    @NAME@(counts, output);
    for (int k = 0; k < OUTPUTS; k++)
        outputs[k] = code_of(output[k]);""",
    "locator_stream": """\
    // A patch of some counts; TUSER must say whether they are as many as they should be.
    const auto pass = [&](int beats) {
        hls::stream<locator::count_beat_t> counts("counts");
        hls::stream<locator::output_beat_t> output("outputs");
        for (int i = 0; i < beats; i++) {
            locator::count_beat_t beat;
            beat.data = codes[i % INPUTS];
            beat.keep = beat.strb = -1;
            beat.user = beat.id = beat.dest = 0;
            beat.last = i == beats - 1;
            counts.write(beat);
        }
        @NAME@(counts, output);
        const locator::output_beat_t beat = output.read();
        if (beat.last != 1 || beat.user != (beats != INPUTS) || !counts.empty() || !output.empty()) {
            std::cerr << "ERROR: a patch of " << beats << " counts: TLAST " << beat.last << ", TUSER " << beat.user
                      << ", counts or outputs left over: " << (!counts.empty() || !output.empty()) << std::endl;
            std::exit(2);
        }
        return beat;
    };
    static bool first = true;
    if (first) { // one that ends early and one that is too long; those behind them are as they should be
        pass(1);
        pass(INPUTS - 1);
        pass(INPUTS + 2);
        first = false;
    }
    const locator::output_beat_t answer = pass(INPUTS);
    for (int k = 0; k < OUTPUTS; k++) {
        const ap_int<locator::OUTPUT_PORT> code = answer.data.range(
            locator::OUTPUT_PORT * (k + 1) - 1, locator::OUTPUT_PORT * k);
        outputs[k] = code.to_int64();
    }""",
}


@dataclass(frozen=True)
class Golden:
    """Golden vectors: ``counts`` to ``count_codes``, both (n, size, size), and ``codes`` (m, size, size) to
    ``outputs`` (m, 2). The codes made from the counts are the first of ``codes``. A whole locator's ``codes`` are
    counts.
    """

    counts: Codes
    count_codes: Codes
    codes: Codes
    outputs: Codes


def golden(
    network: IntegerNetwork, normalizer: Normalizer | BlockShift, counts: NDArray[np.generic],
    codes: NDArray[np.integer],
) -> Golden:  # fmt: skip
    """Vectors from detector values (n, size, size) and further input codes (k, size, size), by the emulator."""
    whole, _ = normalizer.counts(counts)
    count_codes = normalizer.codes(counts)
    inputs = network_inputs(network, normalizer, counts)
    both = np.concatenate([inputs, np.asarray(codes, np.int64).reshape(-1, *network.shape)])
    return Golden(whole, count_codes, both, run(network, both).outputs)


def golden_counts(locator: IntegerLocator, patches: NDArray[np.generic]) -> Codes:
    """Counts (n, window, window): those of patches (k, size, size), then corner cases up to the ends of the range, and
    one bright pixel of every power of two, so that every shift of a normalizer occurs.
    """
    low, high = locator.normalizer.count_range
    signed = low < 0
    form = Format(high.bit_length() + signed, 0, signed)
    single = np.zeros((high.bit_length(), locator.window**2), np.int64)
    single[:, locator.window**2 // 2] = 1 << np.arange(high.bit_length())
    powers = single.reshape(-1, locator.window, locator.window)
    return np.concatenate([locator.counts(patches), corner_case_codes(locator.window, form), powers])


def sigma_text(locator: IntegerLocator) -> str:
    """How the outputs become sigma and the 95 % interval, for a README.txt."""
    return (
        f"\n              sigma in pixels is exp(interp(code / 2**{locator.output.frac}, log_b, sigma)), with the "
        "calibration\n              in locator.json: natural logarithms, linear between its nodes and constant beyond."
        "\n              The half-width of the 95 % interval is the same with wide in place of sigma"
    )


def render(template: str, values: dict[str, Any]) -> str:
    """The text of a template with every ``@NAME@`` replaced; values may hold placeholders themselves."""
    text = (_TEMPLATES / template).read_text()
    for _ in range(2):
        for key, value in values.items():
            text = text.replace(f"@{key}@", str(value))
    return text


def normalizer_headers(normalizer: Normalizer | BlockShift, size: int) -> dict[str, str]:
    """The normalizer as C++: ``normalize.h`` and the table of one that has one."""
    values: dict[str, int | str] = {"N": size * size, "BITS": normalizer.bits, "COUNT_BITS": normalizer.count_bits}
    tree = {"firmware/tree.h": render("tree.h", {})}
    if isinstance(normalizer, BlockShift):
        values["SUBTRACT"] = "true" if normalizer.subtract else "false"
        return {"firmware/normalize.h": render("block_shift.h", values), **tree}
    values |= {
        "TABLE_BITS": normalizer.table_bits, "MANTISSA_BITS": normalizer.mantissa_bits, "SHIFT": normalizer.shift,
    }  # fmt: skip
    table = "// floor(2**(TABLE_BITS + MANTISSA_BITS) / (2**TABLE_BITS + i + 1)), included by normalize.h\n" + _table(
        "mantissa_t TABLE[1 << TABLE_BITS]", normalizer.table
    )
    return {"firmware/normalize.h": render("normalize.h", values), "firmware/normalize_table.h": table, **tree}


def centroid_headers(base: Centroid) -> dict[str, str]:
    """The centroid as C++: ``centroid.h`` and its two tables."""
    values = {
        "WINDOW": base.window, "BITS": base.bits, "WEIGHT_BITS": max(base.weights).bit_length(),
        "SUM_BITS": base.sum_bits, "REACH_BITS": base.reach_bits, "INDEX_BITS": base.index_bits,
        "RECIPROCAL_BITS": base.reciprocal_bits, "NUMERATOR_BITS": base.numerator_bits, "FRAC": base.frac,
        "LIFT": max(-base.numerator_shift, 0), "DROP": max(base.numerator_shift, 0), "SHIFT": base.result_shift,
    }  # fmt: skip
    tables = (
        "// The weight of each code, included by centroid.h\n"
        + _table("weight_t WEIGHTS[1 << BITS]", base.weights)
        + "\n// 2**(RECIPROCAL_BITS + INDEX_BITS) / (2**INDEX_BITS + i + 1/2), rounded\n"
        + _table("reciprocal_t RECIPROCALS[1 << INDEX_BITS]", base.table)
    )
    return {"firmware/centroid.h": render("centroid.h", values), "firmware/centroid_tables.h": tables}


def _table(declaration: str, values: Iterable[int]) -> str:
    entries = [str(value) for value in values]
    lines = [", ".join(entries[i : i + 16]) for i in range(0, len(entries), 16)]
    return f"static const {declaration} = {{\n    " + ",\n    ".join(lines) + "};\n"


def test_bench_files(name: str, call: str, network: IntegerNetwork, vectors: Golden) -> dict[str, str]:
    """The test bench and its data. call: how the top function is called, a key of :data:`_CALLS`."""
    n_out = vectors.outputs.shape[1]
    whole = call.startswith("locator")
    subject, data = ("locator", "counts_to_outputs") if whole else ("network", "codes_to_outputs")
    values = {
        "RUN_NETWORK": _CALLS[call], "NAME": name, "HEADER": name + "_axi" * (call == "axi"),
        "SIZE": network.size, "N_IN": network.size**2,
        "N_OUT": n_out, "COUNTS": len(vectors.counts), "CODES": len(vectors.codes),
        "INPUT_FRAC": network.input.frac, "OUTPUT_FRAC": network.output.frac, "SUBJECT": subject, "DATA": data,
    }  # fmt: skip
    return {
        f"{name}_test.cpp": render("test_bench.cpp", values),
        "tb_data/counts_to_codes.dat": _rows(vectors.counts, vectors.count_codes),
        f"tb_data/{data}.dat": _rows(vectors.codes, vectors.outputs),
    }


def _rows(inputs: Codes, outputs: Codes) -> str:
    both = np.concatenate([inputs.reshape(len(inputs), -1), outputs.reshape(len(outputs), -1)], axis=1)
    return "".join(" ".join(map(str, row)) + "\n" for row in both.tolist())
