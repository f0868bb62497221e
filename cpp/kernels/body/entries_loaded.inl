// Few tokens by codebook formats, and their magnitudes, with one load for each entry.

#pragma once

#include "kernels/body/entries_common.inl"
#include "kernels/kernels.h"

namespace octavo {
namespace {

inline uint64_t entry(const BlockIQ2_XXS& block, const BlockIQ2_XXS::Codebook& book, int i) {
  return book.entries[block.qs[i / 4 * 8 + i % 4]];
}
inline uint64_t entry(const BlockIQ2_XS& block, const BlockIQ2_XS::Codebook& book, int i) {
  return book.entries[block.qs[i] & 511];
}
inline uint64_t entry(const BlockIQ2_S& block, const BlockIQ2_S::Codebook& book, int i) {
  return book.entries[block.qs[i] | (unsigned{block.qh[i / 4]} << (8 - i % 4 * 2) & 0x300)];
}
inline uint32_t entry(const BlockIQ3_XXS& block, const BlockIQ3_XXS::Codebook& book, int i) {
  return book.entries[block.qs[i]];
}
inline uint32_t entry(const BlockIQ3_S& block, const BlockIQ3_S::Codebook& book, int i) {
  return book.entries[block.qs[i] | (unsigned{block.qh[i / 8]} << (8 - i % 8) & 0x100)];
}

// Those of kRows rows.
template <class Block>
class Magnitudes {
 public:
  static constexpr int kRows = 1;
  Magnitudes(const Block* rows, const typename Block::Codebook& codebook) : row_(rows), codebook_(&codebook) {}

  // Vector p of row i.
  Vi vector(int, int p) const {
    if constexpr (sizeof(typename Block::Codebook::Word) == 8)
      return load_eights([&](int j) { return entry(*row_, *codebook_, p * kGroups + j); });
    else
      return load_fours([&](int j) { return static_cast<int32_t>(entry(*row_, *codebook_, p * kLanes + j)); });
  }

 private:
  const Block* row_;
  const typename Block::Codebook* codebook_;
};

template <class Block>
using Signs = RowSigns<Block, 1>;

// A super block of 16 rows times kTokens tokens, added to their outputs.
template <class Block, int kTokens>
void add_entries(const LinearTask& task, float* out, const Block* blocks, int64_t index, int token) {
  const Q8x256Layout layout(task.k);
  const uint8_t* act[kTokens];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) act[t] = task.act + (token + t) * task.act_stride;
  const auto& codebook = *static_cast<const typename Block::Codebook*>(task.format->codebook);
  constexpr int kVectors = 64 / kLanes;  // of a row
  Vi plus[kTokens][kVectors], minus[kTokens][kVectors];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    OCTAVO_UNROLL
    for (int p = 0; p < kVectors; ++p) {
      plus[t][p] = load_bytes(act[t] + index * 256 + p * kLanes * 4);
      minus[t][p] = negative_bytes(plus[t][p]);
    }
  }
  Vi sums[kTokens][16];
  const Units<Block> units(blocks);
  for (int row = 0; row < 16; ++row) {
    const Magnitudes<Block> magnitudes(blocks + row, codebook);
    const Signs<Block> signs(blocks + row);
    Vi sum[kTokens];
    OCTAVO_UNROLL
    for (Vi& s : sum) s = set1i(0);
    OCTAVO_UNROLL
    for (int p = 0; p < kVectors; ++p) {
      const Vi weights = magnitudes.vector(0, p);
      const SignBits negative = signs.negative(0, p);
      const Vi scales = signs.scales(0, p);
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Vi a = negative_where(negative, plus[t][p], minus[t][p]);
        sum[t] = dot_pairs(sum[t], dot_byte_pairs(weights, a), scales);
      }
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) sums[t][row] = sum[t];
  }
  add_to_outputs<kTokens>(task, out, index, token, units,
                          [&](int t, int v) { return sums_of_rows(sums[t] + v * kLanes); });
}

}  // namespace
}  // namespace octavo
