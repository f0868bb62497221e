// What the formats of 256 weights have in common once their bits are unpacked: integers with integer sub-scales.
#pragma once

#include <cstdint>

namespace octavo {

// x = (d * sc) * (u - bias) - dmin * mn, with a sub-scale (and a minimum) for every 16 weights; bias is the format's.
struct IntBlock {
  uint8_t* u;  // (256)
  int8_t sc[16];
  uint8_t mn[16];  // zero in formats without minima
  float d, dmin;
};

}  // namespace octavo
