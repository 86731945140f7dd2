struct @CONFIG@ {
    static const unsigned io_type = nnet::@IO_TYPE@;
@SIZES@
@TYPES@
#ifndef __SYNTHESIS__
    static const char *name() { return "@NAME@"; } // of the traces in a simulation
#endif
};
