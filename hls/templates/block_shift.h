// Detector counts to input codes: the block-floating normalizer of the integer contract, one shift for all pixels.
//
//   count -= min(count)                      with SUBTRACT
//   m      = bitwise OR of all counts
//   z      = leading zeros of m, in COUNT_BITS bits
//   code   = (count << z) >> (COUNT_BITS - BITS)
//
// No bit is lost on the left: z zeros stand before every count. Where all counts are 0, so are all codes. The exponent is
// COUNT_BITS - z; as a thermometer, bit k of it is set where m has a bit at k or above.
#ifndef NORMALIZE_H_
#define NORMALIZE_H_

#include "ap_int.h"
#include "tree.h"

namespace normalize {

static const int N = @N@; // pixels of a patch, row after row
static const int BITS = @BITS@;
static const int COUNT_BITS = @COUNT_BITS@;
static const bool SUBTRACT = @SUBTRACT@;

typedef ap_uint<COUNT_BITS> count_t;
typedef ap_uint<BITS> code_t;
typedef ap_uint<COUNT_BITS> thermometer_t;

// What all pixels of a patch share.
struct scale_t {
    count_t low;
    ap_uint<6> zeros;
    thermometer_t exponent;
};

// By how much the counts of a patch differ, or how large they are.
inline count_t range_of(const count_t &low, const count_t &high) { return SUBTRACT ? count_t(high - low) : high; }

// Of a patch whose lowest count is low. The highest bit of together decides: the range, or the OR of what the counts are
// above low.
inline scale_t scale_of(const count_t &low, const count_t &together) {
    #pragma HLS INLINE
    scale_t scale;
    scale.low = low;
    scale.zeros = 0;
Zeros:
    for (int bit = 0; bit < COUNT_BITS; bit++) {
        #pragma HLS UNROLL
        if (together[bit])
            scale.zeros = COUNT_BITS - 1 - bit;
        scale.exponent[bit] = (together >> bit) != 0;
    }
    return scale;
}

inline code_t code_of(const count_t &count, const scale_t &scale) {
    #pragma HLS INLINE
    const count_t above = SUBTRACT ? count_t(count - scale.low) : count;
    const count_t aligned = above << scale.zeros;
    return aligned >> (COUNT_BITS - BITS);
}

// One patch, and its exponent. Counts beyond COUNT_BITS are saturated by whoever makes them.
inline void counts_to_codes(const count_t counts[N], code_t codes[N], thermometer_t &exponent) {
    // A new patch every clock: all loops are unrolled; a tree of minima, one of ORs, and a shifter a pixel.
    #pragma HLS PIPELINE II=1
    const count_t low = SUBTRACT ? tree::Joined<0, N>::of(counts, tree::Lower()) : count_t(0);
    count_t above[N];
    // Every pixel is used in the same clock: registers, not a memory.
    #pragma HLS ARRAY_PARTITION variable=above complete
Above:
    for (int i = 0; i < N; i++)
        above[i] = range_of(low, counts[i]);
    const scale_t scale = scale_of(low, tree::Joined<0, N>::of(above, tree::Either()));
    exponent = scale.exponent;
Shift:
    for (int i = 0; i < N; i++)
        codes[i] = code_of(counts[i], scale);
}

inline void counts_to_codes(const count_t counts[N], code_t codes[N]) {
    thermometer_t exponent;
    counts_to_codes(counts, codes, exponent);
}

} // namespace normalize

#endif
