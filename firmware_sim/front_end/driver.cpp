// Drives a front end clock by clock along a script, and writes every record that it sends.
//
//   driver script records seed [+mutant=N]
//
// PIXELS and BITS are of the build, and MAPS, the counts of a pixel in a beat of maps; POSITION, bits of a beat of
// s_position, 0 where the locator is inside, and WINDOW, the side of a patch. The script is a row of 32-bit words, an
// operation and what belongs to it:
//   0 n                wait n clocks
//   1 address value    write a register;  2 address: read one. Value and response of either are printed
//   3 n                reset for n clocks
//   4 gaps stalls      chances of 256 that a beat waits, that the output is not ready, from now on
//   5 n, then n beats  flags (1 start of frame, 2 end of row) and PIXELS counts, two to a word
//   6 rows cols, then rows * cols counts, two to a word: a frame
//   8 n, then n beats  maps, from now on, over and over: flags as in 5 and MAPS * PIXELS counts, two to a word
//   9 n, then n patches and what an external locator answers: WINDOW * WINDOW counts, two to a word, the words of a
//                      beat of s_position, and its tuser. Nothing else may come by m_patch
//   10 latency interval stalls  of that locator: clocks from a patch's last count to its answer, clocks between two
//                      answers, both at least, and the chance of 256 that it does not take a count
//   7 n limit          wait until n records were taken since the start, limit clocks at most
// records: 32 bytes each, then the clock of the transfer, 8 bytes. Prints one line of JSON.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

namespace {

template <std::size_t N>
void set(VlWide<N>& port, const uint32_t* words) { std::memcpy(port.data(), words, N * 4); }
void set(QData& port, const uint32_t* words) { port = words[0] | (QData)words[1] << 32; }
void set(IData& port, const uint32_t* words) { port = words[0]; }
void set(SData& port, const uint32_t* words) { port = words[0]; }
void set(CData& port, const uint32_t* words) { port = words[0]; }

// xorshift64*: the same numbers everywhere for one seed.
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull) {}
    bool chance(uint32_t of256) {
        state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
        return ((uint32_t)(state * 0x2545f4914f6cdd1dull >> 32) & 255) < of256;
    }
};

[[noreturn]] void fail(const char* text) {
    std::fprintf(stderr, "%s\n", text);
    std::exit(2);
}

// n counts, 16 bits each, to a beat of BITS each.
void pack(const uint16_t* counts, uint32_t* words, int n) {
    if (BITS == 16) {
        if (n == 1) words[0] = counts[0];
        else std::memcpy(words, counts, 2 * n);
        return;
    }
    std::memset(words, 0, 4 * (n * BITS / 32 + 2));
    for (int k = 0, at = 0; k < n; k++, at += BITS) {
        words[at / 32] |= (uint32_t)counts[k] << at % 32;
        if (at % 32 + BITS > 32) words[at / 32 + 1] |= (uint32_t)counts[k] >> (32 - at % 32);
    }
}

#if POSITION
constexpr int COUNTS = WINDOW * WINDOW, POSITION_WORDS = (POSITION + 31) / 32;
constexpr std::size_t UNDER_WAY = 4;  // patches in the external locator at a time

// An external locator: patches that it knows, a count at a time, and what it says of them.
struct Locator {
    std::unordered_map<std::string, const uint32_t*> known;
    std::string patch;
    std::deque<std::pair<uint64_t, const uint32_t*>> answers;  // clock at which it is ready
    uint64_t latency = 1, interval = 0, next = 0;
    uint32_t stalls = 0;
};
#endif

struct Bench {
    VerilatedContext context;
    Vtop top{&context};
    Random in_random, out_random, map_random;
    const uint32_t* maps = nullptr;
    std::size_t map_beats = 0, map_at = 0;
    bool map_offered = false;
#if POSITION
    Locator locator;
    Random locator_random;
    bool answer_offered = false;
#endif
    FILE* file;
    uint32_t gaps = 0, stalls = 0;
    uint64_t clock = 0, records = 0, waited = 0, throttled = 0, unstable = 0, wrong_last = 0, ready_in_reset = 0, last_word = 0;
    bool held = false, in_frame = false;
    uint32_t held_data[8] = {0};

    Bench(uint64_t seed, FILE* to, int argc, char** argv) : in_random(2 * seed + 1), out_random(2 * seed + 2), map_random(2 * seed + 3),
#if POSITION
        locator_random(2 * seed + 4),
#endif
        file(to) {
        context.commandArgs(argc, argv);
    }

    // Offer a beat of maps, at the pace of the pixels, until it is taken.
    void offer() {
#if MAPS
        if (map_offered || !map_beats || (gaps && map_random.chance(gaps))) return;
        const uint32_t* beat = maps + map_at * (1 + (MAPS * PIXELS + 1) / 2);
        uint32_t words[MAPS * PIXELS + 2];
        pack((const uint16_t*)(beat + 1), words, MAPS * PIXELS);
        set(top.s_map_tdata, words);
        top.s_map_tuser = beat[0] & 1;
        top.s_map_tlast = beat[0] >> 1 & 1;
        top.s_map_tvalid = map_offered = true;
#endif
    }
    void taken() {
#if MAPS
        if (top.rst && top.s_map_tready) ready_in_reset++;
        if (!map_offered || !top.s_map_tready) return;
        map_at = map_at + 1 < map_beats ? map_at + 1 : 0;
        map_offered = false;
#endif
    }

