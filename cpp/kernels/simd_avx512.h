// AVX-512 F, BW, DQ, VL; with VNNI the integer dots are one instruction.
// OCTAVO_EMULATE_AVX512 compiles the same source for tests on machines without AVX-512.
#pragma once

#ifdef OCTAVO_EMULATE_AVX512
#include "kernels/avx512_emulation.h"
#else
#include <immintrin.h>
#endif

#include <cstdint>

namespace octavo {
namespace {

constexpr int kLanes = 16;
using Vf = __m512;
using Vi = __m512i;

inline Vf load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vf v) { _mm512_storeu_ps(p, v); }
inline Vf set1(float x) { return _mm512_set1_ps(x); }
inline Vf zero() { return _mm512_setzero_ps(); }
inline Vf add(Vf a, Vf b) { return _mm512_add_ps(a, b); }
inline Vf sub(Vf a, Vf b) { return _mm512_sub_ps(a, b); }
inline Vf mul(Vf a, Vf b) { return _mm512_mul_ps(a, b); }
inline Vf div(Vf a, Vf b) { return _mm512_div_ps(a, b); }
inline Vf max(Vf a, Vf b) { return _mm512_max_ps(a, b); }
inline Vf min(Vf a, Vf b) { return _mm512_min_ps(a, b); }
inline Vf fma(Vf a, Vf b, Vf c) { return _mm512_fmadd_ps(a, b, c); }
inline Vf abs(Vf v) { return _mm512_abs_ps(v); }

inline Vi iota() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
inline Vi set1i(int x) { return _mm512_set1_epi32(x); }
inline Vi addi(Vi a, Vi b) { return _mm512_add_epi32(a, b); }
inline Vi subi(Vi a, Vi b) { return _mm512_sub_epi32(a, b); }
template <int kBits>
inline Vi shift_left(Vi v) {
  return _mm512_slli_epi32(v, kBits);
}
template <int kBits>
inline Vi shift_right(Vi v) {
  return _mm512_srli_epi32(v, kBits);
}
template <int kBits>
inline Vi shift_right_signed(Vi v) {
  return _mm512_srai_epi32(v, kBits);
}
inline Vi mul_ints(Vi a, Vi b) { return _mm512_mullo_epi32(a, b); }
inline Vi xor_bits(Vi a, Vi b) { return _mm512_xor_si512(a, b); }
inline Vi and_bits(Vi a, Vi b) { return _mm512_and_si512(a, b); }
inline Vi or_bits(Vi a, Vi b) { return _mm512_or_si512(a, b); }
inline Vi bits_of(Vf v) { return _mm512_castps_si512(v); }
inline Vf floats_of(Vi v) { return _mm512_castsi512_ps(v); }
inline Vi loadi(const void* p) { return _mm512_loadu_si512(p); }
inline void storei(void* p, Vi v) { _mm512_storeu_si512(p, v); }
// The low halves, the low bytes of the lanes.
inline void store_halves(uint16_t* p, Vi v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
}
inline void store_bytes(int8_t* p, Vi v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v)); }
inline Vi round_to_int(Vf v) { return _mm512_cvtps_epi32(v); }
inline Vf to_float(Vi v) { return _mm512_cvtepi32_ps(v); }
inline Vf pow2(Vi n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, set1i(127)), 23)); }

// Lane-wise a < b ? x : y; a NaN compares false.
inline Vf select_less(Vf a, Vf b, Vf x, Vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
inline Vi select_less(Vf a, Vf b, Vi x, Vi y) {
  return _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

inline bool any_less(Vf a, Vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ) != 0; }

inline __mmask16 part_mask(int n) { return static_cast<__mmask16>((1u << n) - 1); }
// The first n lanes (n < 16); the others are zero.
inline Vf load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(part_mask(n), p); }
inline void store_part(float* p, Vf v, int n) { _mm512_mask_storeu_ps(p, part_mask(n), v); }

inline float reduce_add(Vf v) {
  const __m256 octets = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 quads = _mm_add_ps(_mm256_castps256_ps128(octets), _mm256_extractf128_ps(octets, 1));
  const __m128 pairs = _mm_add_ps(quads, _mm_movehl_ps(quads, quads));
  return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)));
}
inline float reduce_max(Vf v) {
  const __m256 octets = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 quads = _mm_max_ps(_mm256_castps256_ps128(octets), _mm256_extractf128_ps(octets, 1));
  const __m128 pairs = _mm_max_ps(quads, _mm_movehl_ps(quads, quads));
  return _mm_cvtss_f32(_mm_max_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)));
}

