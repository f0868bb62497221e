// What the repacking of every family needs: the source rows of a strip and the lines that they go to.
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/planes.h"

namespace octavo {

inline constexpr int kLine = 64;            // bytes of a plane line: a dword of each row
inline constexpr int kHalves = 2 * kStrip;  // bytes of one half per row

// What a missing row reads, always from its start; no block is longer.
alignas(kLine) inline constexpr uint8_t kZeros[4 * kLine] = {};

// The 16 source rows of a strip.
struct StripRows {
  const uint8_t* start[kStrip];
  int64_t mask[kStrip];  // -1, or 0 for a missing row: it stays at kZeros

  StripRows(const uint8_t* rows, int64_t row_bytes, int64_t n_rows) {
    for (int r = 0; r < kStrip; ++r) {
      start[r] = r < n_rows ? rows + r * row_bytes : kZeros;
      mask[r] = r < n_rows ? -1 : 0;
    }
  }
  const uint8_t* at(int r, int64_t byte) const { return start[r] + (byte & mask[r]); }
};

// Puts a row's dwords into consecutive plane lines.
template <int kLines>
void put_lines(uint8_t* lines, int row, const uint8_t* in) {
  for (int j = 0; j < kLines; ++j) std::memcpy(lines + kLine * j + 4 * row, in + 4 * j, 4);
}

// Repacks one strip of n super blocks of Q2_K to Q6_K or IQ4_XS.
void repack_kquants(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, Format format, int64_t n);

}  // namespace octavo
