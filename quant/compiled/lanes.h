// Vectors of 32-bit lanes, as wide as the registers that multiply pairs of 16 bits: one patch a lane, and in it one code,
// two of 16 bits or four of 8.

#pragma once

#include <cstdint>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512BW__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / 4;
// Vectors of patches and outputs that are computed together, by measurement (3, 4 and 1, 8 too, with 16 and 32 registers).
constexpr int kGroups = 2, kBlock = 4;
constexpr int kPatches = kGroups * kLanes;

typedef std::int32_t I __attribute__((vector_size(kBytes)));
typedef std::uint32_t U __attribute__((vector_size(kBytes)));
// As many lanes of 64 bits, taken apart by the compiler.
typedef std::int64_t L __attribute__((vector_size(2 * kBytes)));
typedef double D __attribute__((vector_size(2 * kBytes)));

inline I splat(std::int32_t x) { return x - I{}; }
template <typename V> inline V larger(V a, V b) { return a > b ? a : b; }
template <typename V> inline V smaller(V a, V b) { return a < b ? a : b; }
inline int bit_length(std::uint64_t x) { return x ? 64 - __builtin_clzll(x) : 0; }
inline std::int64_t shifted(std::int64_t x, std::int64_t by) { return by < 0 ? x << -by : x >> by; }

inline I pair(I low, I high) { return (low & 0xffff) | (high << 16); }
inline I low_half(I x) { return (x << 16) >> 16; }
inline I high_half(I x) { return x >> 16; }
// Four codes of 0 to 255 in a lane, and the signed weight of each.
inline I quad(I a, I b, I c, I d) { return a | (b << 8) | (c << 16) | (d << 24); }
inline I byte_of(I x, int i) { return (x >> (8 * i)) & 255; }
inline I signed_byte_of(I x, int i) { return (x << (24 - 8 * i)) >> 24; }

// sum + low halves' product + high halves' product, lane by lane: what GCC does not find in vectors by itself.
inline I add_pairs(I sum, I x, I w) {
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
    return (I)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__AVX512BW__)
    return sum + (I)_mm512_madd_epi16((__m512i)x, (__m512i)w);
#elif defined(__AVX2__)
    return sum + (I)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#elif defined(__SSE2__)
    return sum + (I)_mm_madd_epi16((__m128i)x, (__m128i)w);
#else
    return sum + low_half(x) * low_half(w) + high_half(x) * high_half(w);
#endif
}

// Whether four products of 8 bits are one instruction that does not saturate in between.
#if defined(__AVX512BW__) && defined(__AVX512VNNI__) || defined(__AVX2__) && defined(__AVXVNNI__)
constexpr bool kQuads = true;
#else
constexpr bool kQuads = false;
#endif

// sum + the products of four codes and four weights, lane by lane.
inline I add_quads(I sum, I x, I w) {
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
    return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__AVX2__) && !defined(__AVX512BW__) && defined(__AVXVNNI__)
    return (I)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
#else
    for (int i = 0; i < 4; ++i) sum += byte_of(x, i) * signed_byte_of(w, i);
    return sum;
#endif
}

// table[index], lane by lane.
inline I looked_up(const std::int32_t* table, I index) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
    return (I)_mm512_i32gather_epi32((__m512i)index, table, 4);
#elif defined(__AVX2__)
    return (I)_mm256_i32gather_epi32(table, (__m256i)index, 4);
#else
    for (int lane = 0; lane < kLanes; ++lane) index[lane] = table[index[lane]];
    return index;
#endif
}

}  // namespace
