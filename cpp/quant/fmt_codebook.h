// Formats of 256 weights whose magnitudes are entries of a codebook (quant/iq_grids.h), read only.
//
//   IQ1_S    x = d / 8 * (2 s + 1) * (8 g +- 1)   11-bit entries of eight; s and the sign per 32 weights
//   IQ1_M    the same                             s per 16, the sign per 8 weights
//   IQ2_XXS  x = d / 8 * (2 s + 1) * (+-g)        8-bit entries of eight; s per 32, 7 sign bits per 8 weights
//   IQ2_XS   the same                             9-bit entries; s per 16
//   IQ2_S    the same                             10-bit entries, 8 sign bits
//   IQ3_XXS  x = d / 4 * (2 s + 1) * (+-g)        8-bit entries of four; s per 32, 7 sign bits per 8 weights
//   IQ3_S    x = d * (2 s + 1) * (+-g)            9-bit entries of four; s per 32, 8 sign bits
//
// Of seven sign bits the eighth makes their number even.
#pragma once

#include <cstdint>

#include "quant/int_block.h"

namespace octavo {

// A codebook of eight (uint64_t) or four (uint32_t) magnitudes an entry.
template <class WordOfEntry, int kEntries>
struct Codebook {
  static constexpr int kSize = kEntries;
  using Word = WordOfEntry;
  Word entries[kEntries];                   // a byte each
  alignas(64) uint8_t digits[2][kEntries];  // packed as in quant/iq_grids.h: the lower bytes, the upper bytes
};

// qh[s]: the upper three bits of the sub-block's four entries, s in bits 12-14, the sign in bit 15.
struct BlockIQ1_S {
  static constexpr int kSize = 256, kBias = 16;
  using Codebook = octavo::Codebook<uint64_t, 2048>;  // of 8 g + kBias
  uint16_t d;                                         // half
  uint8_t qs[32];
  uint16_t qh[8];
};
static_assert(sizeof(BlockIQ1_S) == 50);

// A nibble of qh: the upper three bits of an entry and its sign. `scales` is four 16-bit words: four numbers s of three
// bits each, and above them a nibble of d.
struct BlockIQ1_M {
  static constexpr int kSize = 256, kBias = 16;
  using Codebook = BlockIQ1_S::Codebook;
  uint8_t qs[32];
  uint8_t qh[16];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ1_M) == 56);

// Eight bytes a sub-block: four entries, then four times seven sign bits and s above them.
struct BlockIQ2_XXS {
  static constexpr int kSize = 256, kBias = 64;
  using Codebook = octavo::Codebook<uint64_t, 256>;
  uint16_t d;  // half
  uint8_t qs[64];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

// qs: an entry in nine bits, seven sign bits above; scales: a nibble per 16 weights.
struct BlockIQ2_XS {
  static constexpr int kSize = 256, kBias = 64;
  using Codebook = octavo::Codebook<uint64_t, 512>;
  uint16_t d;  // half
  uint16_t qs[32];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

// qh[s]: the upper two bits of the sub-block's four entries.
struct BlockIQ2_S {
  static constexpr int kSize = 256, kBias = 64;
  using Codebook = octavo::Codebook<uint64_t, 1024>;
  uint16_t d;  // half
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

// scale_signs[s], a 32-bit word: four times seven sign bits and s above them.
struct BlockIQ3_XXS {
  static constexpr int kSize = 256, kBias = 64;
  using Codebook = octavo::Codebook<uint32_t, 256>;
  uint16_t d;  // half
  uint8_t qs[64];
  uint8_t scale_signs[32];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

// qh[s]: the ninth bit of the sub-block's eight entries.
struct BlockIQ3_S {
  static constexpr int kSize = 256, kBias = 16;
  using Codebook = octavo::Codebook<uint32_t, 512>;
  uint16_t d;  // half
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

extern const BlockIQ1_S::Codebook kCodebookIQ1;
extern const BlockIQ2_XXS::Codebook kCodebookIQ2_XXS;
extern const BlockIQ2_XS::Codebook kCodebookIQ2_XS;
extern const BlockIQ2_S::Codebook kCodebookIQ2_S;
extern const BlockIQ3_XXS::Codebook kCodebookIQ3_XXS;
extern const BlockIQ3_S::Codebook kCodebookIQ3_S;

void to_integers(IntBlock& out, const BlockIQ1_S& block);
void to_integers(IntBlock& out, const BlockIQ1_M& block);
void to_integers(IntBlock& out, const BlockIQ2_XXS& block);
void to_integers(IntBlock& out, const BlockIQ2_XS& block);
void to_integers(IntBlock& out, const BlockIQ2_S& block);
void to_integers(IntBlock& out, const BlockIQ3_XXS& block);
void to_integers(IntBlock& out, const BlockIQ3_S& block);

}  // namespace octavo
