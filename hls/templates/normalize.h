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
#include "tree.h"

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

// What all pixels of a patch share.
struct scale_t {
    count_t low;
    ap_uint<6> zeros;
    mantissa_t reciprocal;
    thermometer_t exponent;
};

// By how much the counts of a patch differ.
inline range_t range_of(const count_t &low, const count_t &high) { return high - low; }

inline scale_t scale_of(const count_t &low, const range_t &r) {
    #pragma HLS INLINE
    scale_t scale;
    scale.low = low;
    scale.zeros = 0;
Zeros:
    for (int bit = 0; bit < COUNT_BITS; bit++) {
        #pragma HLS UNROLL
        if (r[bit])
            scale.zeros = COUNT_BITS - 1 - bit;
    }
    const range_t aligned = r << scale.zeros;
    const ap_uint<TABLE_BITS> index = aligned >> (COUNT_BITS - 1 - TABLE_BITS);
    scale.reciprocal = TABLE[index];
    scale.exponent = 0;
    return scale;
}

inline code_t code_of(const count_t &count, const scale_t &scale) {
    #pragma HLS INLINE
    range_t difference = count - scale.low;
    difference <<= scale.zeros;
    const mantissa_t t = difference >> (COUNT_BITS - MANTISSA_BITS);
    const ap_uint<2 * MANTISSA_BITS> product = t * scale.reciprocal;
    return product >> SHIFT;
}

// One patch. Counts beyond COUNT_BITS are saturated by whoever makes them.
inline void counts_to_codes(const count_t counts[N], code_t codes[N]) {
    // A new patch every clock: all loops are unrolled; two trees of comparisons, and a multiplier a pixel.
    #pragma HLS PIPELINE II=1
    const count_t low = tree::Joined<0, N>::of(counts, tree::Lower());
    const count_t high = tree::Joined<0, N>::of(counts, tree::Higher());
    const scale_t scale = scale_of(low, range_of(low, high));
Scale:
    for (int i = 0; i < N; i++)
        codes[i] = code_of(counts[i], scale);
}

inline void counts_to_codes(const count_t counts[N], code_t codes[N], thermometer_t &exponent) {
    exponent = 0;
    counts_to_codes(counts, codes);
}

} // namespace normalize

#endif
