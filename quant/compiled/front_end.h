// Counts to codes, and the centroid of the codes: quant/contract/normalize.py, block_shift.py, centroid.py.

#pragma once

#include <algorithm>
#include <type_traits>

#include "lanes.h"

namespace {

// The order of the fields is that of records.py.
struct Model {
    std::int64_t size, window;                         // of the patches and of the part that is used
    std::int64_t min_max, bits, count_bits, subtract;  // normalizer
    std::int64_t table_bits, mantissa_bits;            // of min-max
    std::int64_t each, columns, exponent;              // inputs in a lane; each with those right of it; codes of the exponent
    std::int64_t layers, buffers, outputs;             // how many there are; codes that leave
    std::int64_t low, high;                            // saturation of what leaves
    std::int64_t centroid, power, discarded, narrow;   // is there one; weight = code**power >> discarded, or a table
    std::int64_t index_bits, sum_bits, numerator_shift, result_shift;
};

// A value's whole count, saturated, in 32 bits; NaN, which is refused before, becomes the lowest.
template <typename T>
inline std::uint32_t whole(T value, std::int64_t low, std::int64_t high) {
    if constexpr (std::is_floating_point_v<T>) {
        const double x = double(value) >= double(low) ? double(value) : double(low);
        if (x >= double(high)) return std::uint32_t(high);
        const std::int64_t cut = std::int64_t(x);
        return std::uint32_t(cut - (double(cut) > x));
    } else {
        return std::uint32_t(std::min(std::max(std::int64_t(value), low), high));
    }
}

// Counts (count, size, size) of the window to [pixel][patch]; lanes that no patch is for repeat the last one.
template <typename T>
void load(const Model& model, const T* patches, int count, U* counts) {
    const std::int64_t edge = (model.size - model.window) / 2, half = std::int64_t(1) << (model.count_bits - 1);
    const std::int64_t low = model.min_max ? -half : 0, high = model.min_max ? half - 1 : 2 * half - 1;
    auto* flat = reinterpret_cast<std::uint32_t*>(counts);
    for (int lane = 0; lane < kPatches; ++lane) {
        const T* patch = patches + std::min(lane, count - 1) * model.size * model.size;
        std::uint32_t* to = flat + lane;
        for (std::int64_t row = edge; row < edge + model.window; ++row)
            for (std::int64_t col = edge; col < edge + model.window; ++col, to += kPatches)
                *to = whole(patch[row * model.size + col], low, high);
    }
}

// Counts to codes in place, and the largest of a patch above 0 or above the smallest: what the exponent is of.
inline void normalize(const Model& model, const std::int64_t* reciprocals, U* counts, U* largest) {
    const std::int64_t pixels = model.window * model.window, width = model.count_bits;
    for (int g = 0; g < kGroups; ++g) {
        I low = (I)counts[g], top = low;  // counts of min-max are signed
        U most = counts[g], least = most;
        for (std::int64_t i = 1; i < pixels; ++i) {
            const U x = counts[i * kGroups + g];
            low = smaller((I)x, low), top = larger((I)x, top);
            least = smaller(x, least), most = larger(x, most);
        }
        const U base = model.min_max ? (U)low : model.subtract ? least : U{};
        const U range = model.min_max ? (U)top - base : most - base;
        largest[g] = range;
        U scale{}, entry{};
        for (int lane = 0; lane < kLanes; ++lane) {
            const int zeros = int(width) - bit_length(range[lane]);
            scale[lane] = zeros < 32 ? std::uint32_t(1) << zeros : 0;
            if (!model.min_max) continue;
            const std::uint64_t aligned = std::uint64_t(range[lane]) << zeros;
            const std::uint64_t mask = (std::uint64_t(1) << model.table_bits) - 1;
            entry[lane] = std::uint32_t(reciprocals[(aligned >> (width - 1 - model.table_bits)) & mask]);
        }
        const int down = int(width - (model.min_max ? model.mantissa_bits : model.bits));
        const int shift = int(2 * model.mantissa_bits - 1 - model.bits);
        for (std::int64_t i = 0; i < pixels; ++i) {
            U& x = counts[i * kGroups + g];
            x = ((x - base) * scale) >> down;
            if (!model.min_max) continue;
            if (2 * model.mantissa_bits <= 32) x = (x * entry) >> shift;
            else
                for (int lane = 0; lane < kLanes; ++lane)
                    x[lane] = std::uint32_t((std::uint64_t(x[lane]) * entry[lane]) >> shift);
        }
    }
}

// Codes of the pixels, and of the exponent where it is an input, as the first layer takes them.
inline void arrange(const Model& model, const U* codes, const U* largest, I* out) {
    const std::int64_t pixels = model.window * model.window, count = pixels + model.exponent;
    auto input = [&](std::int64_t i, int g) -> I {
        if (i >= count) return I{};
        if (i < pixels) return (I)codes[i * kGroups + g];
        const U reached = largest[g] >> int(i - pixels);
        return reached > 0 ? splat(std::int32_t(1) << (model.bits - 1)) : I{};
    };
    // Of columns: none beyond the row.
    auto beside = [&](std::int64_t i, std::int64_t by, int g) -> I {
        return model.columns && i % model.window + by >= model.window ? I{} : input(i + by, g);
    };
    const std::int64_t step = model.columns ? 1 : model.each;
    for (std::int64_t i = 0; i < count; i += step)
        for (int g = 0; g < kGroups; ++g) {
            I code = input(i, g);
            if (model.each == 2) code = pair(code, beside(i, 1, g));
            if (model.each == 4) code = quad(code, beside(i, 1, g), beside(i, 2, g), beside(i, 3, g));
            out[i / step * kGroups + g] = code;
        }
}

// The centroid (row, col) of each patch's codes: found[patch * 2 + axis].
inline void centroid(const Model& model, const std::int64_t* weights, const std::int64_t* quotients, const U* codes,
                     std::int64_t* found) {
    const std::int64_t side = model.window, reach = side / 2, mask = (std::int64_t(1) << model.index_bits) - 1;
    for (int g = 0; g < kGroups; ++g) {
        I sums{}, rows{}, cols{};
        for (std::int64_t row = 0; row < side && model.narrow; ++row) {
            I line{};
            for (std::int64_t col = 0; col < side; ++col) {
                I w = (I)codes[(row * side + col) * kGroups + g];
                if (model.power == 0)
                    for (int lane = 0; lane < kLanes; ++lane) w[lane] = std::int32_t(weights[w[lane]]);
                else w = (model.power == 2 ? w * w : w) >> int(model.discarded);
                line += w;
                cols += w * std::int32_t(col - reach);
            }
            sums += line;
            rows += line * std::int32_t(row - reach);
        }
        for (int lane = 0; lane < kLanes; ++lane) {
            std::int64_t sum = sums[lane], moments[2] = {rows[lane], cols[lane]};
            for (std::int64_t i = 0; i < side * side && !model.narrow; ++i) {
                const std::int64_t w = weights[codes[i * kGroups + g][lane]];
                sum += w;
                moments[0] += w * (i / side - reach);
                moments[1] += w * (i % side - reach);
            }
            const std::int64_t zeros = model.sum_bits - bit_length(sum);
            const std::int64_t quotient = quotients[((sum << zeros) >> (model.sum_bits - 1 - model.index_bits)) & mask];
            for (int axis = 0; axis < 2; ++axis)
                found[(g * kLanes + lane) * 2 + axis] =
                    shifted(shifted(moments[axis] << zeros, model.numerator_shift) * quotient, model.result_shift);
        }
    }
}

}  // namespace