    // The external locator's clock: what it offers before the edge, and what passes at it.
    void locate() {
#if POSITION
        top.m_patch_tready = locator.answers.size() < UNDER_WAY && !locator_random.chance(locator.stalls);
        if (answer_offered || locator.answers.empty() || locator.answers.front().first > clock) return;
        set(top.s_position_tdata, locator.answers.front().second);
        top.s_position_tuser = locator.answers.front().second[POSITION_WORDS];
        top.s_position_tvalid = answer_offered = true;
#endif
    }
    void located() {
#if POSITION
        if (top.rst) {
            if (top.m_patch_tvalid && reset_before) fail("m_patch is valid in a reset");
            if (top.s_position_tready) ready_in_reset++;
            locator.patch.clear();
            locator.answers.clear();
            answer_offered = patch_held = false;
            return;
        }
        if (answer_offered && top.s_position_tready) {
            locator.answers.pop_front();
            answer_offered = false;
        }
        const uint32_t count = (uint32_t)top.m_patch_tdata;
        if (patch_held && (!top.m_patch_tvalid || held_count != count)) unstable++;
        patch_held = top.m_patch_tvalid && !top.m_patch_tready;
        held_count = count;
        if (!top.m_patch_tvalid || !top.m_patch_tready) return;
        const uint16_t pixel = count;
        locator.patch.append((const char*)&pixel, 2);
        if (top.m_patch_tlast != (locator.patch.size() == 2 * COUNTS)) fail("tlast of m_patch is not with a patch's last count");
        if (!top.m_patch_tlast) return;
        const auto found = locator.known.find(locator.patch);
        if (found == locator.known.end()) fail("a patch came by m_patch that is not known");
        locator.next = std::max(clock + locator.latency, locator.next + locator.interval);
        locator.answers.emplace_back(locator.next, found->second);
        locator.patch.clear();
#endif
    }
    bool patch_held = false, reset_before = false;
    uint32_t held_count = 0;

    // One clock; true if a beat that is offered was taken.
    bool edge() {
        top.m_axis_tready = !out_random.chance(stalls);
        offer();
        locate();
        top.clk = 0;
        top.eval();
        const bool beat_taken = top.s_axis_tvalid && top.s_axis_tready;
        taken();
        located();
        if (top.rst && (top.s_axis_tready || top.s_axi_awready || top.s_axi_arready)) ready_in_reset++;
        if (top.s_axis_tvalid && !beat_taken && !top.rst) {
            waited++;
            throttled += in_frame;
        }
        if (!top.rst) {
            if (held && (!top.m_axis_tvalid || std::memcmp(held_data, top.m_axis_tdata.data(), 32))) unstable++;
            held = top.m_axis_tvalid && !top.m_axis_tready;
            if (held) std::memcpy(held_data, top.m_axis_tdata.data(), 32);
            if (top.m_axis_tvalid && top.m_axis_tready) {
                std::fwrite(top.m_axis_tdata.data(), 32, 1, file);
                std::fwrite(&clock, 8, 1, file);
                if (top.m_axis_tlast != ((top.m_axis_tdata[7] >> 16 & 255) == 1)) wrong_last++;
                records++;
            }
        } else held = false;
        top.clk = 1;
        top.eval();
        clock++;
        reset_before = top.rst;
#if POSITION
        if (!answer_offered) top.s_position_tvalid = 0;
#endif
#if MAPS
        if (!map_offered) top.s_map_tvalid = 0;
#endif
        return beat_taken;
    }
    void beat(const uint32_t* words, bool user, bool last) {
        while (gaps && in_random.chance(gaps)) edge();
        set(top.s_axis_tdata, words);
        top.s_axis_tuser = user;
        top.s_axis_tlast = last;
        top.s_axis_tvalid = 1;
        for (long limit = 0; !edge(); limit++)
            if (limit > 2000000) fail("a beat was never taken");
        top.s_axis_tvalid = 0;
        last_word = clock;
    }
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4 && argc != 5) fail("usage: driver script records seed [+mutant=N]");
    FILE* file = std::fopen(argv[1], "rb");
    if (!file) fail("the script cannot be read");
    std::fseek(file, 0, SEEK_END);
    std::vector<uint32_t> script(std::ftell(file) / 4);
    std::rewind(file);
    if (std::fread(script.data(), 4, script.size(), file) != script.size()) fail("the script cannot be read");
    std::fclose(file);
    file = std::fopen(argv[2], "wb");
    if (!file) fail("the records cannot be written");
    Bench bench((uint64_t)std::atoll(argv[3]), file, argc, argv);
    Vtop& top = bench.top;
    std::string answers;
    uint32_t words[PIXELS + 2];
    top.rst = 0;
    top.s_axis_tvalid = top.s_axi_awvalid = top.s_axi_wvalid = top.s_axi_arvalid = 0;
