// The whole locator: detector counts of the patch's central window to the offset of its peak from the centre pixel.
#ifndef @GUARD@_H_
#define @GUARD@_H_

#include "ap_fixed.h"
#include "normalize.h"

#define CIRCUIT_STREAMS @STREAMS@ // 1: the network is of io_stream, 0: of io_parallel
#define CIRCUIT_FLAT @FLAT@ // 1: the network takes the exponent's codes behind the pixels, all at once
#define CIRCUIT_HAS_CENTROID @HAS_CENTROID@ // 1: the network corrects it, 0: the network is the whole estimate

#if CIRCUIT_HAS_CENTROID
#include "centroid.h"
#endif

namespace circuit {

static const int INPUTS = @INPUTS@; // codes that the network takes: pixels, then those of the exponent if any
static const int OUTPUTS = @OUTPUTS@; // offset (row, col), px@SIGMA@

// What is added up has the same fraction: the sum is exact, and saturates.
typedef ap_fixed<@OUTPUT_BITS@, @OUTPUT_INTEGER@, AP_TRN, AP_SAT> output_t;

} // namespace circuit

void @TOP@(const normalize::count_t counts[normalize::N], circuit::output_t outputs[circuit::OUTPUTS]);

#endif
