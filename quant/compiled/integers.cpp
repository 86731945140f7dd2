// A locator in integers on a CPU: counts of patches to output codes, those of quant/contract, one patch a vector lane.
//
// kGroups vectors of patches go through the whole network together and stay in the cache; weights are broadcast.
// Codes lie in pairs of 16 bits in lanes of 32: one instruction multiplies two by two weights and adds the products.
// Where the processor does the same with four codes of 8 bits, they lie in fours.
// Which layers may do so, and that no sum leaves its type, is decided in bounds.py from the bounds of the contract. A
// lane never looks at another one, so codes do not depend on the batch, its order or the number of threads.
//
// Built by quant/compiled/kernel.py. GCC's vector extension, but for two instructions that it does not find (lanes.h).

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "front_end.h"
#include "lanes.h"
#include "layers.h"
#include "threads.h"

namespace {

enum Op : std::int64_t { kLinear = 0, kAttention = 1, kResidual = 2 };

struct Tables {
    const Layer* layers;
    Weights weights;
    const std::int64_t *reciprocals, *centroid, *quotients;  // of min-max; weight of each code; of the centroid
    const Attention* attentions;
    const std::int32_t* softmax;
    const std::int64_t* vectors;  // of each buffer
};

struct Scratch {
    std::vector<U> counts;
    std::vector<std::vector<I>> buffers;
    std::int64_t base[kPatches * 2] = {};
    Scratch(const Model& model, const Tables& tables) : counts(model.window * model.window * kGroups) {
        for (std::int64_t i = 0; i < model.buffers; ++i) buffers.emplace_back(tables.vectors[i] * kGroups);
    }
};

template <typename T>
void group(const Model& model, const Tables& tables, const T* patches, int count, Scratch& scratch, std::int32_t* out) {
    U largest[kGroups];
    load(model, patches, count, scratch.counts.data());
    normalize(model, tables.reciprocals, scratch.counts.data(), largest);
    if (model.centroid) centroid(model, tables.centroid, tables.quotients, scratch.counts.data(), scratch.base);
    auto buffer = [&](std::int64_t i) { return scratch.buffers[i].data(); };
    arrange(model, scratch.counts.data(), largest, buffer(0));
    const I* answer = nullptr;
    for (std::int64_t i = 0; i < model.layers; ++i) {
        const Layer& layer = tables.layers[i];
        const I* in = buffer(layer.source);
        I* to = buffer(layer.target);
        if (layer.op == kAttention) {
            const Attention& block = tables.attentions[layer.other];
            attention(block, tables.softmax, in, buffer(block.key), buffer(block.value), to);
        } else if (layer.op == kResidual) residual(layer, in, buffer(layer.other), to);
        else if (layer.sums == kQuadruples) linear<kQuadruples>(layer, tables.weights, in, to);
        else if (layer.sums == kPairs) linear<kPairs>(layer, tables.weights, in, to);
        else if (layer.sums == kSingle) linear<kSingle>(layer, tables.weights, in, to);
        else linear<kLong>(layer, tables.weights, in, to);
        answer = to;
    }
    for (int patch = 0; patch < count; ++patch)
        for (std::int64_t i = 0; i < model.outputs; ++i) {
            std::int64_t code = answer[i * kGroups + patch / kLanes][patch % kLanes];
            if (i < 2) code += scratch.base[patch * 2 + i];
            out[patch * model.outputs + i] = std::int32_t(std::min(std::max(code, model.low), model.high));
        }
}

template <typename T>
int locate(const Model& model, const Tables& tables, const T* patches, std::int64_t n, int threads, std::int32_t* out) {
    const std::int64_t groups = (n + kPatches - 1) / kPatches;
    auto make = [&] { return Scratch(model, tables); };
    return braggnn::in_threads(threads, groups, make, [&](Scratch& scratch, std::int64_t at) {
        const std::int64_t first = at * kPatches;
        group(model, tables, patches + first * model.size * model.size, int(std::min<std::int64_t>(kPatches, n - first)),
              scratch, out + first * model.outputs);
    });
}

}  // namespace

extern "C" {

// Vectors of patches and outputs that are computed together, and whether codes may lie in fours: what taps and weights are
// laid out for.
void braggnn_integers_tile(std::int32_t* groups, std::int32_t* block, std::int32_t* quads) {
    *groups = kGroups, *block = kBlock, *quads = kQuads;
}

// patches (n, size, size) of type 0 uint8, 1 uint16, 2 int16, 3 int32 or 4 float32 to codes (n, outputs). Returns 1
// when memory is short.
int braggnn_integers(const void* patches, int type, std::int64_t n, const void* model, const void* const* tables,
                     int threads, std::int32_t* codes) {
    static_assert(sizeof(Model) == 24 * 8 && sizeof(Layer) == 27 * 8 && sizeof(Attention) == 14 * 8, "as in records.py");
    auto whole = [&](int i) { return static_cast<const std::int64_t*>(tables[i]); };
    auto half = [&](int i) { return static_cast<const std::int32_t*>(tables[i]); };
    const Model& m = *static_cast<const Model*>(model);
    const Tables t{static_cast<const Layer*>(tables[0]), {whole(1), half(2), half(3), whole(4)}, whole(5), whole(6),
                   whole(7), static_cast<const Attention*>(tables[8]), half(9), whole(10)};
    switch (type) {
        case 0: return locate(m, t, static_cast<const std::uint8_t*>(patches), n, threads, codes);
        case 1: return locate(m, t, static_cast<const std::uint16_t*>(patches), n, threads, codes);
        case 2: return locate(m, t, static_cast<const std::int16_t*>(patches), n, threads, codes);
        case 3: return locate(m, t, static_cast<const std::int32_t*>(patches), n, threads, codes);
        default: return locate(m, t, static_cast<const float*>(patches), n, threads, codes);
    }
}
}