#if MAPS
    top.s_map_tvalid = 0;
#endif
#if POSITION
    top.s_position_tvalid = top.s_position_tuser = 0;
#endif
    top.s_axi_bready = top.s_axi_rready = 1;
    const auto answer = [&](uint32_t value, uint32_t response) {
        answers += (answers.empty() ? "[" : ", [") + std::to_string(value) + ", " + std::to_string(response) + "]";
    };
    std::size_t at = 0;
    const auto word = [&] {
        if (at >= script.size()) fail("the script ends too early");
        return script[at++];
    };
    while (at < script.size()) {
        switch (word()) {
            case 0:
                for (uint32_t n = word(); n; n--) bench.edge();
                break;
            case 1: {
                top.s_axi_awaddr = word();
                top.s_axi_wdata = word();
                top.s_axi_wstrb = 15;
                top.s_axi_awvalid = top.s_axi_wvalid = 1;
                for (bool done = false; !done;) {
                    top.eval();
                    done = top.s_axi_awready && top.s_axi_wready;
                    bench.edge();
                }
                top.s_axi_awvalid = top.s_axi_wvalid = 0;
                while (!top.s_axi_bvalid) bench.edge();
                answer(0, top.s_axi_bresp);
                bench.edge();
                break;
            }
            case 2: {
                top.s_axi_araddr = word();
                top.s_axi_arvalid = 1;
                for (bool done = false; !done;) {
                    top.eval();
                    done = top.s_axi_arready;
                    bench.edge();
                }
                top.s_axi_arvalid = 0;
                while (!top.s_axi_rvalid) bench.edge();
                answer(top.s_axi_rdata, top.s_axi_rresp);
                bench.edge();
                break;
            }
            case 3:
                top.rst = 1;
                top.s_axis_tvalid = 1;  // offered, and never taken
#if MAPS
                if (!bench.map_beats) {  // a source without maps gives up in the reset what it offered
                    top.s_map_tvalid = bench.map_offered = false;
                    bench.map_at = 0;
                }
#endif
                for (uint32_t n = word(); n; n--) bench.edge();
                top.s_axis_tvalid = 0;
                top.rst = 0;
                bench.in_frame = false;
                break;
            case 4:
                bench.gaps = word();
                bench.stalls = word();
                break;
            case 5:
                for (uint32_t n = word(); n; n--) {
                    const uint32_t flags = word();
                    pack((const uint16_t*)&script[at], words, PIXELS);
                    at += (PIXELS + 1) / 2;
                    bench.beat(words, flags & 1, flags >> 1 & 1);
                }
                break;
            case 6: {
                const uint32_t rows = word(), cols = word();
                const uint16_t* counts = (const uint16_t*)&script[at];
                at += ((uint64_t)rows * cols + 1) / 2;
                for (uint32_t r = 0; r < rows; r++)
                    for (uint32_t c = 0; c < cols; c += PIXELS, counts += PIXELS) {
                        pack(counts, words, PIXELS);
                        bench.beat(words, r == 0 && c == 0, c + PIXELS == cols);
                        // One beat waits inside from the first clock on; from the second one on a wait is the frame's own.
                        bench.in_frame = r > 0 || c > 0;
                    }
                bench.in_frame = false;
                break;
            }
            case 7: {
                const uint32_t n = word();
                for (uint32_t limit = word(); limit && bench.records < n; limit--) bench.edge();
                break;
            }
            case 8:
                bench.map_beats = word();
                bench.maps = &script[at];
                bench.map_at = bench.map_offered ? SIZE_MAX : 0;  // a beat that is offered stays, and is none of these
                at += bench.map_beats * (1 + (MAPS * PIXELS + 1) / 2);
                break;
#if POSITION
            case 9:
                for (uint32_t n = word(); n; n--) {
                    const std::string patch((const char*)&script[at], 2 * COUNTS);
                    at += (COUNTS + 1) / 2;
                    bench.locator.known[patch] = &script[at];
                    at += POSITION_WORDS + 1;
                }
                break;
            case 10:
                bench.locator.latency = word();
                bench.locator.interval = word();
                bench.locator.stalls = word();
                break;
#endif
            default:
                fail("the script has an operation that is unknown");
        }
    }
    std::fclose(file);
    std::printf(
        "{\"clocks\": %llu, \"records\": %llu, \"waited\": %llu, \"throttled\": %llu, \"unstable\": %llu, \"wrong_last\": %llu, "
        "\"ready_in_reset\": %llu, \"last_word\": %llu, \"seconds\": %.3f, \"answers\": [%s]}\n",
        (unsigned long long)bench.clock, (unsigned long long)bench.records, (unsigned long long)bench.waited,
        (unsigned long long)bench.throttled, (unsigned long long)bench.unstable, (unsigned long long)bench.wrong_last,
        (unsigned long long)bench.ready_in_reset, (unsigned long long)bench.last_word,
        (double)std::clock() / CLOCKS_PER_SEC, answers.c_str());
    return 0;
}
