// Counts -> normalizer -> codes -> network, and centroid where there is one -> saturated sum.
//
// Every function is, like hls4ml's own top function, a pipeline or a dataflow region: a pipeline cannot hold the latter.
// In a dataflow region there are calls alone, and an array has one reader.
#include "@TOP@.h"
#include "@NAME@.h"

using normalize::code_t;
using normalize::N;

#if CIRCUIT_STREAMS // one pixel a beat, and one beat back

typedef result_t::value_type correction_t;

static void send(const code_t codes[N], hls::stream<input_t> &input) {
    for (int i = 0; i < N; i++) {
        #pragma HLS PIPELINE II=1
        input_t pixel;
        pixel[0].range(normalize::BITS - 1, 0) = codes[i];
        input.write(pixel);
    }
}

static void receive(hls::stream<result_t> &result, correction_t correction[2]) {
    const result_t beat = result.read();
    for (int k = 0; k < 2; k++) {
        #pragma HLS UNROLL
        correction[k] = beat[k];
    }
}

static void locate(const code_t codes[N], correction_t correction[2]) {
    #pragma HLS DATAFLOW
    hls::stream<input_t> input("input");
    #pragma HLS STREAM variable=input depth=@N@
    hls::stream<result_t> result("result");
    send(codes, input);
    @NAME@(input, result);
    receive(result, correction);
}

#else // all pixels at once

typedef result_t correction_t;

static void send(const code_t codes[N], input_t input[N]) {
    #pragma HLS PIPELINE II=1
    for (int i = 0; i < N; i++)
        input[i].range(normalize::BITS - 1, 0) = codes[i];
}

static void locate(const code_t codes[N], correction_t correction[2]) {
    #pragma HLS @STYLE@
    input_t input[N];
    #pragma HLS ARRAY_PARTITION variable=input complete
    send(codes, input);
    @NAME@(input, correction);
}

#endif
#if CIRCUIT_HAS_CENTROID

static void copy(const code_t codes[N], code_t one[N], code_t other[N]) {
    #pragma HLS PIPELINE II=1
    for (int i = 0; i < N; i++)
        one[i] = other[i] = codes[i];
}

static void add(const correction_t correction[2], const centroid::result_t base[2], circuit::offset_t offset[2]) {
    #pragma HLS PIPELINE II=1
    for (int k = 0; k < 2; k++)
        offset[k] = correction[k] + base[k];
}

static void estimate(const code_t codes[N], circuit::offset_t offset[2]) {
    #pragma HLS @STYLE@
    code_t network_codes[N], base_codes[N];
    #pragma HLS ARRAY_PARTITION variable=network_codes complete
    #pragma HLS ARRAY_PARTITION variable=base_codes complete
    correction_t correction[2];
    #pragma HLS ARRAY_PARTITION variable=correction complete
    centroid::result_t base[2];
    #pragma HLS ARRAY_PARTITION variable=base complete
    copy(codes, network_codes, base_codes);
    locate(network_codes, correction);
    centroid::codes_to_offset(base_codes, base);
    add(correction, base, offset);
}

#else

static void saturate(const correction_t correction[2], circuit::offset_t offset[2]) {
    #pragma HLS PIPELINE II=1
    for (int k = 0; k < 2; k++)
        offset[k] = correction[k];
}

static void estimate(const code_t codes[N], circuit::offset_t offset[2]) {
    #pragma HLS @STYLE@
    correction_t correction[2];
    #pragma HLS ARRAY_PARTITION variable=correction complete
    locate(codes, correction);
    saturate(correction, offset);
}

#endif

void @TOP@(const normalize::count_t counts[N], circuit::offset_t offset[2]) {
    #pragma HLS ARRAY_RESHAPE variable=counts complete dim=0
    #pragma HLS ARRAY_PARTITION variable=offset complete dim=0
    #pragma HLS INTERFACE ap_vld port=counts,offset
    #pragma HLS @STYLE@
    code_t codes[N];
    #pragma HLS ARRAY_PARTITION variable=codes complete
    normalize::counts_to_codes(counts, codes);
    estimate(codes, offset);
}
