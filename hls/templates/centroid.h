// Input codes to the centroid of their weights, from the centre pixel: the integer centroid of the integer contract.
//
//   w = WEIGHTS[code], S = sum(w), R = sum(position * w)         exact, for row and column
//   z = leading zeros of S in SUM_BITS bits
//   t = floor((R << z) * 2**(LIFT - DROP))                       the bits of R that enter the product
//   i = the INDEX_BITS bits of S << z below its leading one
//   result = (t * RECIPROCALS[i]) >> SHIFT                       and 0 where S is 0, since R is
//
// Every width holds its largest value, |R| <= REACH * S: nothing rounds but the two right shifts. The tables are data,
// in centroid_tables.h.
#ifndef CENTROID_H_
#define CENTROID_H_

#include "ap_fixed.h"
#include "ap_int.h"

namespace centroid {

static const int WINDOW = @WINDOW@; // side of the patch, px
static const int REACH = WINDOW / 2;
static const int BITS = @BITS@;
static const int WEIGHT_BITS = @WEIGHT_BITS@;
static const int SUM_BITS = @SUM_BITS@;
static const int REACH_BITS = @REACH_BITS@;
static const int INDEX_BITS = @INDEX_BITS@;
static const int RECIPROCAL_BITS = @RECIPROCAL_BITS@;
static const int NUMERATOR_BITS = @NUMERATOR_BITS@;
static const int FRAC = @FRAC@;
static const int LIFT = @LIFT@;
static const int DROP = @DROP@;
static const int SHIFT = @SHIFT@;
static const int RESULT_BITS = REACH_BITS + FRAC + 2;

typedef ap_uint<BITS> code_t;
typedef ap_uint<WEIGHT_BITS> weight_t;
typedef ap_uint<SUM_BITS> sum_t;
typedef ap_int<SUM_BITS + REACH_BITS + 1> moment_t;
typedef ap_int<SUM_BITS + REACH_BITS + LIFT + 1> lifted_t;
typedef ap_int<NUMERATOR_BITS + 1> numerator_t;
typedef ap_uint<RECIPROCAL_BITS> reciprocal_t;
typedef ap_int<NUMERATOR_BITS + RECIPROCAL_BITS + 1> product_t;
typedef ap_fixed<RESULT_BITS, RESULT_BITS - FRAC> result_t; // px

#include "centroid_tables.h"

// One moment, aligned as its sum is, divided by the sum.
inline result_t quotient(const moment_t &moment, const ap_uint<6> &zeros, const reciprocal_t &reciprocal) {
    const moment_t aligned = moment << zeros;
    const numerator_t t = (lifted_t(aligned) << LIFT) >> DROP;
    const product_t product = t * reciprocal;
    const ap_int<RESULT_BITS> code = product >> SHIFT;
    result_t result;
    result.range(RESULT_BITS - 1, 0) = code;
    return result;
}

// Of the sum of a patch's weights and its moments.
inline void offset_of(const sum_t &sum, const moment_t &row, const moment_t &col, result_t result[2]) {
    #pragma HLS INLINE
    ap_uint<6> zeros = 0;
Zeros:
    for (int bit = 0; bit < SUM_BITS; bit++) {
        #pragma HLS UNROLL
        if (sum[bit])
            zeros = SUM_BITS - 1 - bit;
    }
    const sum_t aligned = sum << zeros;
    const ap_uint<INDEX_BITS> index = aligned >> (SUM_BITS - 1 - INDEX_BITS);
    const reciprocal_t reciprocal = RECIPROCALS[index];
    result[0] = quotient(row, zeros, reciprocal);
    result[1] = quotient(col, zeros, reciprocal);
}

// One patch, row after row, to (row, col).
inline void codes_to_offset(const code_t codes[WINDOW * WINDOW], result_t result[2]) {
    // A new patch every clock: all loops are unrolled, the sums become trees of adders.
    #pragma HLS PIPELINE II=1
    sum_t rows[WINDOW], cols[WINDOW];
    // Every sum is used in the same clock: registers, not memories.
    #pragma HLS ARRAY_PARTITION variable=rows complete
    #pragma HLS ARRAY_PARTITION variable=cols complete
Clear:
    for (int i = 0; i < WINDOW; i++) {
        rows[i] = 0;
        cols[i] = 0;
    }
Sums:
    for (int i = 0; i < WINDOW; i++)
        for (int j = 0; j < WINDOW; j++) {
            const weight_t weight = WEIGHTS[codes[WINDOW * i + j]];
            rows[i] += weight;
            cols[j] += weight;
        }
    sum_t sum = 0;
    moment_t row = 0, col = 0;
Moments:
    for (int i = 0; i < WINDOW; i++) {
        sum += rows[i];
        row += (i - REACH) * moment_t(rows[i]);
        col += (i - REACH) * moment_t(cols[i]);
    }
    offset_of(sum, row, col, result);
}

} // namespace centroid

#endif