// reduce(v[r]) for up to 8 vectors at once, by the same tree as for one: 256-bit halves, 128-bit halves, and so on.
// out: 16 floats, so that whole vectors that are loaded from it need not wait for a partial one to reach the cache.
template <int kRows, class Op>
inline void reduce_each(float* out, const Vf (&v)[kRows], Op op) {
  const auto row = [&](int r) { return v[r < kRows ? r : kRows - 1]; };
  const auto octets = [&](Vf a, Vf b) {
    return op(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  };
  const auto quads = [&](Vf ab, Vf cd) {
    return op(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  };
  const Vf first = quads(octets(row(0), row(1)), kRows > 2 ? octets(row(2), row(3)) : octets(row(0), row(1)));
  Vf second = first;
  if constexpr (kRows > 4) second = quads(octets(row(4), row(5)), octets(row(6), row(7)));
  const __m512d low = _mm512_castps_pd(first), high = _mm512_castps_pd(second);
  const Vf pairs = op(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)), _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
  const Vf sums = op(pairs, _mm512_permute_ps(pairs, 0xb1));
  // Row r < 4 is at lane 4 r, row 4 + r at lane 4 r + 2.
  const Vi order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  store(out, _mm512_permutexvar_ps(order, sums));
}
template <int kRows>
inline void reduce_add_each(float* out, const Vf (&v)[kRows]) {
  reduce_each<kRows>(out, v, [](Vf a, Vf b) { return add(a, b); });
}
template <int kRows>
inline void reduce_max_each(float* out, const Vf (&v)[kRows]) {
  reduce_each<kRows>(out, v, [](Vf a, Vf b) { return max(a, b); });
}

// kLanes pairs of bfloat16 (even, odd) as floats.
inline void load_bf16_pairs(const uint16_t* p, Vf& even, Vf& odd) {
  const __m512i v = _mm512_loadu_si512(p);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(v, set1i(static_cast<int>(0xffff0000))));
}

inline Vf load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Bytes: one plane line of kLanes rows.
inline Vi load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline Vi low_nibbles(Vi v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline Vi high_nibbles(Vi v) { return low_nibbles(_mm512_srli_epi16(v, 4)); }

// (v >> shift) & mask byte by byte, where no bit of the mask comes from another byte.
inline Vi shifted_bits(Vi v, int shift, int mask) {
  const auto by = static_cast<unsigned>(shift);
  return _mm512_and_si512(_mm512_srli_epi16(v, by), _mm512_set1_epi8(static_cast<char>(mask)));
}

// table[i] of each byte i below 16.
inline Vi look_up(const uint8_t* table, Vi indices) {
  const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), indices);
}
inline Vf load_bf16(const uint16_t* p) {
  const __m512i v = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

// Two bytes of each of kLanes rows as int16.
inline Vi load_u8_pairs(const uint8_t* p) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vi load_s8_pairs(const uint8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// acc + a[0] * b[0] + a[1] * b[1]
#ifdef OCTAVO_SIMD_VNNI
inline Vi dot_pairs(Vi acc, Vi a, Vi b) { return _mm512_dpwssd_epi32(acc, a, b); }
#else
inline Vi dot_pairs(Vi acc, Vi a, Vi b) { return addi(acc, _mm512_madd_epi16(a, b)); }
#endif

// 16 where bit i of the kLanes * 4 bits at p is set, else 0, for byte i.
inline Vi load_fifth_bits(const void* p) {
  uint64_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return _mm512_maskz_mov_epi8(bits, _mm512_set1_epi8(16));
}

// A vector from pieces of 16 bytes: at(i) points to one.
template <class At>
inline Vi load_sixteens(At at) {
  const auto piece = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at(i))); };
  const Vi half = _mm512_inserti32x4(_mm512_castsi128_si512(piece(0)), piece(1), 1);
  return _mm512_inserti32x4(_mm512_inserti32x4(half, piece(2), 2), piece(3), 3);
}
// By lanes of 128 bits: four rows of dwords become their columns.
inline void turn_over_fours(Vi (&rows)[4]) {
  const Vi low01 = _mm512_unpacklo_epi32(rows[0], rows[1]), low23 = _mm512_unpacklo_epi32(rows[2], rows[3]);
  const Vi high01 = _mm512_unpackhi_epi32(rows[0], rows[1]), high23 = _mm512_unpackhi_epi32(rows[2], rows[3]);
  rows[0] = _mm512_unpacklo_epi64(low01, low23);
  rows[1] = _mm512_unpackhi_epi64(low01, low23);
  rows[2] = _mm512_unpacklo_epi64(high01, high23);
  rows[3] = _mm512_unpackhi_epi64(high01, high23);
}

