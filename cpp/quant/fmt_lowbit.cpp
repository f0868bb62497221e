#include "quant/fmt_lowbit.h"

#include <algorithm>

#include "base/dtype.h"
#include "quant/byte_words.h"

namespace octavo {
namespace {

// Two-bit quants: group g of 32 in each half of 128; more(g, i) is added to bytes 8i.. of a group.
template <class More>
void unpack_pairs(IntBlock& out, const uint8_t* qs, More more) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 4; ++i) {
      const uint64_t word = load_eight(qs + 32 * half + 8 * i);
      for (int g = 0; g < 4; ++g)
        put_eight(out, 16 * half + 4 * g + i, (word >> (2 * g) & 3 * kOnes) + more(4 * half + g, i));
    }
}

constexpr auto kNoMore = [](int, int) { return uint64_t{0}; };

// The same for all sub-blocks, and no minima.
void set_scale(IntBlock& out, uint16_t d, int8_t sc) {
  std::fill_n(out.sc, 16, sc);
  std::fill_n(out.mn, 16, uint8_t{0});
  out.d = half_to_float(d);
  out.dmin = 0;
}

// Digits of n bytes whose weights are n apart.
void unpack_digits(uint8_t* u, const uint8_t* bytes, int n, int digits) {
  uint8_t power = 1;
  for (int digit = 0; digit < digits; ++digit, power = static_cast<uint8_t>(power * 3))
    for (int i = 0; i < n; ++i) {
      const auto rest = static_cast<uint8_t>(bytes[i] * power);
      u[digit * n + i] = static_cast<uint8_t>(rest * 3 >> 8);
    }
}

}  // namespace

void unpack_scales(int8_t (&sc)[16], const uint8_t* packed) {
  for (int s = 0; s < 16; ++s) {
    const int low = packed[s % 8] >> (s / 8 * 4) & 15, high = packed[8 + s % 4] >> (s / 4 * 2) & 3;
    sc[s] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

void unpack_scales(int8_t (&sc)[8], const BlockIQ4_XS& block) {
  for (int s = 0; s < 8; ++s) {
    const int low = block.scales_l[s / 2] >> (s % 2 * 4) & 15, high = block.scales_h >> (2 * s) & 3;
    sc[s] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

void to_integers(IntBlock& out, const BlockQ2_K& block) {
  unpack_pairs(out, block.qs, kNoMore);
  for (int s = 0; s < 16; ++s) {
    out.sc[s] = static_cast<int8_t>(block.scales[s] & 15);
    out.mn[s] = static_cast<uint8_t>(block.scales[s] >> 4);
  }
  out.d = half_to_float(block.d);
  out.dmin = half_to_float(block.dmin);
}

void to_integers(IntBlock& out, const BlockQ3_K& block) {
  unpack_pairs(out, block.qs, [&](int g, int i) { return (load_eight(block.hmask + 8 * i) >> g & kOnes) << 2; });
  set_scale(out, block.d, 0);
  unpack_scales(out.sc, block.scales);
}

void to_integers(IntBlock& out, const BlockIQ4_XS& block) {
  set_scale(out, block.d, 0);
  int8_t sc[8];
  unpack_scales(sc, block);
  uint8_t u[256];  // not through the pointer, which could point anywhere
  for (int s = 0; s < 8; ++s) {
    out.sc[2 * s] = out.sc[2 * s + 1] = sc[s];
    for (int i = 0; i < 16; ++i) {
      const uint8_t pair = block.qs[16 * s + i];
      u[32 * s + i] = static_cast<uint8_t>(kIQ4Values[pair & 15] + BlockIQ4_XS::kBias);
      u[32 * s + 16 + i] = static_cast<uint8_t>(kIQ4Values[pair >> 4] + BlockIQ4_XS::kBias);
    }
  }
  std::copy_n(u, 256, out.u);
}

void to_integers(IntBlock& out, const BlockTQ1_0& block) {
  set_scale(out, block.d, 1);
  uint8_t u[256];
  unpack_digits(u, block.qs, 32, 5);
  unpack_digits(u + 160, block.qs + 32, 16, 5);
  unpack_digits(u + 240, block.qh, 4, 4);
  std::copy_n(u, 256, out.u);
}

void to_integers(IntBlock& out, const BlockTQ2_0& block) {
  set_scale(out, block.d, 1);
  unpack_pairs(out, block.qs, kNoMore);
}

}  // namespace octavo
