// Sums of products and what follows them: quant/contract/layers.py, and the residual of attention.py.

#pragma once

#include <type_traits>

#include "lanes.h"

namespace {

enum Sums : std::int64_t { kPairs = 0, kSingle = 1, kLong = 2, kQuadruples = 3 };
enum Kind : std::int64_t { kIdentity = 0, kRelu = 1, kLeaky = 2 };

// One linear layer, or one residual, with the requantization behind it; the order of the fields is that of records.py.
struct Layer {
    std::int64_t op, source, other, target;              // what is done; buffers, or for an attention which one
    std::int64_t sums;                                   // Sums: the type of inputs, products and sums
    std::int64_t rows, cols, row_stride;                 // of the outputs' positions; vectors between rows of the input
    std::int64_t outputs, each;                          // a multiple of 2 or 4; codes in a lane
    std::int64_t blocks, taps, weights, biases;          // where its own begin
    std::int64_t kind, up, half, down;                   // Kind; sum << up, + half, >> down
    std::int64_t slope, below_up, below_half, below_down;  // the same for sums below 0 times slope
    std::int64_t low, high;                              // saturation
    std::int64_t own_up, other_up, other_each;           // of a residual: shifts of both; codes of the other in a lane
};

struct Weights {
    const std::int64_t* blocks;   // taps of each block of outputs
    const std::int32_t* taps;     // where each tap's vectors begin, from those of the position
    const std::int32_t* weights;  // [block][tap][output]: a weight, two of 16 bits or four of 8
    const std::int64_t* biases;
};

// Sums to codes. X: the integer of S's lanes.
template <typename X, typename S>
inline S activated(S sum, const Layer& layer) {
    const S zero{};
    S found = sum;
    if (layer.kind == kRelu) found = larger(sum, zero);
    found = ((found << int(layer.up)) + X(layer.half)) >> int(layer.down);
    if (layer.kind == kLeaky) {
        const S below = (((sum * X(layer.slope)) << int(layer.below_up)) + X(layer.below_half)) >> int(layer.below_down);
        found = sum < zero ? below : found;
    }
    return smaller(larger(found, X(layer.low) + zero), X(layer.high) + zero);
}

template <std::int64_t kind>
inline void add(std::conditional_t<kind == kLong, L, I>& sum, I x, std::int32_t w) {
    if constexpr (kind == kQuadruples) sum = add_quads(sum, x, splat(w));
    else if constexpr (kind == kPairs) sum = add_pairs(sum, x, splat(w));
    else if constexpr (kind == kSingle) sum += x * w;
    else sum += __builtin_convertvector(x, L) * std::int64_t(w);
}

// B outputs at all positions.
template <int B, std::int64_t kind>
void block_of(const Layer& layer, const std::int32_t* taps, std::int64_t count, const std::int32_t* weights,
              const std::int64_t* biases, const I* in, I* out) {
    using S = std::conditional_t<kind == kLong, L, I>;
    using X = std::conditional_t<kind == kLong, std::int64_t, std::int32_t>;
    const std::int64_t positions = layer.rows * layer.cols;
    for (std::int64_t at = 0; at < positions; ++at) {
        const I* x = in + (at / layer.cols * layer.row_stride + at % layer.cols) * kGroups;
        S sum[B][kGroups];
        for (int b = 0; b < B; ++b)
            for (int g = 0; g < kGroups; ++g) sum[b][g] = X(biases[b]) + S{};
        const std::int32_t* w = weights;
        for (std::int64_t t = 0; t < count; ++t, w += B) {
            I code[kGroups];
            for (int g = 0; g < kGroups; ++g) code[g] = x[taps[t] + g];
            for (int b = 0; b < B; ++b)
                for (int g = 0; g < kGroups; ++g) add<kind>(sum[b][g], code[g], w[b]);
        }
        I code[B][kGroups];
        for (int b = 0; b < B; ++b)
            for (int g = 0; g < kGroups; ++g) code[b][g] = __builtin_convertvector(activated<X>(sum[b][g], layer), I);
        for (int g = 0; g < kGroups; ++g) {
            I* to = out + at * kGroups + g;
            if constexpr (B == 4)
                if (layer.each == 4) {
                    *to = quad(code[0][g], code[1][g], code[2][g], code[3][g]);
                    continue;
                }
            for (int b = 0; b < B; b += layer.each == 2 ? 2 : 1, to += positions * kGroups)
                *to = layer.each == 2 ? pair(code[b][g], code[b + 1][g]) : code[b][g];
        }
    }
}

template <std::int64_t kind>
void linear(const Layer& layer, const Weights& all, const I* in, I* out) {
    const std::int64_t* counts = all.blocks + layer.blocks;
    const std::int32_t *taps = all.taps + layer.taps, *weights = all.weights + layer.weights;
    for (std::int64_t done = 0; done < layer.outputs;) {
        const std::int64_t left = layer.outputs - done, count = *counts++;
        const int block = left >= kBlock ? kBlock : 2;  // packing.py lays the weights out so
        const std::int64_t* biases = all.biases + layer.biases + done;
        I* to = out + done / layer.each * layer.rows * layer.cols * kGroups;
        if (block == kBlock) block_of<kBlock, kind>(layer, taps, count, weights, biases, in, to);
        else block_of<2, kind>(layer, taps, count, weights, biases, in, to);
        taps += count;
        weights += count * block;
        done += block;
    }
}

// Sums [output][position] of their own, and the codes that they are added to.
inline void residual(const Layer& layer, const I* own, const I* other, I* out) {
    const std::int64_t vectors = layer.rows * layer.cols * kGroups;
    auto code = [&](std::int64_t output, std::int64_t i) {
        const I x = other[output / layer.other_each * vectors + i];
        const I added = layer.other_each == 1 ? x
                        : layer.other_each == 4 ? byte_of(x, int(output % 4))
                        : output % 2            ? high_half(x)
                                                : low_half(x);
        return activated<std::int32_t>((own[output * vectors + i] << int(layer.own_up)) + (added << int(layer.other_up)),
                                       layer);
    };
    for (std::int64_t output = 0; output < layer.outputs; output += layer.each)
        for (std::int64_t i = 0; i < vectors; ++i) {
            I& to = out[output / layer.each * vectors + i];
            if (layer.each == 4) to = quad(code(output, i), code(output + 1, i), code(output + 2, i), code(output + 3, i));
            else to = layer.each == 2 ? pair(code(output, i), code(output + 1, i)) : code(output, i);
        }
}

}  // namespace
