// Codes of 8 bits in the order in which tables are looked up (KernelTable::aqlm_table): slabs of kAqlmTerms codes for
// each row, by blocks of kAqlmRows rows, so that rows that are multiplied together lie in one piece.
//
//   [slab][row / kAqlmRows][kAqlmTerms][aqlm_slot(row % kAqlmRows)]     term: group of the slab * n_codebooks +
//   codebook
//
// A group takes n_codebooks terms, and a slab as many whole groups as it holds; what is left over is zero. A product is
// the sum of two, over the first half of its row's slabs and over the second.
#pragma once

#include <cstdint>

namespace octavo {

inline constexpr int kAqlmTerms = 16;
inline constexpr int kAqlmRows = 256;

// From one slab to the next.
constexpr int64_t aqlm_slab_bytes(int64_t n) { return (n + kAqlmRows - 1) / kAqlmRows * kAqlmRows * kAqlmTerms; }

// Where a block's row lies: of 64 rows, where interleaving two vectors of bytes brings them back in order.
constexpr int aqlm_slot(int row) { return row / 64 * 64 + row % 32 / 8 * 16 + row % 64 / 32 * 8 + row % 8; }

// Codebooks and activations are looked up as integers of this norm at most: 2047.5 * 2^16 is more than its square, even
// where rounding has made the norm of 32 numbers larger.
inline constexpr float kAqlmNorm = 11580;
// Vectors whose products are made together; pairs of their components lie side by side:
//   [n_codebooks][256 / kAqlmBookBlock][group / 8][4][kAqlmBookBlock][2] int16
inline constexpr int kAqlmBookBlock = 64;

}  // namespace octavo
