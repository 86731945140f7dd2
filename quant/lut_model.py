"""What a circuit costs in look-up tables, from its bits alone: a model fitted to mapped circuits, not a measurement.

Effective bit operations (EBOPs, Sun et al., arXiv:2405.00645) are, over all weights, the bits of the weight times the
bits of the input it multiplies. Unrolled by distributed arithmetic, a weight is as many additions as it has digits that
are not 0, of the width of its input, so that look-up tables are nearly proportional to them.
"""

#: Look-up tables an effective bit operation of the network, and of normalizer and centroid by their own counts.
LUTS_PER_EBOP = 0.9
