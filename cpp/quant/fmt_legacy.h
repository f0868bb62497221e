// Formats with one half-precision scale per 32 weights.
//
//   Q4_0  x = d * (q - 8)      Q4_1  x = d * q + m      q in 0..15
//   Q5_0  x = d * (q - 16)     Q5_1  x = d * q + m      q in 0..31
//   Q8_0  x = d * q                                     q in -128..127
//
// Byte i of `qs` holds the low four bits of weight i in its low and of weight 16 + i in its high nibble;
// bit i of `qh`, a little-endian 32-bit word, is the fifth bit of weight i.
#pragma once

#include <cstdint>

namespace octavo {

struct BlockQ4_0 {
  static constexpr int kSize = 32;
  uint16_t d;  // half
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {
  static constexpr int kSize = 32;
  uint16_t d;  // half
  uint16_t m;  // half
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

struct BlockQ5_0 {
  static constexpr int kSize = 32;
  uint16_t d;  // half
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 {
  static constexpr int kSize = 32;
  uint16_t d;  // half
  uint16_t m;  // half
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

struct BlockQ8_0 {
  static constexpr int kSize = 32;
  uint16_t d;  // half
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// The scalar references: 32 weights from and to one block.
void decode_block(float* out, const BlockQ4_0& block);
void decode_block(float* out, const BlockQ4_1& block);
void decode_block(float* out, const BlockQ5_0& block);
void decode_block(float* out, const BlockQ5_1& block);
void decode_block(float* out, const BlockQ8_0& block);

void encode_block(BlockQ4_0& block, const float* in);
void encode_block(BlockQ4_1& block, const float* in);
void encode_block(BlockQ5_0& block, const float* in);
void encode_block(BlockQ5_1& block, const float* in);
void encode_block(BlockQ8_0& block, const float* in);

}  // namespace octavo
