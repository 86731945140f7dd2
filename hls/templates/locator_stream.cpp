// Counts -> normalizer -> codes -> network, and centroid where there is one -> saturated sum: processes that run side by
// side, each a patch further than the one behind it, with streams between them.
//
// Free-running: there is no ap_start. Each process waits for what it reads, a patch begins with its first count, and the
// design is idle while none comes.
#include "@TOP@.h"
#include "@NAME@.h"

using locator::INPUTS;
using locator::OUTPUTS;
using normalize::code_t;
using normalize::count_t;
using normalize::N;
using normalize::scale_t;

typedef ap_uint<1> flag_t;

// The counts of a patch, and behind the last one what they share. A patch that ends early is filled up with zeros, and of
// one that is too long the rest is thrown away: the next patch begins behind TLAST. Both are flagged.
static void receive(
    hls::stream<locator::count_beat_t> &counts, hls::stream<count_t> &pixels, hls::stream<scale_t> &scales,
    hls::stream<flag_t> &flags
) {
    count_t low = 0, high = 0;
    flag_t ended = 0, wrong = 0;
Counts:
    for (int i = 0; i < N; i++) {
        #pragma HLS PIPELINE II=1
        count_t count = 0;
        if (!ended) {
            const locator::count_beat_t beat = counts.read();
            count = beat.data;
            ended = beat.last;
            if (ended && i < N - 1)
                wrong = 1;
        }
        if (i == 0 || count < low)
            low = count;
        if (i == 0 || high < count)
            high = count;
        pixels.write(count);
    }
    if (!ended)
        wrong = 1;
Rest:
    while (!ended) {
        #pragma HLS PIPELINE II=1
        ended = counts.read().last;
    }
    scales.write(normalize::scale_of(low, normalize::range_of(low, high)));
    flags.write(wrong);
}

#if LOCATOR_HAS_CENTROID
#define CODES , hls::stream<code_t> &codes
#else
#define CODES
#endif

#if LOCATOR_FLAT // pixels and exponent in one beat

static void encode(
    hls::stream<count_t> &pixels, hls::stream<scale_t> &scales, hls::stream<input_t> &input CODES
) {
    const scale_t scale = scales.read();
    input_t all;
Codes:
    for (int i = 0; i < N; i++) {
        #pragma HLS PIPELINE II=1
        const code_t code = normalize::code_of(pixels.read(), scale);
        all[i].range(normalize::BITS - 1, 0) = code;
#if LOCATOR_HAS_CENTROID
        codes.write(code);
#endif
    }
Exponent:
    for (int k = 0; k < INPUTS - N; k++) {
        #pragma HLS UNROLL
        all[N + k].range(normalize::BITS - 1, 0) = code_t(code_t(scale.exponent[k]) << (normalize::BITS - 1));
    }
    input.write(all);
}

#else // one pixel a beat

static void encode(
    hls::stream<count_t> &pixels, hls::stream<scale_t> &scales, hls::stream<input_t> &input CODES
) {
    const scale_t scale = scales.read();
Codes:
    for (int i = 0; i < N; i++) {
        #pragma HLS PIPELINE II=1
        const code_t code = normalize::code_of(pixels.read(), scale);
        input_t pixel;
        pixel[0].range(normalize::BITS - 1, 0) = code;
        input.write(pixel);
#if LOCATOR_HAS_CENTROID
        codes.write(code);
#endif
    }
}

#endif
#if LOCATOR_HAS_CENTROID

struct base_t {
    centroid::result_t offset[2];
};

// Sums of weights and moments as the codes come, then two quotients.
static void estimate(hls::stream<code_t> &codes, hls::stream<base_t> &bases) {
    centroid::sum_t sum = 0;
    centroid::moment_t row = 0, col = 0;
    int i = -centroid::REACH, j = -centroid::REACH;
Weights:
    for (int k = 0; k < N; k++) {
        #pragma HLS PIPELINE II=1
        const centroid::weight_t weight = centroid::WEIGHTS[codes.read()];
        sum += weight;
        row += i * centroid::moment_t(weight);
        col += j * centroid::moment_t(weight);
        if (j == centroid::WINDOW - 1 - centroid::REACH) {
            j = -centroid::REACH;
            i++;
        } else {
            j++;
        }
    }
    base_t base;
    centroid::offset_of(sum, row, col, base.offset);
    bases.write(base);
}

#endif

// The offset is corrected where there is a centroid; what else the network knows leaves as it is. One beat a patch.
static void answer(
    hls::stream<result_t> &result,
#if LOCATOR_HAS_CENTROID
    hls::stream<base_t> &bases,
#endif
    hls::stream<flag_t> &flags, hls::stream<locator::output_beat_t> &outputs
) {
    #pragma HLS PIPELINE II=1
    const result_t correction = result.read();
#if LOCATOR_HAS_CENTROID
    const base_t base = bases.read();
#endif
    locator::output_beat_t beat;
    for (int k = 0; k < OUTPUTS; k++) {
        #pragma HLS UNROLL
        locator::output_t output = correction[k];
#if LOCATOR_HAS_CENTROID
        if (k < 2)
            output = correction[k] + base.offset[k];
#endif
        ap_int<locator::output_t::width> code;
        code.range(locator::output_t::width - 1, 0) = output.range(locator::output_t::width - 1, 0);
        const ap_int<locator::OUTPUT_PORT> wide = code;
        beat.data.range(locator::OUTPUT_PORT * (k + 1) - 1, locator::OUTPUT_PORT * k) = wide;
    }
    beat.keep = -1;
    beat.strb = -1;
    beat.user = flags.read();
    beat.last = 1;
    beat.id = 0;
    beat.dest = 0;
    outputs.write(beat);
}

void @TOP@(hls::stream<locator::count_beat_t> &counts, hls::stream<locator::output_beat_t> &outputs) {
    #pragma HLS INTERFACE axis port=counts
    #pragma HLS INTERFACE axis port=outputs
    #pragma HLS INTERFACE ap_ctrl_none port=return
    #pragma HLS DATAFLOW
    hls::stream<count_t> pixels("pixels");
    // A patch waits here for its last count, which decides the scale, while the one before it is read.
    #pragma HLS STREAM variable=pixels depth=@PIXELS_DEPTH@
    hls::stream<scale_t> scales("scales");
    #pragma HLS STREAM variable=scales depth=2
    // What goes round the network: one a patch that is under way in it. Where they are fewer, patches wait in front.
    hls::stream<flag_t> flags("flags");
    #pragma HLS STREAM variable=flags depth=@AROUND@
    hls::stream<input_t> input("input");
    #pragma HLS STREAM variable=input depth=@INPUT_DEPTH@
    hls::stream<result_t> result("result");
    #pragma HLS STREAM variable=result depth=2
    receive(counts, pixels, scales, flags);
#if LOCATOR_HAS_CENTROID
    hls::stream<code_t> codes("codes");
    #pragma HLS STREAM variable=codes depth=@CODES_DEPTH@
    hls::stream<base_t> bases("bases");
    #pragma HLS STREAM variable=bases depth=@AROUND@
    encode(pixels, scales, input, codes);
    estimate(codes, bases);
    @NAME@(input, result);
    answer(result, bases, flags, outputs);
#else
    encode(pixels, scales, input);
    @NAME@(input, result);
    answer(result, flags, outputs);
#endif
}
