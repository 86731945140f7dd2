// Detector counts to input codes in integer arithmetic: the normalizer of the integer contract.
//
//   low  = min(count), r = max(count) - low, D = count - low
//   ra   = r << z, Da = D << z              z: leading zeros of r, so that r's leading one is at bit COUNT_BITS - 1
//   t    = Da >> (COUNT_BITS - MANTISSA_BITS)
//   code = (t * TABLE[bits of ra after its leading one]) >> SHIFT           and 0 where r == 0
//
// Every width is exact: nothing rounds but the two shifts. The table is data, in normalize_table.h.
#ifndef NORMALIZE_H_
#define NORMALIZE_H_

#include "ap_int.h"

namespace normalize {

static const int N = @N@; // pixels of a patch, row after row
static const int BITS = @BITS@;
static const int COUNT_BITS = @COUNT_BITS@;
static const int TABLE_BITS = @TABLE_BITS@;
static const int MANTISSA_BITS = @MANTISSA_BITS@;
static const int SHIFT = @SHIFT@;

typedef ap_int<COUNT_BITS> count_t;
typedef ap_uint<BITS> code_t;
typedef ap_uint<COUNT_BITS> range_t;
typedef ap_uint<MANTISSA_BITS> mantissa_t;
typedef ap_uint<1> thermometer_t; // this normalizer has no exponent

#include "normalize_table.h"

// One patch. Counts beyond COUNT_BITS are saturated by whoever makes them.
inline void counts_to_codes(const count_t counts[N], code_t codes[N]) {
    count_t low = counts[0], high = counts[0];
Extremes:
    for (int i = 1; i < N; i++) {
        #pragma HLS PIPELINE
        if (counts[i] < low)
            low = counts[i];
        if (counts[i] > high)
            high = counts[i];
    }
    const range_t r = high - low;
    range_t aligned = r;
    ap_uint<6> zeros = 0;
Align:
    for (int i = 0; i < COUNT_BITS - 1; i++) {
        #pragma HLS UNROLL
        if (!aligned[COUNT_BITS - 1]) {
            aligned <<= 1;
            zeros++;
        }
    }
    const ap_uint<TABLE_BITS> index = aligned >> (COUNT_BITS - 1 - TABLE_BITS);
    const mantissa_t reciprocal = TABLE[index];
Scale:
    for (int i = 0; i < N; i++) {
        #pragma HLS PIPELINE
        range_t difference = counts[i] - low;
        difference <<= zeros;
        const mantissa_t t = difference >> (COUNT_BITS - MANTISSA_BITS);
        const ap_uint<2 * MANTISSA_BITS> product = t * reciprocal;
        codes[i] = product >> SHIFT;
    }
}

inline void counts_to_codes(const count_t counts[N], code_t codes[N], thermometer_t &exponent) {
    exponent = 0;
    counts_to_codes(counts, codes);
}

} // namespace normalize

#endif
