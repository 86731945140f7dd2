// Words of an array joined two by two.
#ifndef TREE_H_
#define TREE_H_

namespace tree {

// Words FIRST to FIRST + COUNT - 1: COUNT - 1 operations, of which at most ceil(log2(COUNT)) stand in a row. A loop that
// keeps the best word so far would be a chain of all of them: the tools rearrange sums, but no comparisons.
template <int FIRST, int COUNT> struct Joined {
    template <class T, class Op> static T of(const T words[], const Op &op) {
        #pragma HLS INLINE
        return op(Joined<FIRST, COUNT / 2>::of(words, op), Joined<FIRST + COUNT / 2, COUNT - COUNT / 2>::of(words, op));
    }
};

template <int FIRST> struct Joined<FIRST, 1> {
    template <class T, class Op> static T of(const T words[], const Op &) {
        #pragma HLS INLINE
        return words[FIRST];
    }
};

struct Lower {
    template <class T> T operator()(const T &a, const T &b) const { return b < a ? b : a; }
};

struct Higher {
    template <class T> T operator()(const T &a, const T &b) const { return a < b ? b : a; }
};

struct Either {
    template <class T> T operator()(const T &a, const T &b) const { return a | b; }
};

} // namespace tree

#endif
