// What reading the blocks of codebook formats takes.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/activation.h"
#include "quant/fmt_codebook.h"

namespace octavo {
namespace {

constexpr int kGroups = kLanes / 2;  // of eight weights in a vector of bytes

template <class T>
inline T load_as(const void* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(value));
  return value;
}

// An unsigned integer of a bit for each byte of a vector, from 32 bits repeated.
constexpr SignBits repeated(uint64_t bits) { return static_cast<SignBits>(bits << 32 | bits); }

// 28 bits of each 32 to seven of each byte.
inline SignBits spread_sevens(SignBits words) {
  constexpr uint64_t kLow = 0xfffffff;
  const uint64_t joined = (words & kLow) | (uint64_t{words} >> 32 & kLow) << 28;
  return static_cast<SignBits>(_pdep_u64(joined, 0x7f7f7f7f7f7f7f7f));
}

// The eighth bit of each byte makes their number even.
inline SignBits with_parity(SignBits sevens) {
  SignBits odd = sevens ^ sevens >> 4;
  odd ^= odd >> 2;
  odd ^= odd >> 1;
  return sevens | (odd & repeated(0x01010101)) << 7;
}

// 2 s + 1 of each byte.
inline __m128i odd_factors(__m128i s) { return _mm_add_epi8(_mm_add_epi8(s, s), _mm_set1_epi8(1)); }

inline __m128i low_halves_of_bytes(__m128i bytes) { return _mm_and_si128(bytes, _mm_set1_epi8(15)); }
inline __m128i high_halves_of_bytes(__m128i bytes) { return low_halves_of_bytes(_mm_srli_epi16(bytes, 4)); }

// The nibbles of eight bytes, low ones first.
inline __m128i nibbles(uint64_t bytes) {
  const __m128i packed = _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
  return _mm_unpacklo_epi8(low_halves_of_bytes(packed), high_halves_of_bytes(packed));
}

// How a format's blocks are read: which of vector p of a row's weights are negative, and the factors of its sub-scales,
// a byte for each 16 weights; x = d * kUnit * factor * (+-magnitude).
template <class Block>
struct Entries;

template <>
struct Entries<BlockIQ2_XXS> {
  static constexpr float kUnit = 0.125f;
  static __m128i factors(const BlockIQ2_XXS& block) {
    const auto pick = [&](int i, __m128i order) {  // bytes 7 and 15, where s is in the upper nibble
      return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block.qs) + i), order);
    };
    const __m128i order = _mm_setr_epi8(7, 7, 15, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m128i bytes = pick(0, order);
    bytes = _mm_or_si128(bytes, pick(1, _mm_shuffle_epi32(order, 0x51)));
    bytes = _mm_or_si128(bytes, pick(2, _mm_shuffle_epi32(order, 0x45)));
    bytes = _mm_or_si128(bytes, pick(3, _mm_shuffle_epi32(order, 0x15)));
    return odd_factors(high_halves_of_bytes(bytes));
  }
  static SignBits negative(const BlockIQ2_XXS& block, int p) {
    SignBits words = 0;
    for (int i = 0; i < kLanes / 8; ++i)
      words |= SignBits{load_as<uint32_t>(block.qs + p * 2 * kGroups + 8 * i + 4)} << (32 * i);
    return with_parity(spread_sevens(words));
  }
};

template <>
struct Entries<BlockIQ2_XS> {
  static constexpr float kUnit = 0.125f;
  static __m128i factors(const BlockIQ2_XS& block) { return odd_factors(nibbles(load_as<uint64_t>(block.scales))); }
  static SignBits negative(const BlockIQ2_XS& block, int p) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.qs + p * kGroups));
    const __m128i sevens = _mm_packus_epi16(_mm_srli_epi16(words, 9), _mm_setzero_si128());
    return with_parity(static_cast<SignBits>(_mm_cvtsi128_si64(sevens)));
  }
};

