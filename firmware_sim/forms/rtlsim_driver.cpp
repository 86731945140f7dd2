// Runs a design with the RTL project's stream interface cycle by cycle on a file of patches, and writes every result.
//
//   driver counts outputs n pixels bits seed mode
//
// counts: n * pixels int32; outputs: uint64 of out_data's bits a result, in the order in which they come. mode 0: no reset,
// as after configuration; the first patch alone, then all without gaps and stalls. mode 1: other patches under way, a reset
// that must drop them; the first patch alone, then gaps and back-pressure of a density that changes every 256 clocks, drawn
// from `seed`. With TAG_BITS above 0 each patch has a tag of its own. Prints one line of JSON.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

#ifndef TAG_BITS
#define TAG_BITS 0
#endif

namespace {

#if TAG_BITS
// The tag of patch k: its number, scattered over all bits.
uint64_t tag_of(long k) {
    return ((uint64_t)k * 0x9e3779b97f4a7c15ull + 0x0123456789abcdefull) >> (64 - TAG_BITS);
}
#endif

template <std::size_t N>
void set(VlWide<N>& port, const std::vector<uint32_t>& words) { std::memcpy(port.data(), words.data(), N * 4); }
void set(QData& port, const std::vector<uint32_t>& words) { port = words[0] | (QData)words[1] << 32; }
void set(IData& port, const std::vector<uint32_t>& words) { port = words[0]; }
void set(SData& port, const std::vector<uint32_t>& words) { port = words[0]; }
void set(CData& port, const std::vector<uint32_t>& words) { port = words[0]; }

// xorshift64*: the same numbers everywhere for one seed.
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull) {}
    uint32_t next() {
        state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
        return (uint32_t)(state * 0x2545f4914f6cdd1dull >> 32);
    }
    bool chance(uint32_t of256) { return (next() & 255) < of256; }
};

[[noreturn]] void fail(const char* text) {
    std::fprintf(stderr, "%s\n", text);
    std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 8) fail("usage: driver counts outputs n pixels bits seed mode");
    const long n = std::atol(argv[3]), pixels = std::atol(argv[4]), bits = std::atol(argv[5]);
    const bool random = std::atol(argv[7]) != 0;
    std::vector<int32_t> counts(n * pixels);
    FILE* file = std::fopen(argv[1], "rb");
    if (!file || std::fread(counts.data(), 4, counts.size(), file) != counts.size()) fail("counts cannot be read");
    std::fclose(file);

    VerilatedContext context;
    Vtop top{&context};
    std::vector<uint32_t> words((pixels * bits + 31) / 32 + 2);
    std::vector<uint64_t> outputs;
    Random in_random{(uint64_t)std::atoll(argv[6]) * 2 + 1}, out_random{(uint64_t)std::atoll(argv[6]) * 2 + 2};
    const uint32_t densities[] = {0, 0, 25, 128, 230, 250};
    uint32_t gaps = 0, stalls = 0;
    long cycle = 0, sent = 0, first_in = -1, latency = -1, burst_first = -1, burst_last = -1, progress = 0;
    long waited = 0, stalled = 0, unstable = 0, mistagged = 0, ready_in_reset = 0;
    bool held = false;
    uint64_t held_data = 0;

    const auto offer = [&](long patch) {
        std::fill(words.begin(), words.end(), 0);
        for (long k = 0, at = 0; k < pixels; k++, at += bits) {
            const uint64_t code = (uint64_t)(uint32_t)counts[patch * pixels + k] & ((1ull << bits) - 1);
            words[at / 32] |= (uint32_t)(code << at % 32);
            if (at % 32 + bits > 32) words[at / 32 + 1] |= (uint32_t)(code >> (32 - at % 32));
        }
        set(top.in_data, words);
#if TAG_BITS
        top.in_tag = tag_of(patch);
#endif
    };
    const auto edge = [&] { top.clk = 0; top.eval(); top.clk = 1; top.eval(); cycle++; };
    top.in_valid = top.out_ready = 0;
    top.rst = 0;
    if (random && n > 0) {
        offer(n - 1);
        top.in_valid = 1;
        for (int k = 0; k < 5; k++) edge();
        top.rst = 1;
        for (int k = 0; k < 3; k++) {
            top.clk = 0;
            top.eval();
            ready_in_reset += top.in_ready;
            edge();
        }
        top.rst = top.in_valid = 0;
    }
    edge();

    bool valid = false;
    long quiet = 0;
    while (quiet < 200 + 64 * (n > 0)) {
        if (cycle % 256 == 0 && random) {
            gaps = densities[in_random.next() % 6];
            stalls = densities[out_random.next() % 6];
        }
        const bool alone = (long)outputs.size() == 0;  // the first patch, unhindered
        if (!valid && sent < n && (sent == 0 || !alone) && !(random && in_random.chance(gaps))) {
            offer(sent);
            valid = true;
        }
        top.in_valid = valid;
        top.out_ready = alone || sent == n ? 1 : !(random && out_random.chance(stalls));
        top.clk = 0;
        top.eval();
        const bool in_transfer = valid && top.in_ready, out_transfer = top.out_valid && top.out_ready;
        if (held && (!top.out_valid || (uint64_t)top.out_data != held_data)) unstable++;
        held = top.out_valid && !top.out_ready;
        held_data = (uint64_t)top.out_data;
        waited += valid && !top.in_ready;
        stalled += held;
        if (out_transfer) {
#if TAG_BITS
            mistagged += (uint64_t)top.out_tag != tag_of((long)outputs.size());
#endif
            if (outputs.empty()) latency = cycle - first_in;
            if (outputs.size() == 1) burst_first = cycle;
            burst_last = cycle;
            outputs.push_back((uint64_t)top.out_data);
            if ((long)outputs.size() > n + 16) break;
        }
        if (in_transfer) {
            if (sent == 0) first_in = cycle;
            sent++;
            valid = false;
        }
        top.clk = 1;
        top.eval();
        cycle++;
        if (in_transfer || out_transfer) progress = cycle;
        if (cycle - progress > 20000) break;
        quiet = (long)outputs.size() >= n ? quiet + 1 : 0;
    }
    FILE* result = std::fopen(argv[2], "wb");
    if (!result || std::fwrite(outputs.data(), 8, outputs.size(), result) != outputs.size()) fail("outputs cannot be written");
    std::fclose(result);
    std::printf(
        "{\"cycles\": %ld, \"sent\": %ld, \"received\": %zu, \"latency\": %ld, \"burst\": %ld, \"waited\": %ld, "
        "\"stalled\": %ld, \"unstable\": %ld, \"mistagged\": %ld, \"ready_in_reset\": %ld}\n",
        cycle, sent, outputs.size(), latency, burst_last - burst_first, waited, stalled, unstable, mistagged,
        ready_in_reset);
    return 0;
}
