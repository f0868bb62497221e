// Small blocks with one scale or few, read only.
//
//   IQ4_NL  x = d * v[q]          32 weights   v: kIQ4Values
//   MXFP4   x = 2^(e - 128) * v   32 weights   v: twice the value of an E2M1 number; e: E8M0 (OCP Microscaling 1.0)
//   NVFP4   x = d / 2 * v         64 weights   d: E4M3 without sign, per 16 weights
//   Q1_0    x = +-d               128 weights  minus where the bit is not set
//   Q2_0    x = d * (q - 1)       64 weights
#pragma once

#include <cstdint>

namespace octavo {

// Twice the values of E2M1; each object has its own, as those of cpp/kernels/isa must.
constexpr int8_t kE2M1Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// IQ4_NL, MXFP4: byte i holds weight i in its low and weight 16 + i in its high nibble.
struct BlockIQ4_NL {
  static constexpr int kSize = 32;
  uint16_t d;  // half
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

struct BlockMXFP4 {
  static constexpr int kSize = 32;
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

// Byte 8 * s + i holds weight i of sub-block s in its low and weight 8 + i in its high nibble.
struct BlockNVFP4 {
  static constexpr int kSize = 64;
  uint8_t d[4];
  uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

struct BlockQ1_0 {
  static constexpr int kSize = 128;
  uint16_t d;      // half
  uint8_t qs[16];  // weight i in bit i % 8 of byte i / 8
};
static_assert(sizeof(BlockQ1_0) == 18);

struct BlockQ2_0 {
  static constexpr int kSize = 64;
  uint16_t d;      // half
  uint8_t qs[16];  // weight i in two bits from bit 2 * (i % 4) of byte i / 4
};
static_assert(sizeof(BlockQ2_0) == 18);

// 2^(e - 128) as bfloat16, which has them all; the two lowest are subnormal.
constexpr uint16_t half_of_e8m0(uint8_t e) { return static_cast<uint16_t>(e < 2 ? 0x0020 << e : (e - 1) << 7); }

void decode_block(float* out, const BlockIQ4_NL& block);
void decode_block(float* out, const BlockMXFP4& block);
void decode_block(float* out, const BlockNVFP4& block);
void decode_block(float* out, const BlockQ1_0& block);
void decode_block(float* out, const BlockQ2_0& block);

}  // namespace octavo
