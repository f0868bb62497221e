// Few tokens by IQ1_S and IQ1_M, with one load for each entry: eight bytes 8 g + 16, to which 1 is added or from which
// it is subtracted. What the bytes are too high is a matter of the sums of activations.

#pragma once

#include "kernels/body/entries_common.inl"
#include "kernels/kernels.h"

namespace octavo {
namespace {

// The two formats of 2048 entries.
template <class Block>
concept Ternary = Block::Codebook::kSize == 2048;

// Four words: a byte each, and the next bits of `high` above it.
inline uint64_t four_words(uint32_t low, uint16_t high, uint64_t high_places) {
  constexpr uint64_t kLow = 0x00ff00ff00ff00ff;
  return _pdep_u64(low, kLow) | _pdep_u64(high, high_places);
}

// How a row is read, besides Entries of entries_common.inl: the indices of four entries, and which groups of eight
// weights are 8 g - 1, a bit each.
template <>
struct Entries<BlockIQ1_S> {
  static constexpr float kUnit = 0.125f;
  static uint64_t indices(const BlockIQ1_S& block, int i) {
    return four_words(load_as<uint32_t>(block.qs + 4 * i), block.qh[i], 0x0700070007000700);
  }
  static uint32_t minus(const BlockIQ1_S& block) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.qh));
    const int of_subs = _mm_movemask_epi8(_mm_packs_epi16(words, words)) & 255;
    return _pdep_u32(static_cast<uint32_t>(of_subs), 0x11111111) * 15;
  }
  static __m128i factors(const BlockIQ1_S& block) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.qh));
    const __m128i s = _mm_and_si128(_mm_srli_epi16(words, 12), _mm_set1_epi16(7));
    return odd_factors(_mm_or_si128(s, _mm_slli_epi16(s, 8)));
  }
};

template <>
struct Entries<BlockIQ1_M> {
  static constexpr float kUnit = 0.125f;
  static uint64_t indices(const BlockIQ1_M& block, int i) {
    const auto high = load_as<uint16_t>(block.qh + 2 * i);
    return four_words(load_as<uint32_t>(block.qs + 4 * i), high, 0x0f000f000f000f00) & 0x07ff07ff07ff07ff;
  }
  static uint32_t minus(const BlockIQ1_M& block) {
    const auto of_half = [&](int i) { return _pext_u64(load_as<uint64_t>(block.qh + 8 * i), 0x8888888888888888); };
    return static_cast<uint32_t>(of_half(0) | of_half(1) << 16);
  }
  static __m128i factors(const BlockIQ1_M& block) {
    const uint64_t threes = _pext_u64(load_as<uint64_t>(block.scales), 0x0fff0fff0fff0fff);
    const auto bytes = [](uint64_t eight) { return static_cast<int64_t>(_pdep_u64(eight, 0x0707070707070707)); };
    return odd_factors(_mm_set_epi64x(bytes(threes >> 24), bytes(threes)));
  }
};

// The weights of a row, kBias too high.
template <Ternary Block>
class TernaryRow {
 public:
  TernaryRow(const Block& block, const typename Block::Codebook& codebook)
      : codebook_(codebook), minus_(Entries<Block>::minus(block)) {
    OCTAVO_UNROLL
    for (int i = 0; i < 8; ++i) indices_[i] = Entries<Block>::indices(block, i);
  }

  Vi vector(int p) const {
    const Vi entries = load_eights([&](int j) {
      const int i = p * kGroups + j;
      return codebook_.entries[static_cast<uint16_t>(indices_[i / 4] >> (i % 4 * 16))];
    });
    return add_bytes(entries, ones_of_eights(minus_ >> (p * kGroups)));
  }

 private:
  const typename Block::Codebook& codebook_;
  uint32_t minus_;
  uint64_t indices_[8];
};

// A super block of 16 rows times kTokens tokens, added to their outputs. Sums of 16 activations times -16 fit words.
template <Ternary Block, int kTokens>
void add_entries(const LinearTask& task, float* out, const Block* blocks, int64_t index, int token) {
  constexpr int kVectors = 64 / kLanes;  // of a row
  const Q8x256Layout layout(task.k);
  const auto& codebook = *static_cast<const typename Block::Codebook*>(task.format->codebook);
  const uint8_t* act[kTokens];
  Vi activations[kTokens][kVectors], sums[kTokens][16];
  __m256i too_high[kTokens];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    act[t] = task.act + (token + t) * task.act_stride;
    OCTAVO_UNROLL
    for (int p = 0; p < kVectors; ++p) activations[t][p] = load_bytes(act[t] + index * 256 + p * kLanes * 4);
    const auto of_sixteens = load_as<__m256i>(act[t] + layout.sum + index * 32);
    too_high[t] = _mm256_mullo_epi16(of_sixteens, _mm256_set1_epi16(-Block::kBias));
  }
  const Units<Block> units(blocks);
  for (int row = 0; row < 16; ++row) {
    const TernaryRow<Block> weights(blocks[row], codebook);
    const __m128i factors = Entries<Block>::factors(blocks[row]);
    const FactorLanes scales(factors);
    Vi sum[kTokens];
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) sum[t] = dot_sixteen(_mm256_cvtepi8_epi16(factors), too_high[t]);
    OCTAVO_UNROLL
    for (int p = 0; p < kVectors; ++p) {
      const Vi vector = weights.vector(p), scale = scales.of(p);
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) sum[t] = dot_pairs(sum[t], dot_byte_pairs(vector, activations[t][p]), scale);
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) sums[t][row] = sum[t];
  }
  add_to_outputs<kTokens>(task, out, index, token, units,
                          [&](int t, int v) { return sums_of_rows(sums[t] + v * kLanes); });
}

}  // namespace
}  // namespace octavo
