// AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace octavo {
namespace {

constexpr int kLanes = 8;
using Vf = __m256;
using Vi = __m256i;

inline Vf load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vf v) { _mm256_storeu_ps(p, v); }
inline Vf set1(float x) { return _mm256_set1_ps(x); }
inline Vf zero() { return _mm256_setzero_ps(); }
inline Vf add(Vf a, Vf b) { return _mm256_add_ps(a, b); }
inline Vf sub(Vf a, Vf b) { return _mm256_sub_ps(a, b); }
inline Vf mul(Vf a, Vf b) { return _mm256_mul_ps(a, b); }
inline Vf div(Vf a, Vf b) { return _mm256_div_ps(a, b); }
inline Vf max(Vf a, Vf b) { return _mm256_max_ps(a, b); }
inline Vf min(Vf a, Vf b) { return _mm256_min_ps(a, b); }
inline Vf fma(Vf a, Vf b, Vf c) { return _mm256_fmadd_ps(a, b, c); }
inline Vf abs(Vf v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

inline Vi iota() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline Vi set1i(int x) { return _mm256_set1_epi32(x); }
inline Vi addi(Vi a, Vi b) { return _mm256_add_epi32(a, b); }
inline Vi subi(Vi a, Vi b) { return _mm256_sub_epi32(a, b); }
template <int kBits>
inline Vi shift_left(Vi v) {
  return _mm256_slli_epi32(v, kBits);
}
template <int kBits>
inline Vi shift_right(Vi v) {
  return _mm256_srli_epi32(v, kBits);
}
template <int kBits>
inline Vi shift_right_signed(Vi v) {
  return _mm256_srai_epi32(v, kBits);
}
inline Vi mul_ints(Vi a, Vi b) { return _mm256_mullo_epi32(a, b); }
inline Vi xor_bits(Vi a, Vi b) { return _mm256_xor_si256(a, b); }
inline Vi and_bits(Vi a, Vi b) { return _mm256_and_si256(a, b); }
inline Vi or_bits(Vi a, Vi b) { return _mm256_or_si256(a, b); }
inline Vi bits_of(Vf v) { return _mm256_castps_si256(v); }
inline Vf floats_of(Vi v) { return _mm256_castsi256_ps(v); }
inline Vi loadi(const void* p) { return _mm256_loadu_si256(static_cast<const Vi*>(p)); }
inline void storei(void* p, Vi v) { _mm256_storeu_si256(static_cast<Vi*>(p), v); }
// The low halves, the low bytes of the lanes.
inline __m128i low_halves(Vi v) {
  const Vi lanes = _mm256_srai_epi32(_mm256_slli_epi32(v, 16), 16);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packs_epi32(lanes, lanes), 8));
}
inline void store_halves(uint16_t* p, Vi v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), low_halves(v)); }
inline void store_bytes(int8_t* p, Vi v) {
  const __m128i halves = _mm_and_si128(low_halves(v), _mm_set1_epi16(255));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(halves, halves));
}
inline Vi round_to_int(Vf v) { return _mm256_cvtps_epi32(v); }
inline Vf to_float(Vi v) { return _mm256_cvtepi32_ps(v); }
inline Vf pow2(Vi n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, set1i(127)), 23)); }

// Lane-wise a < b ? x : y; a NaN compares false.
inline Vf select_less(Vf a, Vf b, Vf x, Vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
inline Vi select_less(Vf a, Vf b, Vi x, Vi y) {
  return _mm256_blendv_epi8(y, x, _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)));
}

inline bool any_less(Vf a, Vf b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)) != 0; }

inline Vi part_mask(int n) { return _mm256_cmpgt_epi32(set1i(n), iota()); }
// The first n lanes; the others are zero.
inline Vf load_part(const float* p, int n) { return _mm256_maskload_ps(p, part_mask(n)); }
inline void store_part(float* p, Vf v, int n) { _mm256_maskstore_ps(p, part_mask(n), v); }

