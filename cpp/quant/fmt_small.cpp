#include "quant/fmt_small.h"

#include <array>
#include <cstddef>

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
constexpr float half_of_e4m3(unsigned x) {
  if (x == 0x7f) return 0;
  const unsigned exponent = x >> 3 & 15, mantissa = x & 7;
  return exponent == 0 ? static_cast<float>(mantissa) / 1024 : static_cast<float>((8 + mantissa) << exponent) / 2048;
}

// f(x) for every byte or nibble x.
template <size_t kSize, class F>
constexpr auto table_of(F f) {
  std::array<decltype(f(0u)), kSize> table{};
  for (size_t x = 0; x < kSize; ++x) table[x] = f(static_cast<unsigned>(x));
  return table;
}

using Fours = std::array<float, 4>;
constexpr auto kHalfOfE4M3 = table_of<256>(half_of_e4m3);
constexpr auto kSigns = table_of<16>([](unsigned bits) {
  const auto sign = [&](unsigned i) { return (bits >> i & 1) != 0 ? 1.0f : -1.0f; };
  return Fours{sign(0), sign(1), sign(2), sign(3)};
});
constexpr auto kTernary = table_of<256>([](unsigned pairs) {
  const auto value = [&](unsigned i) { return static_cast<float>(pairs >> (2 * i) & 3) - 1; };
  return Fours{value(0), value(1), value(2), value(3)};
});

void put_scaled(float* out, float d, const Fours& values) {
  for (size_t i = 0; i < 4; ++i) out[i] = d * values[i];
}

}  // namespace

void decode_block(float* out, const BlockIQ4_NL& block) {
  decode_nibbles(out, block.qs, 16, half_to_float(block.d), kIQ4Values);
}

void decode_block(float* out, const BlockMXFP4& block) {
  decode_nibbles(out, block.qs, 16, bf16_to_float(half_of_e8m0(block.e)), kE2M1Values);
}

void decode_block(float* out, const BlockNVFP4& block) {
  for (int s = 0; s < 4; ++s) decode_nibbles(out + 16 * s, block.qs + 8 * s, 8, kHalfOfE4M3[block.d[s]], kE2M1Values);
}

void decode_block(float* out, const BlockQ1_0& block) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < BlockQ1_0::kSize / 8; ++i) {
    put_scaled(out + 8 * i, d, kSigns[block.qs[i] & 15u]);
    put_scaled(out + 8 * i + 4, d, kSigns[block.qs[i] >> 4]);
  }
}

void decode_block(float* out, const BlockQ2_0& block) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < BlockQ2_0::kSize / 4; ++i) put_scaled(out + 4 * i, d, kTernary[block.qs[i]]);
}

}  // namespace octavo