// A vector of bytes from pieces of eight and of four: at(i).
template <class At>
inline Vi load_eights(At at) {
  const auto word = [&](int i) { return static_cast<long long>(at(i)); };
  return _mm512_set_epi64(word(7), word(6), word(5), word(4), word(3), word(2), word(1), word(0));
}
template <class At>
inline Vi load_fours(At at) {
  const auto half = [&](int i) {
    return _mm256_set_epi32(at(i + 7), at(i + 6), at(i + 5), at(i + 4), at(i + 3), at(i + 2), at(i + 1), at(i));
  };
  return _mm512_inserti64x4(_mm512_castsi256_si512(half(0)), half(8), 1);  // of all 16 at once GCC makes a detour
}

// By lanes of 128 bits: the sums of four rows.
inline Vf sums_of_four(const Vi* rows) {
  const auto pairs = [](Vi a, Vi b) { return addi(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); };
  const Vi a = pairs(rows[0], rows[1]), b = pairs(rows[2], rows[3]);
  return _mm512_castsi512_ps(addi(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)));
}

// Lane l: the sum over the lanes of rows[l].
inline Vi sums_of_rows(const Vi* rows) {
  const auto halves = [](Vf a, Vf b) {
    const Vi sum = addi(bits_of(_mm512_shuffle_f32x4(a, b, 0x44)), bits_of(_mm512_shuffle_f32x4(a, b, 0xee)));
    return _mm512_castsi512_ps(sum);
  };
  const Vf low = halves(sums_of_four(rows), sums_of_four(rows + 4)),
           high = halves(sums_of_four(rows + 8), sums_of_four(rows + 12));
  return addi(bits_of(_mm512_shuffle_f32x4(low, high, 0x88)), bits_of(_mm512_shuffle_f32x4(low, high, 0xdd)));
}

// The same of vectors whose halves belong to two rows each.
inline Vi sums_of_row_pairs(const Vi* pairs) {
  const Vf first = sums_of_four(pairs), second = sums_of_four(pairs + 4);
  const Vi sums = addi(bits_of(_mm512_shuffle_f32x4(first, second, 0x88)),
                       bits_of(_mm512_shuffle_f32x4(first, second, 0xdd)));  // of rows 0 2 4 6, 1 3 5 7, ...
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15), sums);
}

using SignBits = uint64_t;
inline Vi negative_bytes(Vi v) { return _mm512_sub_epi8(_mm512_setzero_si512(), v); }
inline Vi negated_where(SignBits bits, Vi v) { return _mm512_mask_sub_epi8(v, bits, _mm512_setzero_si512(), v); }
inline Vi negative_where(SignBits bits, Vi bytes, Vi negative) { return _mm512_mask_blend_epi8(bits, bytes, negative); }
// Unsigned bytes times signed ones, added in pairs: words, which products of bytes up to 127 do not fill.
inline Vi dot_byte_pairs(Vi a, Vi b) { return _mm512_maddubs_epi16(a, b); }
inline Vi add_bytes(Vi a, Vi b) { return _mm512_add_epi8(a, b); }
// For each eight bytes 1 where its bit is not set, -1 where it is.
inline Vi ones_of_eights(uint32_t minus) {
  return _mm512_mask_blend_epi64(static_cast<__mmask8>(minus), _mm512_set1_epi8(1), _mm512_set1_epi8(-1));
}
// Sixteen products of words, added up anyhow over the lanes.
inline Vi dot_sixteen(__m256i a, __m256i b) {
  return _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_madd_epi16(a, b), 0);
}
// Factors of 16 weights each, signed bytes, as words: those of vector p.
class FactorLanes {
 public:
  explicit FactorLanes(__m128i factors) : each_(_mm512_castsi256_si512(_mm256_cvtepi8_epi16(factors))) {}
  Vi of(int p) const {
    constexpr int kOnes = 0x10001;
    const Vi quarter = mul_ints(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), set1i(kOnes));
    return _mm512_permutexvar_epi16(addi(quarter, set1i(4 * p * kOnes)), each_);
  }

 private:
  Vi each_;
};

#ifdef OCTAVO_SIMD_VNNI
using Partial = Vi;
inline Partial dot_partial(Partial acc, Vi weights, Vi act) { return _mm512_dpbusd_epi32(acc, weights, act); }
inline Vi dot_finish(Partial acc) { return acc; }

// How many accumulations of weights up to kMaxWeight a partial sum holds.
template <int kMaxWeight>
constexpr int kPartialDots = 64;

// The first or the second of each pair of int16, for dot_scaled.
inline Vi first_scales(Vi pairs) { return _mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16); }
inline Vi second_scales(Vi pairs) { return _mm512_srai_epi32(pairs, 16); }
inline Vi dot_scaled(Vi acc, Partial partial, Vi scales) { return addi(acc, _mm512_mullo_epi32(partial, scales)); }

