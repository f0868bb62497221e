// Formats of 256 weights with integer sub-scales.
//
//   Q4_K  x = (d * sc) * q - (dmin * mn)    q in 0..15     sc, mn in 0..63 per 32 weights
//   Q5_K  x = (d * sc) * q - (dmin * mn)    q in 0..31     sc, mn in 0..63 per 32 weights
//   Q6_K  x = (d * sc) * (q - 32)           q in 0..63     sc in -128..127 per 16 weights
#pragma once

#include <cstdint>

namespace octavo {

// Q4_K, Q5_K: byte 32*p + i of `qs` holds the low four bits of weight i of sub-block 2p in its low and of
// sub-block 2p + 1 in its high nibble; bit s of qh[i] is the fifth bit of weight i of sub-block s.
// `scales` packs eight 6-bit pairs: bytes 0..3 are sc[0..3] and 4..7 mn[0..3] in their low six bits, the
// upper two bits of each are those of sc[4..7] and mn[4..7]; bytes 8..11 hold the low four bits of sc[4..7]
// (low nibble) and mn[4..7] (high nibble).
struct BlockQ4_K {
  static constexpr int kSize = 256;
  uint16_t d;     // half
  uint16_t dmin;  // half
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {
  static constexpr int kSize = 256;
  uint16_t d;     // half
  uint16_t dmin;  // half
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

struct SubScales {
  uint8_t sc[8], mn[8];
};
SubScales unpack_scales(const uint8_t* packed);

// Each half of 128 weights has four groups g of 32: the low four bits of weight i are in ql[32 * (g & 1) + i],
// low nibble for g < 2, the upper two in qh[i] at bit 2g.
struct BlockQ6_K {
  static constexpr int kSize = 256;
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;  // half
};
static_assert(sizeof(BlockQ6_K) == 210);

// The scalar references: 256 weights from and to one block.
void decode_block(float* out, const BlockQ4_K& block);
void decode_block(float* out, const BlockQ5_K& block);
void decode_block(float* out, const BlockQ6_K& block);

void encode_block(BlockQ4_K& block, const float* in);
void encode_block(BlockQ5_K& block, const float* in);
void encode_block(BlockQ6_K& block, const float* in);

}  // namespace octavo
