// Batch driver of a locator: int64 counts in; int64 codes of the network's inputs, the centroid (0 where there is none) and
// outputs out, one patch after the other. Normalizer and centroid are run by themselves once more, so that a difference
// has a place.
// usage: csim_circuit COUNTS RESULTS
//   COUNTS   patches x N         RESULTS  patches x (INPUTS + 2 + OUTPUTS), written
#include <cstdint>
#include <cstdio>

#include "firmware/braggnn_locator.h"

static const int PIXELS = normalize::N;
static const int INPUT_CODES = locator::INPUTS;
static const int RESULTS = INPUT_CODES + 2 + locator::OUTPUTS;

template <class T> int64_t code_of(const T &value) {
    ap_int<T::width> bits;
    bits.range(T::width - 1, 0) = value.range(T::width - 1, 0);
    return bits.to_int64();
}

int main(int argc, char **argv) {
    FILE *in = argc == 3 ? std::fopen(argv[1], "rb") : NULL;
    FILE *out = in ? std::fopen(argv[2], "wb") : NULL;
    if (!out) {
        std::fprintf(stderr, "usage: csim_circuit COUNTS RESULTS\n");
        return 2;
    }
    int64_t given[PIXELS];
    while (std::fread(given, sizeof(int64_t), PIXELS, in) == size_t(PIXELS)) {
        int64_t results[RESULTS] = {0};
        normalize::count_t counts[PIXELS];
        normalize::code_t codes[PIXELS];
        for (int i = 0; i < PIXELS; i++)
            counts[i] = given[i];
        normalize::thermometer_t exponent;
        normalize::counts_to_codes(counts, codes, exponent);
        for (int i = 0; i < PIXELS; i++)
            results[i] = codes[i].to_int64();
        for (int k = 0; k < INPUT_CODES - PIXELS; k++)
            results[PIXELS + k] = int64_t(exponent[k]) << (normalize::BITS - 1);
#if LOCATOR_HAS_CENTROID
        centroid::result_t base[2];
        centroid::codes_to_offset(codes, base);
        for (int k = 0; k < 2; k++)
            results[INPUT_CODES + k] = code_of(base[k]);
#endif
#if LOCATOR_STREAMS
        hls::stream<locator::count_beat_t> input("counts");
        hls::stream<locator::output_beat_t> output("outputs");
        for (int i = 0; i < PIXELS; i++) {
            locator::count_beat_t beat;
            beat.data = counts[i];
            beat.last = i == PIXELS - 1;
            input.write(beat);
        }
        braggnn_locator(input, output);
        const locator::output_beat_t beat = output.read();
        if (beat.last != 1 || beat.user != 0 || !output.empty()) {
            std::fprintf(stderr, "TLAST %d, TUSER %d\n", beat.last.to_int(), beat.user.to_int());
            return 3;
        }
        for (int k = 0; k < locator::OUTPUTS; k++) {
            const ap_int<locator::OUTPUT_PORT> code =
                beat.data.range(locator::OUTPUT_PORT * (k + 1) - 1, locator::OUTPUT_PORT * k);
            results[INPUT_CODES + 2 + k] = code.to_int64();
        }
#else
        locator::output_t output[locator::OUTPUTS];
        braggnn_locator(counts, output);
        for (int k = 0; k < locator::OUTPUTS; k++)
            results[INPUT_CODES + 2 + k] = code_of(output[k]);
#endif
        if (std::fwrite(results, sizeof(int64_t), RESULTS, out) != size_t(RESULTS)) {
            std::perror(argv[2]);
            return 2;
        }
    }
    return std::fclose(out) == 0 ? 0 : 2;
}