// Signed weights are biased by 128 to unsigned, as some are from the start; sums start at -128 * sum(act).
using SignedWeights = Vi;
constexpr int kSignedBias = 128;
inline SignedWeights prepare_signed(Vi w) { return _mm512_xor_si512(w, _mm512_set1_epi8(static_cast<char>(0x80))); }
inline SignedWeights signed_of_biased(Vi w) { return w; }
inline Vi dot_signed(Vi acc, SignedWeights w, Vi act) { return _mm512_dpbusd_epi32(acc, w, act); }

// acc + unsigned activations * signed weights.
inline Vi dot_unsigned_act(Vi acc, Vi act, Vi weights) { return _mm512_dpbusd_epi32(acc, act, weights); }
// bytes * factors, where the products are bytes; a factor to a lane.
inline Vi mul_bytes(Vi bytes, Vi factors) {
  const Vi both = _mm512_or_si512(_mm512_and_si512(factors, set1i(0xffff)), _mm512_slli_epi32(factors, 16));
  const Vi even = _mm512_mullo_epi16(bytes, both);  // its low byte is that of the product of low bytes
  const Vi odd = _mm512_mullo_epi16(_mm512_srli_epi16(bytes, 8), both);
  return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, even, _mm512_slli_epi16(odd, 8));
}
inline Vi sub_bytes(Vi v, int x) { return _mm512_sub_epi8(v, _mm512_set1_epi8(static_cast<char>(x))); }
#else
// int16 partial sums hold four (weights below 32) or eight (below 16) accumulations without overflow.
using Partial = Vi;

// The sum exists now. Left alone, GCC first makes all products of a group, spilling them, and adds at the end.
inline Vi settled(Vi sum) {
#ifndef OCTAVO_EMULATE_AVX512
  __asm__("" : "+v"(sum));
#endif
  return sum;
}

inline Partial dot_partial(Partial acc, Vi weights, Vi act) {
  return settled(_mm512_add_epi16(acc, _mm512_maddubs_epi16(weights, act)));
}
inline Vi dot_finish(Partial acc) { return _mm512_madd_epi16(acc, _mm512_set1_epi16(1)); }

// How many accumulations of weights up to kMaxWeight a partial sum holds.
template <int kMaxWeight>
constexpr int kPartialDots = 32767 / (2 * 127 * kMaxWeight);

// The first or the second of each pair of int16, for dot_scaled.
inline Vi first_scales(Vi pairs) {
  const Vi alone = _mm512_and_si512(pairs, set1i(0xffff));
  return _mm512_or_si512(alone, _mm512_slli_epi32(alone, 16));
}
inline Vi second_scales(Vi pairs) {
  const Vi alone = _mm512_srli_epi32(pairs, 16);
  return _mm512_or_si512(alone, _mm512_slli_epi32(alone, 16));
}
inline Vi dot_scaled(Vi acc, Partial partial, Vi scales) {
  return settled(addi(acc, _mm512_madd_epi16(partial, scales)));
}

// Signed weights: |w| times act carrying w's sign; 2 * 128 * 127 fits int16.
struct SignedWeights {
  Vi magnitude;
  __mmask64 negative;
};
constexpr int kSignedBias = 0;
inline SignedWeights prepare_signed(Vi w) { return {_mm512_abs_epi8(w), _mm512_movepi8_mask(w)}; }
inline SignedWeights signed_of_biased(Vi w) {
  return prepare_signed(_mm512_xor_si512(w, _mm512_set1_epi8(static_cast<char>(0x80))));
}
inline Vi dot_signed(Vi acc, SignedWeights w, Vi act) {
  const Vi signed_act = _mm512_mask_sub_epi8(act, w.negative, _mm512_setzero_si512(), act);
  return addi(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w.magnitude, signed_act), _mm512_set1_epi16(1)));
}

#endif

#ifdef OCTAVO_SIMD_BF16
// acc + even * even + odd * odd over kLanes pairs of bfloat16 (vdpbf16ps).
inline Vf dot_bf16(Vf acc, Vi weights, const void* act_pair) {
  int32_t pair;
  __builtin_memcpy(&pair, act_pair, sizeof(pair));
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(weights), reinterpret_cast<__m512bh>(set1i(pair)));
}

// To nearest even in one instruction; subnormals become zero, as which vdpbf16ps would read them.
inline void convert_bf16(uint16_t* p, Vf v) {
  const auto rounded = _mm512_cvtneps_pbh(v);
  __builtin_memcpy(p, &rounded, sizeof(rounded));
}
#endif

}  // namespace
}  // namespace octavo
