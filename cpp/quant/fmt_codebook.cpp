#include "quant/fmt_codebook.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/dtype.h"
#include "quant/byte_words.h"
#include "quant/iq_grids.h"

namespace octavo {
namespace {

// levels: what the digits stand for.
template <class Word, int kEntries, size_t kLevels>
Codebook<Word, kEntries> unpack(const uint16_t (&grid)[kEntries], const uint8_t (&levels)[kLevels]) {
  constexpr int kValues = sizeof(Word), kBits = kValues == 4 ? 3 : 2;
  Codebook<Word, kEntries> book{};
  for (int i = 0; i < kEntries; ++i) {
    for (int j = 0; j < kValues; ++j)
      book.entries[i] |= Word{levels[grid[i] >> (kBits * j) & ((1 << kBits) - 1)]} << (8 * j);
    book.digits[0][i] = static_cast<uint8_t>(grid[i] & 255);
    book.digits[1][i] = static_cast<uint8_t>(grid[i] >> 8);
  }
  return book;
}

// Bytes of ones where a bit is set.
constexpr std::array<uint64_t, 256> make_sign_masks() {
  std::array<uint64_t, 256> masks{};
  for (size_t bits = 0; bits < 256; ++bits)
    for (size_t j = 0; j < 8; ++j)
      if (bits >> j & 1) masks[bits] |= uint64_t{255} << (8 * j);
  return masks;
}
constexpr std::array<uint64_t, 256> kSignMasks = make_sign_masks();

// Seven sign bits and the eighth that makes their number even.
constexpr std::array<uint64_t, 128> make_even_sign_masks() {
  std::array<uint64_t, 128> masks{};
  for (unsigned bits = 0; bits < 128; ++bits) masks[bits] = kSignMasks[bits | (std::popcount(bits) & 1u) << 7];
  return masks;
}
constexpr std::array<uint64_t, 128> kEvenSignMasks = make_even_sign_masks();

constexpr uint8_t kLevelsIQ1[] = {8, 16, 24};
constexpr uint8_t kLevelsIQ2[] = {8, 25, 43};
constexpr uint8_t kLevelsIQ3_XXS[] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr uint8_t kLevelsIQ3_S[] = {1, 3, 5, 7, 9, 11, 13, 15};

// Group i of eight: bias + magnitude, or bias - magnitude where the mask is set.
template <int kBias>
void put_group(IntBlock& out, int i, uint64_t magnitudes, uint64_t negative) {
  put_eight(out, i, kBias * kOnes + magnitudes - ((magnitudes & negative) << 1));
}

// Group i of eight: bias + 8 g + 1, or - 1.
void put_ternary(IntBlock& out, int i, uint64_t word, bool minus) {
  put_eight(out, i, minus ? word - kOnes : word + kOnes);
}

uint32_t word_at(const uint8_t* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

// d in the unit of the odd factors 2 s + 1; no minima.
void set_unit(IntBlock& out, float unit) {
  std::fill_n(out.mn, 16, uint8_t{0});
  out.d = unit;
  out.dmin = 0;
}

int8_t odd_factor(unsigned s) { return static_cast<int8_t>(2 * s + 1); }

}  // namespace

const Codebook<uint64_t, 2048> kCodebookIQ1 = unpack<uint64_t>(kGridIQ1, kLevelsIQ1);
const Codebook<uint64_t, 256> kCodebookIQ2_XXS = unpack<uint64_t>(kGridIQ2_XXS, kLevelsIQ2);
const Codebook<uint64_t, 512> kCodebookIQ2_XS = unpack<uint64_t>(kGridIQ2_XS, kLevelsIQ2);
const Codebook<uint64_t, 1024> kCodebookIQ2_S = unpack<uint64_t>(kGridIQ2_S, kLevelsIQ2);
const Codebook<uint32_t, 256> kCodebookIQ3_XXS = unpack<uint32_t>(kGridIQ3_XXS, kLevelsIQ3_XXS);
const Codebook<uint32_t, 512> kCodebookIQ3_S = unpack<uint32_t>(kGridIQ3_S, kLevelsIQ3_S);

void to_integers(IntBlock& out, const BlockIQ1_S& block) {
  set_unit(out, half_to_float(block.d) * 0.125f);
  for (int s = 0; s < 8; ++s) {
    const unsigned high = block.qh[s];
    out.sc[2 * s] = out.sc[2 * s + 1] = odd_factor(high >> 12 & 7);
    for (int i = 0; i < 4; ++i)
      put_ternary(out, 4 * s + i, kCodebookIQ1.entries[block.qs[4 * s + i] | (high >> (3 * i) & 7) << 8],
                  high >> 15 != 0);
  }
}

void to_integers(IntBlock& out, const BlockIQ1_M& block) {
  uint16_t scales[4], d = 0;
  std::memcpy(scales, block.scales, sizeof(scales));
  for (int i = 0; i < 4; ++i) d = static_cast<uint16_t>(d | (scales[i] >> 12) << (4 * i));
  set_unit(out, half_to_float(d) * 0.125f);
  for (int s = 0; s < 16; ++s) {
    out.sc[s] = odd_factor(scales[s / 4] >> (s % 4 * 3) & 7u);
    for (int i = 2 * s; i < 2 * s + 2; ++i) {
      const unsigned high = block.qh[i / 2] >> (i % 2 * 4) & 15u;
      put_ternary(out, i, kCodebookIQ1.entries[block.qs[i] | (high & 7) << 8], high >> 3 != 0);
    }
  }
}

void to_integers(IntBlock& out, const BlockIQ2_XXS& block) {
  set_unit(out, half_to_float(block.d) * 0.125f);
  for (int s = 0; s < 8; ++s) {
    const uint32_t signs = word_at(block.qs + 8 * s + 4);
    out.sc[2 * s] = out.sc[2 * s + 1] = odd_factor(signs >> 28);
    for (int i = 0; i < 4; ++i)
      put_group<BlockIQ2_XXS::kBias>(out, 4 * s + i, kCodebookIQ2_XXS.entries[block.qs[8 * s + i]],
                                     kEvenSignMasks[signs >> (7 * i) & 127]);
  }
}

void to_integers(IntBlock& out, const BlockIQ2_XS& block) {
  set_unit(out, half_to_float(block.d) * 0.125f);
  for (int s = 0; s < 16; ++s) out.sc[s] = odd_factor(block.scales[s / 2] >> (s % 2 * 4) & 15u);
  for (int i = 0; i < 32; ++i)
    put_group<BlockIQ2_XS::kBias>(out, i, kCodebookIQ2_XS.entries[block.qs[i] & 511], kEvenSignMasks[block.qs[i] >> 9]);
}

void to_integers(IntBlock& out, const BlockIQ2_S& block) {
  set_unit(out, half_to_float(block.d) * 0.125f);
  for (int s = 0; s < 16; ++s) out.sc[s] = odd_factor(block.scales[s / 2] >> (s % 2 * 4) & 15u);
  for (int i = 0; i < 32; ++i)
    put_group<BlockIQ2_S::kBias>(out, i,
                                 kCodebookIQ2_S.entries[block.qs[i] | (block.qh[i / 4] >> (i % 4 * 2) & 3u) << 8],
                                 kSignMasks[block.signs[i]]);
}

void to_integers(IntBlock& out, const BlockIQ3_XXS& block) {
  set_unit(out, half_to_float(block.d) * 0.25f);
  for (int s = 0; s < 8; ++s) {
    const uint32_t signs = word_at(block.scale_signs + 4 * s);
    out.sc[2 * s] = out.sc[2 * s + 1] = odd_factor(signs >> 28);
    for (int i = 0; i < 4; ++i) {
      const uint8_t* pair = block.qs + 8 * s + 2 * i;
      put_group<BlockIQ3_XXS::kBias>(
          out, 4 * s + i, kCodebookIQ3_XXS.entries[pair[0]] | uint64_t{kCodebookIQ3_XXS.entries[pair[1]]} << 32,
          kEvenSignMasks[signs >> (7 * i) & 127]);
    }
  }
}

void to_integers(IntBlock& out, const BlockIQ3_S& block) {
  set_unit(out, half_to_float(block.d));
  for (int s = 0; s < 8; ++s) {
    out.sc[2 * s] = out.sc[2 * s + 1] = odd_factor(block.scales[s / 2] >> (s % 2 * 4) & 15u);
    for (int i = 0; i < 4; ++i) {
      const uint8_t* pair = block.qs + 8 * s + 2 * i;
      const unsigned ninth = block.qh[s] >> (2 * i);
      put_group<BlockIQ3_S::kBias>(out, 4 * s + i,
                                   kCodebookIQ3_S.entries[pair[0] | (ninth & 1) << 8] |
                                       uint64_t{kCodebookIQ3_S.entries[pair[1] | (ninth >> 1 & 1) << 8]} << 32,
                                   kSignMasks[block.signs[4 * s + i]]);
    }
  }
}

}  // namespace octavo
