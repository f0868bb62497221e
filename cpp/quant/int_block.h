// What the formats of 256 weights have in common once their bits are unpacked: integers with integer sub-scales.
#pragma once

#include <cstdint>

namespace octavo {

// x = (d * sc) * (u - bias) - dmin * mn, with a sub-scale (and a minimum) for every 16 weights; bias is the format's.
struct IntBlock {
  uint8_t u[256];
  int8_t sc[16];
  uint8_t mn[16];  // zero in formats without minima
  float d, dmin;
};

inline void decode(float* out, const IntBlock& block, int bias) {
  for (int i = 0; i < 256; ++i) {
    const float scale = block.d * static_cast<float>(block.sc[i / 16]);
    const float min = block.dmin * static_cast<float>(block.mn[i / 16]);
    out[i] = scale * static_cast<float>(block.u[i] - bias) - min;
  }
}

}  // namespace octavo