template <>
struct Entries<BlockIQ2_S> {
  static constexpr float kUnit = 0.125f;
  static __m128i factors(const BlockIQ2_S& block) { return odd_factors(nibbles(load_as<uint64_t>(block.scales))); }
  static SignBits negative(const BlockIQ2_S& block, int p) { return load_as<SignBits>(block.signs + p * kGroups); }
};

template <>
struct Entries<BlockIQ3_XXS> {
  static constexpr float kUnit = 0.25f;
  static __m128i factors(const BlockIQ3_XXS& block) {
    const auto pick = [&](int i, __m128i order) {  // bytes 3, 7, 11 and 15, where s is in the upper nibble
      return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block.scale_signs) + i), order);
    };
    const __m128i order = _mm_setr_epi8(3, 3, 7, 7, 11, 11, 15, 15, -1, -1, -1, -1, -1, -1, -1, -1);
    return odd_factors(high_halves_of_bytes(_mm_or_si128(pick(0, order), pick(1, _mm_shuffle_epi32(order, 0x4e)))));
  }
  static SignBits negative(const BlockIQ3_XXS& block, int p) {
    return with_parity(spread_sevens(load_as<SignBits>(block.scale_signs + p * kGroups)));
  }
};

template <>
struct Entries<BlockIQ3_S> {
  static constexpr float kUnit = 1;
  static __m128i factors(const BlockIQ3_S& block) {
    const __m128i each = nibbles(load_as<uint32_t>(block.scales));
    return odd_factors(_mm_unpacklo_epi8(each, each));
  }
  static SignBits negative(const BlockIQ3_S& block, int p) { return load_as<SignBits>(block.signs + p * kGroups); }
};

// The signs and the scales of kRows rows.
template <class Block, int kRows>
class RowSigns {
 public:
  explicit RowSigns(const Block* rows) : rows_(rows) {
    OCTAVO_UNROLL
    for (int i = 0; i < kRows; ++i) factors_[i] = Entries<Block>::factors(rows[i]);
  }
  // Which weights of vector p of row i are negative, and the scales of its dwords.
  SignBits negative(int i, int p) const { return Entries<Block>::negative(rows_[i], p); }
  Vi scales(int i, int p) const { return FactorLanes(factors_[i]).of(p); }

 private:
  const Block* rows_;
  __m128i factors_[kRows];
};

template <class Block>
inline uint16_t unit_of(const Block& block) {
  return block.d;
}

inline uint16_t unit_of(const BlockIQ1_M& block) {
  return static_cast<uint16_t>(_pext_u64(load_as<uint64_t>(block.scales), 0xf000f000f000f000));
}

// What a factor is worth in each of 16 rows.
template <class Block>
class Units {
 public:
  explicit Units(const Block* blocks) {
    for (int row = 0; row < 16; ++row) halves_[row] = unit_of(blocks[row]);
    __asm__ volatile("" : : "r"(halves_) : "memory");  // stored now, as they are loaded together at the end
  }
  // In vector v of the rows.
  Vf of(int v) const { return mul(load_f16(halves_ + v * kLanes), set1(Entries<Block>::kUnit)); }

 private:
  uint16_t halves_[16];
};

// A super block of 16 rows added to the outputs of kTokens tokens. sums(t, v): a token's, in vector v of the rows.
template <int kTokens, class Block, class Sums>
inline void add_to_outputs(const LinearTask& task, float* out, int64_t index, int token, const Units<Block>& units,
                           Sums sums) {
  const Q8x256Layout layout(task.k);
  for (int t = 0; t < kTokens; ++t) {
    const uint8_t* act = task.act + (token + t) * task.act_stride;
    const float d_act = reinterpret_cast<const float*>(act + layout.d)[index];
    for (int v = 0; v < kVecs; ++v) {
      float* at = out + (token + t) * task.out_stride + v * kLanes;
      store(at, fma(to_float(sums(t, v)), mul(units.of(v), set1(d_act)), load(at)));
    }
  }
}

}  // namespace
}  // namespace octavo
