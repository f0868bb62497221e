// The magnitudes of codebook formats, one load for each entry.

#pragma once

#include "kernels/body/entries_common.inl"

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

}  // namespace
}  // namespace octavo
