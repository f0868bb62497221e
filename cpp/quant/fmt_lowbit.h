// Formats of 256 weights with few bits, read only.
//
//   Q2_K    x = (d * sc) * q - (dmin * mn)   q in 0..3       sc, mn in 0..15 per 16 weights
//   Q3_K    x = (d * sc) * q                 q in -4..3      sc in -32..31 per 16 weights
//   IQ4_XS  x = (d * sc) * v[q]              q in 0..15      sc in -32..31 per 32 weights; v: kIQ4Values
//   TQ1_0   x = d * q                        q in -1..1      five to a byte, as digits of a base-3 fraction
//   TQ2_0   x = d * q                        q in -1..2
#pragma once

#include <cstdint>

#include "quant/int_block.h"

namespace octavo {

// What the nibbles of IQ4_NL and IQ4_XS stand for; each object has its own, as those of cpp/kernels/isa must.
constexpr int8_t kIQ4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Byte 32 * half + i of `qs` holds weight i of four groups of 32 in bits 0-1, 2-3, 4-5 and 6-7; scales[s] has sc in its
// low and mn in its high nibble.
struct BlockQ2_K {
  static constexpr int kSize = 256, kBias = 0;
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;     // half
  uint16_t dmin;  // half
};
static_assert(sizeof(BlockQ2_K) == 84);

// Quants as in Q2_K; bit g of hmask[i] says that weight i of group g is not 4 less. `scales` packs 16 numbers of six
// bits, 32 too high: the low four bits of s and s + 8 in byte s, the upper two of s in byte 8 + s % 4 at bit 2 * (s /
// 4).
struct BlockQ3_K {
  static constexpr int kSize = 256, kBias = 4;
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;  // half
};
static_assert(sizeof(BlockQ3_K) == 110);

// Byte 16 * s + i of `qs` holds weight i of sub-block s in its low and weight 16 + i in its high nibble. Sub-scales are
// 32 too high: the low four bits in the nibbles of scales_l, the upper two in scales_h at bit 2 * s.
struct BlockIQ4_XS {
  static constexpr int kSize = 256, kBias = 128;
  uint16_t d;  // half
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// Digit n of qs[i] is weight 32 * n + i of the first 160, of qs[32 + i] weight 160 + 16 * n + i, of qh[i] weight
// 240 + 4 * n + i. Digit n of byte b is the integer part of 3 * (b * 3^n mod 256) / 256.
struct BlockTQ1_0 {
  static constexpr int kSize = 256, kBias = 1;
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;  // half
};
static_assert(sizeof(BlockTQ1_0) == 54);

// Quants as in Q2_K, 1 too high.
struct BlockTQ2_0 {
  static constexpr int kSize = 256, kBias = 1;
  uint8_t qs[64];
  uint16_t d;  // half
};
static_assert(sizeof(BlockTQ2_0) == 66);

// The sub-scales of Q3_K and IQ4_XS, without what they are too high.
void unpack_scales(int8_t (&sc)[16], const uint8_t* packed);
void unpack_scales(int8_t (&sc)[8], const BlockIQ4_XS& block);

void to_integers(IntBlock& out, const BlockQ2_K& block);
void to_integers(IntBlock& out, const BlockQ3_K& block);
void to_integers(IntBlock& out, const BlockIQ4_XS& block);
void to_integers(IntBlock& out, const BlockTQ1_0& block);
void to_integers(IntBlock& out, const BlockTQ2_0& block);

}  // namespace octavo
