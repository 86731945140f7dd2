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

namespace normalize {

static const int N = @N@; // pixels of a patch, row after row
static const int BITS = @BITS@;
static const int COUNT_BITS = @COUNT_BITS@;
static const bool SUBTRACT = @SUBTRACT@;

typedef ap_uint<COUNT_BITS> count_t;
typedef ap_uint<BITS> code_t;
typedef ap_uint<COUNT_BITS> thermometer_t;

// One patch, and its exponent. Counts beyond COUNT_BITS are saturated by whoever makes them.
inline void counts_to_codes(const count_t counts[N], code_t codes[N], thermometer_t &exponent) {
    // A new patch every clock: all loops are unrolled, into a tree of minima, one of ORs, and a shifter a pixel.
    #pragma HLS PIPELINE II=1
    count_t low = counts[0];
Lowest:
    for (int i = 1; i < N; i++)
        if (counts[i] < low)
            low = counts[i];
    count_t above[N];
    // Every pixel is used in the same clock: registers, not a memory.
    #pragma HLS ARRAY_PARTITION variable=above complete
    count_t together = 0;
Together:
    for (int i = 0; i < N; i++) {
        above[i] = SUBTRACT ? count_t(counts[i] - low) : counts[i];
        together |= above[i];
    }
    ap_uint<6> zeros = 0;
Zeros:
    for (int bit = 0; bit < COUNT_BITS; bit++) {
        if (together[bit])
            zeros = COUNT_BITS - 1 - bit;
        exponent[bit] = (together >> bit) != 0;
    }
Shift:
    for (int i = 0; i < N; i++) {
        const count_t aligned = above[i] << zeros;
        codes[i] = aligned >> (COUNT_BITS - BITS);
    }
}

inline void counts_to_codes(const count_t counts[N], code_t codes[N]) {
    thermometer_t exponent;
    counts_to_codes(counts, codes, exponent);
}

} // namespace normalize

#endif
