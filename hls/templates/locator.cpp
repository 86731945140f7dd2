// Counts -> normalizer -> codes -> network, and centroid where there is one -> saturated sum.
//
// Every function is, like hls4ml's own top function, a pipeline or a dataflow region: a pipeline cannot hold the latter.
// In a dataflow region there are calls alone, and an array has one reader.
#include "@TOP@.h"
#include "@NAME@.h"

using locator::INPUTS;
using locator::OUTPUTS;
using normalize::code_t;
using normalize::N;
using normalize::thermometer_t;

typedef result_t correction_t;

static void send(const code_t codes[INPUTS], input_t input[INPUTS]) {
    #pragma HLS PIPELINE II=1
    for (int i = 0; i < INPUTS; i++)
        input[i].range(normalize::BITS - 1, 0) = codes[i];
}

static void locate(const code_t codes[INPUTS], correction_t correction[OUTPUTS]) {
    #pragma HLS @STYLE@
    input_t input[INPUTS];
    // As the network's own pragma has it: the two would contradict each other.
    #pragma HLS ARRAY_RESHAPE variable=input complete dim=0
    send(codes, input);
    @NAME@(input, correction);
}

#if LOCATOR_HAS_CENTROID

// What the network takes, and what the centroid takes.
static void copy(const code_t codes[N], const thermometer_t &exponent, code_t inputs[INPUTS], code_t pixels[N]) {
    #pragma HLS PIPELINE II=1
    for (int i = 0; i < N; i++)
        inputs[i] = pixels[i] = codes[i];
    for (int k = 0; k < INPUTS - N; k++)
        inputs[N + k] = code_t(exponent[k]) << (normalize::BITS - 1);
}

// The offset is corrected; what else the network knows leaves as it is.
static void add(const correction_t correction[OUTPUTS], const centroid::result_t base[2], locator::output_t outputs[OUTPUTS]) {
    #pragma HLS PIPELINE II=1
    for (int k = 0; k < 2; k++)
        outputs[k] = correction[k] + base[k];
    for (int k = 2; k < OUTPUTS; k++)
        outputs[k] = correction[k];
}

static void estimate(const code_t codes[N], const thermometer_t &exponent, locator::output_t outputs[OUTPUTS]) {
    #pragma HLS @STYLE@
    code_t inputs[INPUTS], pixels[N];
    #pragma HLS ARRAY_PARTITION variable=inputs complete
    #pragma HLS ARRAY_PARTITION variable=pixels complete
    correction_t correction[OUTPUTS];
    #pragma HLS ARRAY_PARTITION variable=correction complete
    centroid::result_t base[2];
    #pragma HLS ARRAY_PARTITION variable=base complete
    copy(codes, exponent, inputs, pixels);
    locate(inputs, correction);
    centroid::codes_to_offset(pixels, base);
    add(correction, base, outputs);
}

#else

static void copy(const code_t codes[N], const thermometer_t &exponent, code_t inputs[INPUTS]) {
    #pragma HLS PIPELINE II=1
    for (int i = 0; i < N; i++)
        inputs[i] = codes[i];
    for (int k = 0; k < INPUTS - N; k++)
        inputs[N + k] = code_t(exponent[k]) << (normalize::BITS - 1);
}

static void saturate(const correction_t correction[OUTPUTS], locator::output_t outputs[OUTPUTS]) {
    #pragma HLS PIPELINE II=1
    for (int k = 0; k < OUTPUTS; k++)
        outputs[k] = correction[k];
}

static void estimate(const code_t codes[N], const thermometer_t &exponent, locator::output_t outputs[OUTPUTS]) {
    #pragma HLS @STYLE@
    code_t inputs[INPUTS];
    #pragma HLS ARRAY_PARTITION variable=inputs complete
    correction_t correction[OUTPUTS];
    #pragma HLS ARRAY_PARTITION variable=correction complete
    copy(codes, exponent, inputs);
    locate(inputs, correction);
    saturate(correction, outputs);
}

#endif

void @TOP@(const normalize::count_t counts[N], locator::output_t outputs[OUTPUTS]) {
    #pragma HLS ARRAY_RESHAPE variable=counts complete dim=0
    #pragma HLS ARRAY_PARTITION variable=outputs complete dim=0
    #pragma HLS INTERFACE ap_vld port=counts,outputs
    #pragma HLS @STYLE@
    code_t codes[N];
    #pragma HLS ARRAY_PARTITION variable=codes complete
    thermometer_t exponent;
    normalize::counts_to_codes(counts, codes, exponent);
    estimate(codes, exponent, outputs);
}
