// AVX-512 on AVX2 by SIMDe, for tests on machines without AVX-512. What SIMDe 0.7.4 lacks, or does otherwise than
// the instruction, is written here over two halves of eight lanes.
#pragma once

#ifndef SIMDE_ENABLE_NATIVE_ALIASES
#define SIMDE_ENABLE_NATIVE_ALIASES
#endif
#include <simde/x86/avx512.h>

#include <cstdint>

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__) || defined(__AVX512F__)
#error "The emulation of AVX-512 is compiled for AVX2 with FMA and F16C"
#endif

namespace octavo {
namespace {
namespace emulated {

using Mask = simde__mmask16;
using Floats = simde__m512;
using Ints = simde__m512i;
using FloatHalves = simde__m512_private;
using IntHalves = simde__m512i_private;

// Eight mask bits as lanes of all ones or zero.
inline __m256i mask_lanes(uint32_t mask) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bits), bits);
}

// SIMDe leaves -0 as it is.
inline Floats abs_ps(Floats v) {
  FloatHalves out = simde__m512_to_private(v);
  for (__m256& half : out.m256) half = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), half);
  return simde__m512_from_private(out);
}

template <int kOrder>
inline Floats permute_ps(Floats v) {
  FloatHalves out = simde__m512_to_private(v);
  for (__m256& half : out.m256) half = _mm256_permute_ps(half, kOrder);
  return simde__m512_from_private(out);
}

inline Ints cvtps_epi32(Floats v) {
  const FloatHalves in = simde__m512_to_private(v);
  IntHalves out;
  for (int i = 0; i < 2; ++i) out.m256i[i] = _mm256_cvtps_epi32(in.m256[i]);
  return simde__m512i_from_private(out);
}

inline Floats cvtepi32_ps(Ints v) {
  const IntHalves in = simde__m512i_to_private(v);
  FloatHalves out;
  for (int i = 0; i < 2; ++i) out.m256[i] = _mm256_cvtepi32_ps(in.m256i[i]);
  return simde__m512_from_private(out);
}

inline Ints cvtepi16_epi32(__m256i v) {
  IntHalves out;
  out.m256i[0] = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v));
  out.m256i[1] = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1));
  return simde__m512i_from_private(out);
}

inline Ints cvtepi8_epi32(__m128i v) {
  IntHalves out;
  out.m256i[0] = _mm256_cvtepi8_epi32(v);
  out.m256i[1] = _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8));
  return simde__m512i_from_private(out);
}

inline Floats cvtph_ps(__m256i v) {
  FloatHalves out;
  out.m256[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(v));
  out.m256[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1));
  return simde__m512_from_private(out);
}

// Lanes whose bit is not set are zero, and their memory is not touched.
inline Floats maskz_loadu_ps(Mask mask, const void* p) {
  FloatHalves out;
  for (int i = 0; i < 2; ++i)
    out.m256[i] = _mm256_maskload_ps(static_cast<const float*>(p) + 8 * i, mask_lanes(mask >> (8 * i)));
  return simde__m512_from_private(out);
}

inline void mask_storeu_ps(void* p, Mask mask, Floats v) {
  const FloatHalves in = simde__m512_to_private(v);
  for (int i = 0; i < 2; ++i)
    _mm256_maskstore_ps(static_cast<float*>(p) + 8 * i, mask_lanes(mask >> (8 * i)), in.m256[i]);
}

inline __m256 extractf32x8_ps(Floats v, int half) { return simde__m512_to_private(v).m256[half]; }

inline Ints cvtepu8_epi16(__m256i v) {
  IntHalves out;
  out.m256i[0] = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(v));
  out.m256i[1] = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(v, 1));
  return simde__m512i_from_private(out);
}

inline Ints srai_epi32(Ints v, int count) {
  IntHalves out = simde__m512i_to_private(v);
  for (__m256i& half : out.m256i) half = _mm256_srai_epi32(half, count);
  return simde__m512i_from_private(out);
}

// Four products of u8 and s8 per lane, exact; only the sum with src may wrap.
inline __m256i dpbusd_half(__m256i src, __m256i a, __m256i b) {
  const __m256i a_even = _mm256_and_si256(a, _mm256_set1_epi16(255)), a_odd = _mm256_srli_epi16(a, 8);
  const __m256i b_even = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), b_odd = _mm256_srai_epi16(b, 8);
  return _mm256_add_epi32(src, _mm256_add_epi32(_mm256_madd_epi16(a_even, b_even), _mm256_madd_epi16(a_odd, b_odd)));
}

inline Ints dpbusd_epi32(Ints src, Ints a, Ints b) {
  const IntHalves s = simde__m512i_to_private(src), x = simde__m512i_to_private(a), y = simde__m512i_to_private(b);
  IntHalves out;
  for (int i = 0; i < 2; ++i) out.m256i[i] = dpbusd_half(s.m256i[i], x.m256i[i], y.m256i[i]);
  return simde__m512i_from_private(out);
}

// Byte i: eight bits of its quadword of b from bit a[i] on, around the end.
inline Ints multishift_epi64_epi8(Ints a, Ints b) {
  uint8_t shifts[64], out[64];
  uint64_t words[8];
  __builtin_memcpy(shifts, &a, sizeof(shifts));
  __builtin_memcpy(words, &b, sizeof(words));
  for (int i = 0; i < 64; ++i) {
    const int shift = shifts[i] & 63;
    const uint64_t word = words[i / 8];
    out[i] = static_cast<uint8_t>(shift == 0 ? word : word >> shift | word << (64 - shift));
  }
  Ints result;
  __builtin_memcpy(&result, out, sizeof(result));
  return result;
}

