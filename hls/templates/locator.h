// The whole locator: detector counts of the patch's central window to the offset of its peak from the centre pixel.
#ifndef @GUARD@_H_
#define @GUARD@_H_

#include "ap_fixed.h"
#include "normalize.h"

#define LOCATOR_STREAMS @STREAMS@ // 1: the network is of io_stream, 0: of io_parallel
#define LOCATOR_FLAT @FLAT@ // 1: the network takes the exponent's codes behind the pixels, all at once
#define LOCATOR_HAS_CENTROID @HAS_CENTROID@ // 1: the network corrects it, 0: the network is the whole estimate

#if LOCATOR_HAS_CENTROID
#include "centroid.h"
#endif
#if LOCATOR_STREAMS
#include "ap_axi_sdata.h"
#include "hls_stream.h"
#endif

namespace locator {

static const int INPUTS = @INPUTS@; // codes that the network takes: pixels, then those of the exponent if any
static const int OUTPUTS = @OUTPUTS@; // offset (row, col), px@SIGMA@

// What is added up has the same fraction: the sum is exact, and saturates.
typedef ap_fixed<@OUTPUT_BITS@, @OUTPUT_INTEGER@, AP_TRN, AP_SAT> output_t;

#if LOCATOR_STREAMS
static const int COUNT_PORT = @COUNT_PORT@; // bits of a count in TDATA, whole bytes
static const int OUTPUT_PORT = @OUTPUT_PORT@; // bits of an output in TDATA, whole bytes, sign extended

// One count a beat, row after row; TLAST with the last of a patch. TKEEP, TSTRB, TUSER, TID and TDEST are not looked at.
typedef ap_axiu<COUNT_PORT, 1, 1, 1> count_beat_t;
// All outputs of a patch in one beat, the first in the lowest bits. TLAST is 1; TUSER is 1 where the patch had another
// number of counts than normalize::N.
typedef ap_axiu<OUTPUTS * OUTPUT_PORT, 1, 1, 1> output_beat_t;
#endif

} // namespace locator

#if LOCATOR_STREAMS
void @TOP@(hls::stream<locator::count_beat_t> &counts, hls::stream<locator::output_beat_t> &outputs);
#else
void @TOP@(const normalize::count_t counts[normalize::N], locator::output_t outputs[locator::OUTPUTS]);
#endif

#endif
