// The non-local block between its convolutions: quant/contract/attention.py, steps 2 to 7.

#pragma once

#include <vector>

#include "lanes.h"

namespace {

// The order of the fields is that of records.py.
struct Attention {
    std::int64_t side, pool, inner;     // of the positions, of the windows of keys and values; channels inside, even
    std::int64_t key, value;            // buffers of codes [channel][position]
    std::int64_t up, down, most;        // a difference of scores to an index: << up, >> down, at most
    std::int64_t index_bits, shift;     // of the reciprocals; the right shift less the bit length of the sum
    std::int64_t low, high;             // saturation of what is mixed
    std::int64_t exponentials, reciprocals;  // where its tables begin
};

// The largest of a key's window.
inline I pooled(const Attention& a, const I* codes, std::int64_t channel, std::int64_t key, int g) {
    const std::int64_t count = a.side / a.pool, first = key / count * a.pool * a.side + key % count * a.pool;
    const I* at = codes + channel * a.side * a.side * kGroups + g;
    I found = at[first * kGroups];
    for (std::int64_t row = 0; row < a.pool; ++row)
        for (std::int64_t col = 0; col < a.pool; ++col) found = larger(found, at[(first + row * a.side + col) * kGroups]);
    return found;
}

// Channels in pairs for the scores, keys in pairs for the sums of values.
struct Packed {
    std::int64_t keys, halves, couples;
    std::vector<I> key, value;  // [key][half of the channels], [half of the keys][channel]

    Packed(const Attention& a, const I* k, const I* v)
        : keys((a.side / a.pool) * (a.side / a.pool)), halves(a.inner / 2), couples((keys + 1) / 2),
          key(keys * halves * kGroups), value(couples * a.inner * kGroups) {
        for (std::int64_t j = 0; j < keys; ++j)
            for (std::int64_t h = 0; h < halves; ++h)
                for (int g = 0; g < kGroups; ++g)
                    key[(j * halves + h) * kGroups + g] = pair(pooled(a, k, 2 * h, j, g), pooled(a, k, 2 * h + 1, j, g));
        for (std::int64_t j = 0; j < couples; ++j)
            for (std::int64_t c = 0; c < a.inner; ++c)
                for (int g = 0; g < kGroups; ++g)
                    value[(j * a.inner + c) * kGroups + g] =
                        pair(pooled(a, v, c, 2 * j, g), 2 * j + 1 < keys ? pooled(a, v, c, 2 * j + 1, g) : I{});
    }
};

// Q neighbouring queries from position ``first`` on. out: [pair of channels][position].
template <int Q>
void attend(const Attention& a, const Packed& packed, const std::int32_t* tables, const I* q, std::int64_t first,
            std::vector<I>& room, I* out) {
    const std::int64_t positions = a.side * a.side, keys = packed.keys;
    room.resize((packed.halves + keys + 1) * Q * kGroups);
    I *query = room.data(), *scores = query + packed.halves * Q * kGroups;
    for (std::int64_t h = 0; h < packed.halves; ++h)
        for (int i = 0; i < Q; ++i)
            for (int g = 0; g < kGroups; ++g)
                query[(h * Q + i) * kGroups + g] = pair(q[(2 * h * positions + first + i) * kGroups + g],
                                                        q[((2 * h + 1) * positions + first + i) * kGroups + g]);
    I top[Q][kGroups];
    for (std::int64_t j = 0; j < keys; ++j) {
        I sum[Q][kGroups] = {};
        const I* k = packed.key.data() + j * packed.halves * kGroups;
        for (std::int64_t h = 0; h < packed.halves; ++h)
            for (int i = 0; i < Q; ++i)
                for (int g = 0; g < kGroups; ++g)
                    sum[i][g] = add_pairs(sum[i][g], query[(h * Q + i) * kGroups + g], k[h * kGroups + g]);
        for (int i = 0; i < Q; ++i)
            for (int g = 0; g < kGroups; ++g) {
                scores[(j * Q + i) * kGroups + g] = sum[i][g];
                top[i][g] = j ? larger(top[i][g], sum[i][g]) : sum[i][g];
            }
    }
    const std::int32_t *exponentials = tables + a.exponentials, *reciprocals = tables + a.reciprocals;
    D entry[Q][kGroups];  // the reciprocal and its power of two in one
    for (int i = 0; i < Q; ++i)
        for (int g = 0; g < kGroups; ++g) {
            I total{};
            for (std::int64_t j = 0; j < keys; ++j) {
                I& x = scores[(j * Q + i) * kGroups + g];
                const I t = ((top[i][g] - x) << int(a.up)) >> int(a.down);
                x = looked_up(exponentials, smaller(t, splat(std::int32_t(a.most))));
                total += x;
            }
            scores[(keys * Q + i) * kGroups + g] = I{};  // behind an odd number of keys
            for (int lane = 0; lane < kLanes; ++lane) {
                const std::int64_t sum = total[lane], length = bit_length(sum);
                const std::int64_t index = ((sum << a.index_bits) >> (length - 1)) - (std::int64_t(1) << a.index_bits);
                entry[i][g][lane] = double(reciprocals[index]) / double(std::int64_t(1) << (a.shift + length));
            }
            for (std::int64_t j = 0; j < packed.couples; ++j)
                scores[(j * Q + i) * kGroups + g] =
                    pair(scores[(2 * j * Q + i) * kGroups + g], scores[((2 * j + 1) * Q + i) * kGroups + g]);
        }
    // floor(sum * reciprocal / 2**n), saturated: exact in float64, as plan.py checks.
    auto mixed = [&](I sum, D by) {
        const D x = smaller(larger(__builtin_convertvector(sum, D) * by, double(a.low) + D{}), double(a.high) + D{});
        const I cut = __builtin_convertvector(x, I);
        return cut + __builtin_convertvector(__builtin_convertvector(cut, D) > x, I);  // true is -1
    };
    for (std::int64_t c = 0; c < a.inner; c += 2) {
        I sum[2][Q][kGroups] = {};
        for (std::int64_t j = 0; j < packed.couples; ++j)
            for (int b = 0; b < 2; ++b)
                for (int i = 0; i < Q; ++i)
                    for (int g = 0; g < kGroups; ++g)
                        sum[b][i][g] = add_pairs(sum[b][i][g], scores[(j * Q + i) * kGroups + g],
                                                 packed.value[(j * a.inner + c + b) * kGroups + g]);
        for (int i = 0; i < Q; ++i)
            for (int g = 0; g < kGroups; ++g)
                out[(c / 2 * positions + first + i) * kGroups + g] =
                    pair(mixed(sum[0][i][g], entry[i][g]), mixed(sum[1][i][g], entry[i][g]));
    }
}

// Queries, keys and values, codes [channel][position], to mixed values [pair of channels][position].
inline void attention(const Attention& a, const std::int32_t* tables, const I* q, const I* k, const I* v, I* out) {
    const Packed packed(a, k, v);
    std::vector<I> room;
    const std::int64_t positions = a.side * a.side;
    std::int64_t first = 0;
    for (; first + 2 <= positions; first += 2) attend<2>(a, packed, tables, q, first, room, out);
    if (first < positions) attend<1>(a, packed, tables, q, first, room, out);
}

}  // namespace
