// Few tokens by formats whose weights are entries of a codebook with signs (quant/fmt_codebook.h). Entries go straight
// into vectors (entries_loaded.inl, entries_permuted.inl), and signs to the activations, so nothing is unpacked. The
// integers are those of linear_integers.inl, which takes many tokens, and so are the bits of the result.

#pragma once

#ifdef OCTAVO_SIMD_VBMI
#include "kernels/body/entries_permuted.inl"
#else
#include "kernels/body/entries_loaded.inl"
#endif
#include "kernels/body/linear_integers.inl"

namespace octavo {
namespace {

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

// Lane l: the sum over the lanes of rows[l]. Each round adds halves, and moves a bit of the row to the lane.
inline Vi sums_of_rows(const Vi* rows) {
  Dwords sums[kLanes];
  __builtin_memcpy(sums, rows, sizeof(sums));
  OCTAVO_UNROLL
  for (int n = kLanes / 2; n > 0; n /= 2) {
    OCTAVO_UNROLL
    for (int i = 0; i < n; ++i)
      sums[i] = interleave(sums[i], sums[i + n], 0) + interleave(sums[i], sums[i + n], kLanes / 2);
  }
  return load_as<Vi>(&sums[0]);
}

// A super block of 16 rows times kTokens tokens, added to their outputs.
template <class Block, int kTokens>
void add_entries(const LinearTask& task, float* out, const Block* blocks, int64_t index, int token) {
  const Q8x256Layout layout(task.k);
  const uint8_t* act[kTokens];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) act[t] = task.act + (token + t) * task.act_stride;
  const auto& codebook = *static_cast<const typename Block::Codebook*>(task.format->codebook);
  Vi sums[kTokens][16];
  uint16_t d[16];
  for (int first = 0; first < 16; first += Magnitudes<Block>::kRows) {
    const Magnitudes<Block> magnitudes(blocks + first, codebook);
    OCTAVO_UNROLL
    for (int i = 0; i < Magnitudes<Block>::kRows; ++i) {
      const Block& block = blocks[first + i];
      d[first + i] = block.d;
      __m128i factors = Entries<Block>::factors(block);
      Vi sum[kTokens];
      OCTAVO_UNROLL
      for (Vi& s : sum) s = set1i(0);
      OCTAVO_UNROLL
      for (int p = 0; p < 64 / kLanes; ++p) {
        const Vi weights = magnitudes.vector(i, p);
        const SignBits negative = Entries<Block>::negative(block, p);
        const Vi scales = repeat_bytes(factors);
        OCTAVO_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          const Vi a = negate_where(negative, load_bytes(act[t] + index * 256 + p * kLanes * 4));
          sum[t] = addi(sum[t], mul_ints(dot_bytes(weights, a), scales));
        }
        factors = _mm_srli_si128(factors, kLanes / 4);
      }
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) sums[t][first + i] = sum[t];
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    const float d_act = reinterpret_cast<const float*>(act[t] + layout.d)[index];
    for (int v = 0; v < kVecs; ++v) {
      float* at = out + (token + t) * task.out_stride + v * kLanes;
      const Vf unit = mul(load_f16(d + v * kLanes), set1(Entries<Block>::kUnit));
      store(at, fma(to_float(sums_of_rows(sums[t] + v * kLanes)), mul(unit, set1(d_act)), load(at)));
    }
  }
}

template <class Block>
void few_by_entries(const LinearTask& task) {
  const int64_t n = task.k / 256, strip_bytes = integer_strip_bytes(task);
  for (int s = 0; s < task.n_strips; ++s) {
    start_strip(task, s);
    const auto* blocks = reinterpret_cast<const Block*>(task.weights + s * strip_bytes);
    for (int64_t b = 0; b < n; ++b, blocks += 16) {
      int token = 0;
      for (; token + 2 <= task.n_tokens; token += 2) add_entries<Block, 2>(task, task.out + s * 16, blocks, b, token);
      if (token < task.n_tokens) add_entries<Block, 1>(task, task.out + s * 16, blocks, b, token);
    }
  }
}

// So many tokens pay for unpacking.
constexpr int kUnpackEntriesFrom = 5;

template <class Block, class Planes>
void linear_entries(const LinearTask& task) {
  if (task.n_tokens < kUnpackEntriesFrom)
    few_by_entries<Block>(task);
  else
    linear_integers<Planes>(task);
}

}  // namespace
}  // namespace octavo