// Subnormal lanes become zero of the same sign.
inline __m256 flush(__m256 v) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 tiny = _mm256_cmp_ps(_mm256_andnot_ps(sign, v), _mm256_set1_ps(0x1p-126f), _CMP_LT_OQ);
  return _mm256_blendv_ps(v, _mm256_and_ps(v, sign), tiny);
}

inline __m256 even_bf16(__m256i v) { return flush(_mm256_castsi256_ps(_mm256_slli_epi32(v, 16))); }
inline __m256 odd_bf16(__m256i v) {
  return flush(_mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000)))));
}

// vdpbf16ps: two fused multiply-adds, the odd pair first; subnormals count as zero on the way in and out.
// SIMDe adds the even pair first, rounds the products' sum apart, and keeps subnormals.
inline Floats dpbf16_ps(Floats src, simde__m512bh a, simde__m512bh b) {
  const FloatHalves s = simde__m512_to_private(src);
  IntHalves x, y;
  __builtin_memcpy(&x, &a, sizeof(x));
  __builtin_memcpy(&y, &b, sizeof(y));
  FloatHalves out;
  for (int i = 0; i < 2; ++i) {
    const __m256 odd = flush(_mm256_fmadd_ps(odd_bf16(x.m256i[i]), odd_bf16(y.m256i[i]), flush(s.m256[i])));
    out.m256[i] = flush(_mm256_fmadd_ps(even_bf16(x.m256i[i]), even_bf16(y.m256i[i]), odd));
  }
  return simde__m512_from_private(out);
}

// The low halves of 16 dwords.
inline __m256i cvtepi32_epi16(Ints v) {
  const IntHalves in = simde__m512i_to_private(v);
  const __m256i low = _mm256_set1_epi32(0xffff);
  return _mm256_permute4x64_epi64(
      _mm256_packus_epi32(_mm256_and_si256(in.m256i[0], low), _mm256_and_si256(in.m256i[1], low)), 0xd8);
}

// vcvtneps2bf16: to nearest even; subnormals become zero, NaN stays NaN.
inline __m256i cvtneps_pbh(Floats v) {
  const FloatHalves in = simde__m512_to_private(v);
  IntHalves out;
  for (int i = 0; i < 2; ++i) {
    const __m256i bits = _mm256_castps_si256(flush(in.m256[i]));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 is_nan = _mm256_cmp_ps(in.m256[i], in.m256[i], _CMP_UNORD_Q);
    out.m256i[i] = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan)), 16);
  }
  return cvtepi32_epi16(simde__m512i_from_private(out));
}

// The low bytes of 16 dwords.
inline __m128i cvtepi32_epi8(Ints v) {
  const __m256i words = _mm256_and_si256(cvtepi32_epi16(v), _mm256_set1_epi16(255));
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

}  // namespace emulated
}  // namespace
}  // namespace octavo

#undef _mm512_abs_ps
#undef _mm512_permute_ps
#undef _mm512_shuffle_f32x4
#undef _mm512_cvtps_epi32
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepi16_epi32
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtph_ps
#undef _mm512_cvtepu8_epi16
#undef _mm512_srai_epi32
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_extractf32x8_ps
#undef _mm512_madd_epi16  // SIMDe gives the name to its masked form
#undef _mm512_multishift_epi64_epi8
#undef _mm512_dpbusd_epi32
#undef _mm512_dpbf16_ps
#undef _mm512_cvtepi32_epi16
#undef _mm512_cvtneps_pbh
#undef _mm512_cvtepi32_epi8
#define _mm512_abs_ps(v) octavo::emulated::abs_ps(v)
#define _mm512_permute_ps(v, order) octavo::emulated::permute_ps<order>(v)
#define _mm512_shuffle_f32x4(a, b, order) simde_mm512_shuffle_f32x4(a, b, order)
#define _mm512_cvtps_epi32(v) octavo::emulated::cvtps_epi32(v)
#define _mm512_cvtepi32_ps(v) octavo::emulated::cvtepi32_ps(v)
#define _mm512_cvtepi16_epi32(v) octavo::emulated::cvtepi16_epi32(v)
#define _mm512_cvtepi8_epi32(v) octavo::emulated::cvtepi8_epi32(v)
#define _mm512_cvtph_ps(v) octavo::emulated::cvtph_ps(v)
#define _mm512_cvtepu8_epi16(v) octavo::emulated::cvtepu8_epi16(v)
#define _mm512_srai_epi32(v, count) octavo::emulated::srai_epi32(v, count)
#define _mm512_maskz_loadu_ps(mask, p) octavo::emulated::maskz_loadu_ps(mask, p)
#define _mm512_mask_storeu_ps(p, mask, v) octavo::emulated::mask_storeu_ps(p, mask, v)
#define _mm512_extractf32x8_ps(v, half) octavo::emulated::extractf32x8_ps(v, half)
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)
#define _mm512_multishift_epi64_epi8(a, b) octavo::emulated::multishift_epi64_epi8(a, b)
#define _mm512_dpbusd_epi32(src, a, b) octavo::emulated::dpbusd_epi32(src, a, b)
#define _mm512_dpbf16_ps(src, a, b) octavo::emulated::dpbf16_ps(src, a, b)
#define _mm512_cvtneps_pbh(v) octavo::emulated::cvtneps_pbh(v)
#define _mm512_cvtepi32_epi16(v) octavo::emulated::cvtepi32_epi16(v)
#define _mm512_cvtepi32_epi8(v) octavo::emulated::cvtepi32_epi8(v)