inline float reduce_add(Vf v) {
  const __m128 quads = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pairs = _mm_add_ps(quads, _mm_movehl_ps(quads, quads));
  return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)));
}
inline float reduce_max(Vf v) {
  const __m128 quads = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pairs = _mm_max_ps(quads, _mm_movehl_ps(quads, quads));
  return _mm_cvtss_f32(_mm_max_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)));
}

// kLanes pairs of bfloat16 (even, odd) as floats.
inline void load_bf16_pairs(const uint16_t* p, Vf& even, Vf& odd) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  even = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
  odd = _mm256_castsi256_ps(_mm256_and_si256(v, set1i(static_cast<int>(0xffff0000))));
}

inline Vf load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

// Bytes: one plane line of kLanes rows.
inline Vi load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline Vi low_nibbles(Vi v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline Vi high_nibbles(Vi v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }

// (v >> shift) & mask byte by byte, where no bit of the mask comes from another byte.
inline Vi shifted_bits(Vi v, int shift, int mask) {
  return _mm256_and_si256(_mm256_srli_epi16(v, shift), _mm256_set1_epi8(static_cast<char>(mask)));
}

// Byte i all ones where bit i is set, else zero.
inline Vi spread_bits(uint32_t bits) {
  const __m256i spread = _mm256_shuffle_epi8(
      set1i(static_cast<int>(bits)), _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i unset = _mm256_or_si256(spread, _mm256_set1_epi64x(0x7fbfdfeff7fbfdfe));
  return _mm256_cmpeq_epi8(unset, _mm256_set1_epi64x(-1));
}

// 16 where bit i of the kLanes * 4 bits at p is set, else 0, for byte i.
inline Vi load_fifth_bits(const void* p) {
  uint32_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return _mm256_and_si256(spread_bits(bits), _mm256_set1_epi8(16));
}

// Dot products of unsigned weights below 32 with int8 activations, four bytes a lane: int16 partial sums
// hold four (below 32) or eight (below 16) accumulations without overflow.
using Partial = Vi;

// The sum exists now. Left alone, GCC first makes all products of a group, spilling them, and adds at the end.
inline Vi settled(Vi sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

inline Partial dot_partial(Partial acc, Vi weights, Vi act) {
  return settled(_mm256_add_epi16(acc, _mm256_maddubs_epi16(weights, act)));
}
inline Vi dot_finish(Partial acc) { return _mm256_madd_epi16(acc, _mm256_set1_epi16(1)); }

// How many accumulations of weights up to kMaxWeight a partial sum holds.
template <int kMaxWeight>
constexpr int kPartialDots = 32767 / (2 * 127 * kMaxWeight);

// table[i] of each byte i below 16.
inline Vi look_up(const uint8_t* table, Vi indices) {
  const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), indices);
}
inline Vf load_bf16(const uint16_t* p) {
  const __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

// Two bytes of each of kLanes rows as int16.
inline Vi load_u8_pairs(const uint8_t* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vi load_s8_pairs(const uint8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// acc + a[0] * b[0] + a[1] * b[1]
inline Vi dot_pairs(Vi acc, Vi a, Vi b) { return settled(_mm256_add_epi32(acc, _mm256_madd_epi16(a, b))); }

// The first or the second of each pair, for dot_scaled.
inline Vi first_scales(Vi pairs) {
  return _mm256_shuffle_epi8(pairs, _mm256_setr_epi32(0x01000100, 0x05040504, 0x09080908, 0x0d0c0d0c, 0x01000100,
                                                      0x05040504, 0x09080908, 0x0d0c0d0c));
}
inline Vi second_scales(Vi pairs) {
  return _mm256_shuffle_epi8(pairs, _mm256_setr_epi32(0x03020302, 0x07060706, 0x0b0a0b0a, 0x0f0e0f0e, 0x03020302,
                                                      0x07060706, 0x0b0a0b0a, 0x0f0e0f0e));
}
inline Vi dot_scaled(Vi acc, Partial partial, Vi scales) {
  return settled(_mm256_add_epi32(acc, _mm256_madd_epi16(partial, scales)));
}

// Signed weights: |w| times act carrying w's sign; 2 * 128 * 127 fits int16.
struct SignedWeights {
  Vi magnitude, sign;
};
constexpr int kSignedBias = 0;
inline SignedWeights prepare_signed(Vi w) { return {_mm256_abs_epi8(w), w}; }
inline SignedWeights signed_of_biased(Vi w) {  // 128 too high
  return prepare_signed(_mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80))));
}
inline Vi dot_signed(Vi acc, SignedWeights w, Vi act) {
  const __m256i products = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(act, w.sign));
  return settled(_mm256_add_epi32(acc, _mm256_madd_epi16(products, _mm256_set1_epi16(1))));
}

