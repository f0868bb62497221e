// The x86-64 baseline: SSE2, no fused multiply-add (fma rounds twice here).
#pragma once

#include <emmintrin.h>

#include <cstdint>

namespace octavo {
namespace {

constexpr int kLanes = 4;
using Vf = __m128;
using Vi = __m128i;

inline Vf load(const float* p) { return _mm_loadu_ps(p); }
inline void store(float* p, Vf v) { _mm_storeu_ps(p, v); }
inline Vf set1(float x) { return _mm_set1_ps(x); }
inline Vf zero() { return _mm_setzero_ps(); }
inline Vf add(Vf a, Vf b) { return _mm_add_ps(a, b); }
inline Vf sub(Vf a, Vf b) { return _mm_sub_ps(a, b); }
inline Vf mul(Vf a, Vf b) { return _mm_mul_ps(a, b); }
inline Vf div(Vf a, Vf b) { return _mm_div_ps(a, b); }
inline Vf max(Vf a, Vf b) { return _mm_max_ps(a, b); }
inline Vf min(Vf a, Vf b) { return _mm_min_ps(a, b); }
inline Vf fma(Vf a, Vf b, Vf c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
inline Vf abs(Vf v) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), v); }

inline Vi iota() { return _mm_setr_epi32(0, 1, 2, 3); }
inline Vi set1i(int x) { return _mm_set1_epi32(x); }
inline Vi addi(Vi a, Vi b) { return _mm_add_epi32(a, b); }
template <int kBits>
inline Vi shift_left(Vi v) {
  return _mm_slli_epi32(v, kBits);
}
template <int kBits>
inline Vi shift_right(Vi v) {
  return _mm_srli_epi32(v, kBits);
}
template <int kBits>
inline Vi shift_right_signed(Vi v) {
  return _mm_srai_epi32(v, kBits);
}
inline Vi and_bits(Vi a, Vi b) { return _mm_and_si128(a, b); }
inline Vi or_bits(Vi a, Vi b) { return _mm_or_si128(a, b); }
inline Vi bits_of(Vf v) { return _mm_castps_si128(v); }
inline Vf floats_of(Vi v) { return _mm_castsi128_ps(v); }
inline Vi loadi(const void* p) { return _mm_loadu_si128(static_cast<const Vi*>(p)); }
inline void storei(void* p, Vi v) { _mm_storeu_si128(static_cast<Vi*>(p), v); }
template <class At>
inline Vi load_sixteens(At at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at(0)));
}
// Four rows of dwords become their columns.
inline void turn_over_fours(Vi (&rows)[4]) {
  const Vi low01 = _mm_unpacklo_epi32(rows[0], rows[1]), low23 = _mm_unpacklo_epi32(rows[2], rows[3]);
  const Vi high01 = _mm_unpackhi_epi32(rows[0], rows[1]), high23 = _mm_unpackhi_epi32(rows[2], rows[3]);
  rows[0] = _mm_unpacklo_epi64(low01, low23);
  rows[1] = _mm_unpackhi_epi64(low01, low23);
  rows[2] = _mm_unpacklo_epi64(high01, high23);
  rows[3] = _mm_unpackhi_epi64(high01, high23);
}
inline Vi dot_pairs(Vi acc, Vi a, Vi b) { return addi(acc, _mm_madd_epi16(a, b)); }
// The low halves, the low bytes of the lanes.
inline __m128i low_halves(Vi v) {
  const Vi lanes = _mm_srai_epi32(_mm_slli_epi32(v, 16), 16);
  return _mm_packs_epi32(lanes, lanes);
}
inline void store_halves(uint16_t* p, Vi v) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), low_halves(v)); }
inline void store_bytes(int8_t* p, Vi v) {
  const __m128i halves = _mm_and_si128(low_halves(v), _mm_set1_epi16(255));
  const int quad = _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves));
  __builtin_memcpy(p, &quad, sizeof(quad));
}
inline Vi round_to_int(Vf v) { return _mm_cvtps_epi32(v); }
inline Vf to_float(Vi v) { return _mm_cvtepi32_ps(v); }
inline Vf pow2(Vi n) { return _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(n, _mm_set1_epi32(127)), 23)); }

// Lane-wise a < b ? x : y; a NaN compares false.
inline Vf select_less(Vf a, Vf b, Vf x, Vf y) {
  const __m128 mask = _mm_cmplt_ps(a, b);
  return _mm_or_ps(_mm_and_ps(mask, x), _mm_andnot_ps(mask, y));
}
inline Vi select_less(Vf a, Vf b, Vi x, Vi y) {
  const __m128i mask = _mm_castps_si128(_mm_cmplt_ps(a, b));
  return _mm_or_si128(_mm_and_si128(mask, x), _mm_andnot_si128(mask, y));
}
inline bool any_less(Vf a, Vf b) { return _mm_movemask_ps(_mm_cmplt_ps(a, b)) != 0; }

// The first n lanes; the others are zero.
inline Vf load_part(const float* p, int n) {
  alignas(16) float lanes[4] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return _mm_load_ps(lanes);
}
inline void store_part(float* p, Vf v, int n) {
  alignas(16) float lanes[4];
  _mm_store_ps(lanes, v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

inline float reduce_add(Vf v) {
  const __m128 pairs = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)));
}
inline float reduce_max(Vf v) {
  const __m128 pairs = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)));
}

// kLanes pairs of bfloat16 (even, odd) as floats.
inline void load_bf16_pairs(const uint16_t* p, Vf& even, Vf& odd) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  even = _mm_castsi128_ps(_mm_slli_epi32(v, 16));
  odd = _mm_castsi128_ps(_mm_and_si128(v, _mm_set1_epi32(static_cast<int>(0xffff0000))));
}

// kLanes binary16 values as floats: the exponent is rebased by a multiplication, which is exact.
inline Vf load_f16(const uint16_t* p) {
  const __m128i h = _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
  const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x8000)), 16);
  const __m128i magnitude = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x7fff)), 13);
  const __m128 finite = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0x1p112f));
  const __m128i special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x0f7fffff));  // infinity or NaN
  const __m128i all_ones = _mm_and_si128(special, _mm_set1_epi32(0x7f800000));
  return _mm_or_ps(_mm_castsi128_ps(_mm_or_si128(sign, all_ones)), finite);
}

}  // namespace
}  // namespace octavo
