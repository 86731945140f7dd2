// What the test bench needs of a beat of AXI4-Stream, for g++. The vendor's tools have a header of this name of their own,
// and do not look into this folder.
#ifndef AP_AXI_SDATA_H_
#define AP_AXI_SDATA_H_

#include "ap_int.h"

template <int DATA, int USER, int ID, int DEST> struct ap_axiu {
    ap_uint<DATA> data;
    ap_uint<(DATA + 7) / 8> keep, strb;
    ap_uint<USER> user;
    ap_uint<1> last;
    ap_uint<ID> id;
    ap_uint<DEST> dest;
};

#endif
