// A trained position network on a CPU: min-max normalization, non-local block (multiplied out, see fused.py),
// convolutions and dense layers in float32, one patch a vector lane.
//
// As many patches as a vector has lanes go through the whole network together and stay in the cache; weights are
// broadcast operands. A lane never looks at another one and sums have one fixed order, so results do not depend on
// the batch, its order or the number of threads.
//
// Built by braggnn_edge/locate/compiled.py. GCC's vector extension keeps it free of intrinsics.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "threads.h"

namespace {

// Bytes of a vector: those of the processor's registers. Wider ones would be taken apart, comparisons lane by lane.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / sizeof(float);
// Columns of a convolution and queries of the attention that are computed together, by measurement: with 16 registers
// sums and weights of AVX2 compete for them, while SSE has to load its operands either way.
constexpr int kColumns = kBytes == 32 ? 1 : 3, kQueries = kBytes == 64 ? 2 : 1;
typedef float V __attribute__((vector_size(kBytes)));
typedef std::int32_t M __attribute__((vector_size(kBytes)));

inline V splat(float x) { return x - V{}; }

inline V larger(V a, V b) { return a > b ? a : b; }

// exp for x <= 0, to about 2 units in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, Taylor's series of e^r.
inline V exp_negative(V x) {
    x = larger(x, splat(-87.0f));
    const V magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer held in the low bits
    const V shifted = x * 1.44269504f + magic;
    const V n = shifted - magic;
    const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    V p = splat(1.0f / 5040);
    for (float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = p * r + c;
    M whole, raw;
    std::memcpy(&whole, &shifted, sizeof(M));
    std::memcpy(&raw, &p, sizeof(M));
    raw += whole << 23;  // magic's own bits are shifted out
    std::memcpy(&p, &raw, sizeof(M));
    return p;
}

inline V activated(V x, float slope) { return x > 0.0f ? x : x * slope; }

// B output channels at P neighbouring columns of one row. weight: [inputs][3][3][B], then B biases.
template <int B, int P>
void convolve_tile(const V* in, V* out, const float* weight, int inputs, int side, float slope) {
    const int to = side - 2;
    V sum[P][B];
    for (int b = 0; b < B; ++b)
        for (int p = 0; p < P; ++p) sum[p][b] = splat(weight[inputs * 9 * B + b]);
    for (int channel = 0; channel < inputs; ++channel)
        for (int row = 0; row < 3; ++row) {
            const V* x = in + (channel * side + row) * side;
            const float* w = weight + (channel * 3 + row) * 3 * B;
            for (int col = 0; col < 3; ++col)
                for (int b = 0; b < B; ++b)
                    for (int p = 0; p < P; ++p) sum[p][b] += x[col + p] * w[col * B + b];
        }
    for (int b = 0; b < B; ++b)
        for (int p = 0; p < P; ++p) out[b * to * to + p] = activated(sum[p][b], slope);
}

template <int B>
void convolve_block(const V* in, V* out, const float* weight, int inputs, int side, float slope) {
    const int to = side - 2;
    for (int row = 0; row < to; ++row) {
        const V* x = in + row * side;
        V* y = out + row * to;
        int col = 0;
        for (; col + kColumns <= to; col += kColumns) convolve_tile<B, kColumns>(x + col, y + col, weight, inputs, side, slope);
        for (; col < to; ++col) convolve_tile<B, 1>(x + col, y + col, weight, inputs, side, slope);
    }
}

// weight: blocks of 8, 4, 2, 1 output channels, greedily (compiled.py packs them so).
const float* convolve(const V* in, V* out, const float* weight, int inputs, int outputs, int side, float slope) {
    const int to = side - 2;
    for (int done = 0; done < outputs;) {
        const int left = outputs - done, block = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        V* y = out + done * to * to;
        if (block == 8) convolve_block<8>(in, y, weight, inputs, side, slope);
        if (block == 4) convolve_block<4>(in, y, weight, inputs, side, slope);
        if (block == 2) convolve_block<2>(in, y, weight, inputs, side, slope);
        if (block == 1) convolve_block<1>(in, y, weight, inputs, side, slope);
        weight += (inputs * 9 + 1) * block;
        done += block;
    }
    return weight;
}

template <int B>
void connect_block(const V* in, V* out, const float* weight, int inputs, float slope) {
    V sum[B];
    for (int b = 0; b < B; ++b) sum[b] = splat(weight[inputs * B + b]);
    for (int i = 0; i < inputs; ++i)
        for (int b = 0; b < B; ++b) sum[b] += in[i] * weight[i * B + b];
    for (int b = 0; b < B; ++b) out[b] = activated(sum[b], slope);
}

const float* connect(const V* in, V* out, const float* weight, int inputs, int outputs, float slope) {
    for (int done = 0; done < outputs;) {
        const int left = outputs - done, block = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (block == 8) connect_block<8>(in, out + done, weight, inputs, slope);
        if (block == 4) connect_block<4>(in, out + done, weight, inputs, slope);
        if (block == 2) connect_block<2>(in, out + done, weight, inputs, slope);
        if (block == 1) connect_block<1>(in, out + done, weight, inputs, slope);
        weight += (inputs + 1) * block;
        done += block;
    }
    return weight;
}

// Q neighbouring queries of the attention: their windows' query vectors in, weighted sums of all windows out.
template <int Q>
void attend(const V* windows, int first, int pixels, const float* query, const float* shift, V* scores, V* mixed) {
    V q[Q][9];
    for (int i = 0; i < Q; ++i)
        for (int k = 0; k < 9; ++k) {
            q[i][k] = splat(shift[k]);
            for (int m = 0; m < 9; ++m) q[i][k] += windows[(first + i) * 9 + m] * query[k * 9 + m];
        }
    V top[Q], total[Q], sum[Q][9];
    for (int i = 0; i < Q; ++i) top[i] = splat(-3e38f), total[i] = V{};
    for (int i = 0; i < Q; ++i)
        for (int k = 0; k < 9; ++k) sum[i][k] = V{};
    for (int j = 0; j < pixels; ++j) {
        V dot[Q];
        for (int i = 0; i < Q; ++i) dot[i] = q[i][0] * windows[j * 9];
        for (int k = 1; k < 9; ++k)
            for (int i = 0; i < Q; ++i) dot[i] += q[i][k] * windows[j * 9 + k];
        for (int i = 0; i < Q; ++i) top[i] = larger(top[i], scores[j * Q + i] = dot[i]);
    }
    for (int j = 0; j < pixels; ++j)
        for (int i = 0; i < Q; ++i) {
            const V weight = exp_negative(scores[j * Q + i] - top[i]);
            total[i] += weight;
            for (int k = 0; k < 9; ++k) sum[i][k] += weight * windows[j * 9 + k];
        }
    for (int i = 0; i < Q; ++i)
        for (int k = 0; k < 9; ++k) mixed[i * 9 + k] = sum[i][k] / total[i];
}

struct Network {
    int size, attention, convolutions, dense;
    const std::int32_t* widths;  // of the convolutions (the non-local block's first), then of the dense layers
    const float* weights;
    float slope;

    std::size_t largest() const {
        std::size_t found = std::size_t(size) * size;
        int side = size;
        for (int i = 0; i < convolutions; ++i) {
            side -= 2;
            found = std::max(found, std::size_t(side) * side * widths[i]);
        }
        for (int i = 0; i < dense; ++i) found = std::max(found, std::size_t(widths[convolutions + i]));
        return found;
    }
};

// First convolution with the non-local block: in (size^2), out (channels, side^2).
const float* non_local(const Network& net, const V* in, V* out, const float* weight, std::vector<V>& scratch) {
    const int side = net.size - 2, pixels = side * side, channels = net.widths[0];
    scratch.resize(std::size_t(pixels) * 11 + 18);
    V *windows = scratch.data(), *scores = windows + pixels * 9, *mixed = scores + pixels * 2;
    for (int i = 0; i < pixels; ++i)
        for (int k = 0; k < 9; ++k)
            windows[i * 9 + k] = in[(i / side + k / 3) * net.size + i % side + k % 3];
    const float *query = weight, *shift = weight + 81, *project = weight + 90, *bias = project + channels * 18;
    for (int first = 0; first < pixels; first += kQueries) {
        const int count = std::min(kQueries, pixels - first);
        if (count == kQueries) attend<kQueries>(windows, first, pixels, query, shift, scores, mixed);
        else attend<1>(windows, first, pixels, query, shift, scores, mixed);
        for (int i = 0; i < count; ++i) {
            V both[18];
            for (int k = 0; k < 9; ++k) both[k] = windows[(first + i) * 9 + k], both[9 + k] = mixed[i * 9 + k];
            for (int channel = 0; channel < channels; ++channel) {
                const float* w = project + channel * 18;
                V even = splat(bias[channel]), odd = both[9] * w[9];  // two chains: additions take four cycles
                for (int k = 0; k < 9; ++k) even += both[k] * w[k];
                for (int k = 10; k < 18; ++k) odd += both[k] * w[k];
                out[channel * pixels + first + i] = activated(even + odd, net.slope);
            }
        }
    }
    return bias + channels;
}

void locate_group(const Network& net, const float* patches, int count, V* a, V* b, std::vector<V>& scratch, float* out) {
    const int pixels = net.size * net.size;
    float* flat = reinterpret_cast<float*>(a);
    for (int lane = 0; lane < kLanes; ++lane) {
        const float* patch = patches + std::size_t(std::min(lane, count - 1)) * pixels;
        for (int i = 0; i < pixels; ++i) flat[i * kLanes + lane] = patch[i];
    }
    V low = a[0], high = a[0];
    for (int i = 1; i < pixels; ++i) low = a[i] < low ? a[i] : low, high = larger(a[i], high);
    V span = high - low;
    span = span > 0.0f ? span : splat(1.0f);
    for (int i = 0; i < pixels; ++i) a[i] = (a[i] - low) / span;

    const float* weight = net.weights;
    int side = net.size, channels = 1;
    for (int i = 0; i < net.convolutions; ++i) {
        weight = i == 0 && net.attention ? non_local(net, a, b, weight, scratch)
                                         : convolve(a, b, weight, channels, net.widths[i], side, net.slope);
        side -= 2;
        channels = net.widths[i];
        std::swap(a, b);
    }
    int inputs = channels * side * side;
    for (int i = 0; i < net.dense; ++i) {
        const int outputs = net.widths[net.convolutions + i];
        weight = connect(a, b, weight, inputs, outputs, i + 1 < net.dense ? net.slope : 1.0f);
        inputs = outputs;
        std::swap(a, b);
    }
    for (int lane = 0; lane < count; ++lane)
        for (int i = 0; i < 2; ++i) out[lane * 2 + i] = a[i][lane];
}

}  // namespace

// patches (n, size, size) to offsets (n, 2). Returns 1 when memory is short.
extern "C" int braggnn_locate(const float* patches, std::int64_t n, int size, int attention, int convolutions, int dense,
                              const std::int32_t* widths, const float* weights, float slope, int threads,
                              float* offsets) {
    const Network net{size, attention, convolutions, dense, widths, weights, slope};
    const std::int64_t groups = (n + kLanes - 1) / kLanes;
    struct Scratch {
        std::vector<V> a, b, more;
    };
    auto make = [&] { return Scratch{std::vector<V>(net.largest()), std::vector<V>(net.largest()), {}}; };
    return braggnn::in_threads(threads, groups, make, [&](Scratch& scratch, std::int64_t group) {
        const std::int64_t first = group * kLanes;
        locate_group(net, patches + first * size * size, int(std::min<std::int64_t>(kLanes, n - first)),
                     scratch.a.data(), scratch.b.data(), scratch.more, offsets + first * 2);
    });
}
