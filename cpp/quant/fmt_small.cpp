#include "quant/fmt_small.h"

#include <cmath>

#include "base/dtype.h"
#include "quant/fmt_lowbit.h"

namespace octavo {
namespace {

// Pairs of nibbles n apart, by a table.
void decode_nibbles(float* out, const uint8_t* qs, int n, float d, const int8_t (&values)[16]) {
  for (int i = 0; i < n; ++i) {
    out[i] = d * static_cast<float>(values[qs[i] & 15]);
    out[n + i] = d * static_cast<float>(values[qs[i] >> 4]);
  }
}

// Half of an E4M3 number; the highest pattern, not a number there, stands for zero.
float half_of_e4m3(uint8_t x) {
  if (x == 0x7f) return 0;
  const int exponent = x >> 3 & 15, mantissa = x & 7;
  return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -10)
                       : std::ldexp(static_cast<float>(8 + mantissa), exponent - 11);
}

}  // namespace

void decode_block(float* out, const BlockIQ4_NL& block) {
  decode_nibbles(out, block.qs, 16, half_to_float(block.d), kIQ4Values);
}

void decode_block(float* out, const BlockMXFP4& block) {
  decode_nibbles(out, block.qs, 16, bf16_to_float(half_of_e8m0(block.e)), kE2M1Values);
}

void decode_block(float* out, const BlockNVFP4& block) {
  for (int s = 0; s < 4; ++s) decode_nibbles(out + 16 * s, block.qs + 8 * s, 8, half_of_e4m3(block.d[s]), kE2M1Values);
}

void decode_block(float* out, const BlockQ1_0& block) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < BlockQ1_0::kSize; ++i) out[i] = block.qs[i / 8] >> (i % 8) & 1 ? d : -d;
}

void decode_block(float* out, const BlockQ2_0& block) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < BlockQ2_0::kSize; ++i) out[i] = d * static_cast<float>((block.qs[i / 4] >> (i % 4 * 2) & 3) - 1);
}

}  // namespace octavo