// A vector from pieces of 16 bytes: at(i) points to one.
template <class At>
inline Vi load_sixteens(At at) {
  const auto piece = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at(i))); };
  return _mm256_inserti128_si256(_mm256_castsi128_si256(piece(0)), piece(1), 1);
}
// By lanes of 128 bits: four rows of dwords become their columns.
inline void turn_over_fours(Vi (&rows)[4]) {
  const Vi low01 = _mm256_unpacklo_epi32(rows[0], rows[1]), low23 = _mm256_unpacklo_epi32(rows[2], rows[3]);
  const Vi high01 = _mm256_unpackhi_epi32(rows[0], rows[1]), high23 = _mm256_unpackhi_epi32(rows[2], rows[3]);
  rows[0] = _mm256_unpacklo_epi64(low01, low23);
  rows[1] = _mm256_unpackhi_epi64(low01, low23);
  rows[2] = _mm256_unpacklo_epi64(high01, high23);
  rows[3] = _mm256_unpackhi_epi64(high01, high23);
}

// A vector of bytes from pieces of eight and of four: at(i).
template <class At>
inline Vi load_eights(At at) {
  const auto word = [&](int i) { return static_cast<long long>(at(i)); };
  return _mm256_set_epi64x(word(3), word(2), word(1), word(0));
}
template <class At>
inline Vi load_fours(At at) {
  return _mm256_set_epi32(at(7), at(6), at(5), at(4), at(3), at(2), at(1), at(0));
}

// Lane l: the sum over the lanes of rows[l].
inline Vi sums_of_rows(const Vi* rows) {
  const auto pairs = [](Vi a, Vi b) { return addi(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)); };
  const auto fours = [](Vi a, Vi b) { return addi(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)); };
  const auto quads = [&](int i) { return fours(pairs(rows[i], rows[i + 1]), pairs(rows[i + 2], rows[i + 3])); };
  const Vi low = quads(0), high = quads(4);
  return addi(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

using SignBits = uint32_t;
inline Vi negative_bytes(Vi v) { return _mm256_sub_epi8(_mm256_setzero_si256(), v); }
inline Vi negative_where(SignBits bits, Vi bytes, Vi negative) {
  return _mm256_blendv_epi8(bytes, negative, spread_bits(bits));
}
// Unsigned bytes times signed ones, added in pairs: words, which products of bytes up to 127 do not fill.
inline Vi dot_byte_pairs(Vi a, Vi b) { return _mm256_maddubs_epi16(a, b); }
inline Vi add_bytes(Vi a, Vi b) { return _mm256_add_epi8(a, b); }
// For each eight bytes 1 where its bit is not set, -1 where it is.
inline Vi ones_of_eights(uint32_t minus) {
  const Vi bits = _mm256_setr_epi64x(1, 2, 4, 8);
  const Vi set = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(minus), bits), bits);
  return _mm256_or_si256(set, _mm256_set1_epi8(1));
}
// Sixteen products of words, added up anyhow over the lanes.
inline Vi dot_sixteen(__m256i a, __m256i b) { return _mm256_madd_epi16(a, b); }
// Factors of 16 weights each, signed bytes, as words: those of vector p.
class FactorLanes {
 public:
  explicit FactorLanes(__m128i factors) : factors_(factors) {}
  Vi of(int p) const {
    const __m128i half = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m128i of_p = _mm_add_epi8(half, _mm_set1_epi8(static_cast<char>(2 * p)));
    return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(factors_, of_p));
  }

 private:
  __m128i factors_;
};

}  // namespace
}  // namespace octavo
