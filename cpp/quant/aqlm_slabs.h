// Codes of 8 bits in the order in which tables are looked up (KernelTable::aqlm_table): slabs of kAqlmTerms codes for
// each row, by pairs of terms and blocks of 64 rows.
//
//   [slab][kAqlmTerms / 2][row / 64][2][aqlm_slot(row % 64)]     term: group of the slab * n_codebooks + codebook
//
// A group takes n_codebooks terms, and a slab as many whole groups as it holds; what is left over is zero.
#pragma once

#include <cstdint>

namespace octavo {

inline constexpr int kAqlmTerms = 16;
inline constexpr int kAqlmBlock = 64;  // rows

// From one pair of terms to the next.
constexpr int64_t aqlm_pair_bytes(int64_t n) { return (n + kAqlmBlock - 1) / kAqlmBlock * kAqlmBlock * 2; }

// Where a row's code lies among those of its block: where interleaving two vectors of bytes brings it back in order.
constexpr int aqlm_slot(int row) { return row % 32 / 8 * 16 + row / 32 * 8 + row % 8; }

}  // namespace octavo
