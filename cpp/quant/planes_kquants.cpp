// Repacks super blocks of 256 weights: one block of each row of a strip at a time.
#include <cstddef>
#include <cstring>

#include "quant/fmt_kquants.h"
#include "quant/fmt_lowbit.h"
#include "quant/strip.h"

namespace octavo {
namespace {

uint32_t dword(const uint8_t* bytes, int index) {
  uint32_t value;
  std::memcpy(&value, bytes + 4 * index, 4);
  return value;
}

// Bits of each byte of a dword, moved to another place of the same byte; no bit may leave its byte.
constexpr uint32_t right(uint32_t bytes, int shift, uint32_t mask) { return bytes >> shift & mask * 0x01010101u; }
constexpr uint32_t left(uint32_t bytes, int shift, uint32_t mask) { return (bytes & mask * 0x01010101u) << shift; }

// Two bytes per row, by pairs of sub-blocks.
void put_pairs(uint8_t* out, int row, const uint8_t* bytes, int n_pairs) {
  for (int i = 0; i < n_pairs; ++i) std::memcpy(out + 2 * kStrip * i + 2 * row, bytes + 2 * i, 2);
}

// Eight dwords of five-bit quants to five.
void pack_five(uint8_t* out, const uint32_t (&q)[8]) {
  const uint32_t lines[5] = {
      q[0] | left(q[5], 5, 7), q[1] | left(right(q[5], 3, 3), 5, 3) | left(right(q[7], 3, 1), 7, 1),
      q[2] | left(q[6], 5, 7), q[3] | left(right(q[6], 3, 3), 5, 3) | left(right(q[7], 4, 1), 7, 1),
      q[4] | left(q[7], 5, 7),
  };
  std::memcpy(out, lines, sizeof(lines));
}

// Four dwords of six-bit quants to three.
void pack_six(uint8_t* out, const uint32_t (&q)[4]) {
  const uint32_t lines[3] = {q[0] | left(q[3], 6, 3), q[1] | left(right(q[3], 2, 3), 6, 3),
                             q[2] | left(right(q[3], 4, 3), 6, 3)};
  std::memcpy(out, lines, sizeof(lines));
}

void put_quants5(uint8_t* lines, int row, const uint8_t* block) {
  const uint8_t *qs = block + offsetof(BlockQ5_K, qs), *qh = block + offsetof(BlockQ5_K, qh);
  for (int sub = 0; sub < 8; ++sub) {
    uint32_t q[8];
    for (int j = 0; j < 8; ++j) {
      const uint32_t nibbles = right(dword(qs, sub / 2 * 8 + j), sub % 2 * 4, 15);
      q[j] = nibbles | left(right(dword(qh, j), sub, 1), 4, 1);
    }
    uint8_t packed[20];
    pack_five(packed, q);
    put_lines<5>(lines + sub * 5 * kLine, row, packed);
  }
}

void put_quants6(uint8_t* lines, int row, const uint8_t* block) {
  const uint8_t *ql = block + offsetof(BlockQ6_K, ql), *qh = block + offsetof(BlockQ6_K, qh);
  for (int sub = 0; sub < 16; ++sub) {
    const int half = sub / 8, group = sub % 8 / 2;  // of 128 and of 32 weights
    uint32_t q[4];
    for (int j = 0; j < 4; ++j) {
      const int at = half * 8 + sub % 2 * 4 + j;
      const uint32_t nibbles = right(dword(ql, at + half * 8 + (group & 1) * 8), group / 2 * 4, 15);
      q[j] = nibbles | left(right(dword(qh, at), group * 2, 3), 4, 3);
    }
    uint8_t packed[12];
    pack_six(packed, q);
    put_lines<3>(lines + sub * 3 * kLine, row, packed);
  }
}

// Dwords of two-bit quants: four to one.
void put_quants2(uint8_t* lines, int row, const uint8_t* qs) {
  for (int pair = 0; pair < 8; ++pair) {
    uint32_t q[8];  // of both sub-blocks
    for (int j = 0; j < 8; ++j) q[j] = right(dword(qs, pair / 4 * 8 + j), pair % 4 * 2, 3);
    const uint32_t packed[2] = {q[0] | left(q[4], 2, 3) | left(q[1], 4, 3) | left(q[5], 6, 3),
                                q[2] | left(q[6], 2, 3) | left(q[3], 4, 3) | left(q[7], 6, 3)};
    put_lines<2>(lines + pair * 2 * kLine, row, reinterpret_cast<const uint8_t*>(packed));
  }
}

// Eight dwords of three-bit quants to three.
void put_quants3(uint8_t* lines, int row, const uint8_t* block) {
  const uint8_t *qs = block + offsetof(BlockQ3_K, qs), *hmask = block + offsetof(BlockQ3_K, hmask);
  for (int pair = 0; pair < 8; ++pair) {
    uint32_t q[8];
    for (int j = 0; j < 8; ++j)
      q[j] = right(dword(qs, pair / 4 * 8 + j), pair % 4 * 2, 3) | left(right(dword(hmask, j), pair, 1), 2, 1);
    const uint32_t packed[3] = {
        q[0] | left(q[1], 3, 7) | left(q[6], 6, 3), q[2] | left(q[3], 3, 7) | left(q[7], 6, 3),
        q[4] | left(q[5], 3, 7) | left(right(q[6], 2, 1), 6, 1) | left(right(q[7], 2, 1), 7, 1)};
    put_lines<3>(lines + pair * 3 * kLine, row, reinterpret_cast<const uint8_t*>(packed));
  }
}

// Where one super block of a strip goes; the parts of a row are moved straight from the source.
struct BlockPlanes {
  uint8_t *quants, *scales, *minima, *d, *dmin;

  BlockPlanes(uint8_t* strip, const PlaneLayout& layout, int64_t n_lines, int64_t n_subs, int64_t b)
      : quants(strip + layout.quants + b * n_lines * kLine),
        scales(strip + layout.sub_scales + b * n_subs * kStrip),
        minima(strip + layout.sub_minima + b * n_subs * kStrip),
        d(strip + layout.d + b * kHalves),
        dmin(strip + layout.m + b * kHalves) {}
};

// Q4_K and Q5_K.
template <class Block>
void put_scales(const BlockPlanes& planes, int row, const uint8_t* block) {
  const SubScales scales = unpack_scales(block + offsetof(Block, scales));
  put_pairs(planes.scales, row, scales.sc, 4);
  put_pairs(planes.minima, row, scales.mn, 4);
  std::memcpy(planes.d + 2 * row, block + offsetof(Block, d), 2);
  std::memcpy(planes.dmin + 2 * row, block + offsetof(Block, dmin), 2);
}

void repack_q2(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n) {
  for (int64_t b = 0; b < n; ++b) {
    const BlockPlanes planes(strip, layout, 16, 16, b);
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* block = rows.at(r, b * int64_t{sizeof(BlockQ2_K)});
      put_quants2(planes.quants, r, block + offsetof(BlockQ2_K, qs));
      put_pairs(planes.scales, r, block + offsetof(BlockQ2_K, scales), 8);
      std::memcpy(planes.d + 2 * r, block + offsetof(BlockQ2_K, d), 2);
      std::memcpy(planes.dmin + 2 * r, block + offsetof(BlockQ2_K, dmin), 2);
    }
  }
}

void repack_q3(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n) {
  for (int64_t b = 0; b < n; ++b) {
    const BlockPlanes planes(strip, layout, 24, 16, b);
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* block = rows.at(r, b * int64_t{sizeof(BlockQ3_K)});
      put_quants3(planes.quants, r, block);
      int8_t scales[16];
      unpack_scales(scales, block + offsetof(BlockQ3_K, scales));
      put_pairs(planes.scales, r, reinterpret_cast<const uint8_t*>(scales), 8);
      std::memcpy(planes.d + 2 * r, block + offsetof(BlockQ3_K, d), 2);
    }
  }
}

void repack_iq4(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n) {
  for (int64_t b = 0; b < n; ++b) {
    const BlockPlanes planes(strip, layout, 32, 8, b);
    for (int r = 0; r < kStrip; ++r) {
      BlockIQ4_XS block;
      std::memcpy(&block, rows.at(r, b * int64_t{sizeof(block)}), sizeof(block));
      put_lines<32>(planes.quants, r, block.qs);
      int8_t scales[8];
      unpack_scales(scales, block);
      put_pairs(planes.scales, r, reinterpret_cast<const uint8_t*>(scales), 4);
      std::memcpy(planes.d + 2 * r, &block.d, 2);
    }
  }
}

void repack_q4(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n) {
  for (int64_t b = 0; b < n; ++b) {
    const BlockPlanes planes(strip, layout, 32, 8, b);
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* block = rows.at(r, b * int64_t{sizeof(BlockQ4_K)});
      put_lines<32>(planes.quants, r, block + offsetof(BlockQ4_K, qs));
      put_scales<BlockQ4_K>(planes, r, block);
    }
  }
}

void repack_q5(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n) {
  for (int64_t b = 0; b < n; ++b) {
    const BlockPlanes planes(strip, layout, 40, 8, b);
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* block = rows.at(r, b * int64_t{sizeof(BlockQ5_K)});
      put_quants5(planes.quants, r, block);
      put_scales<BlockQ5_K>(planes, r, block);
    }
  }
}

void repack_q6(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n) {
  for (int64_t b = 0; b < n; ++b) {
    const BlockPlanes planes(strip, layout, 48, 16, b);
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* block = rows.at(r, b * int64_t{sizeof(BlockQ6_K)});
      put_quants6(planes.quants, r, block);
      put_pairs(planes.scales, r, block + offsetof(BlockQ6_K, scales), 8);
      std::memcpy(planes.d + 2 * r, block + offsetof(BlockQ6_K, d), 2);
    }
  }
}

}  // namespace

void repack_kquants(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, Format format, int64_t n) {
  switch (format) {
    case Format::kQ2_K: return repack_q2(strip, layout, rows, n);
    case Format::kQ3_K: return repack_q3(strip, layout, rows, n);
    case Format::kIQ4_XS: return repack_iq4(strip, layout, rows, n);
    case Format::kQ4_K: return repack_q4(strip, layout, rows, n);
    case Format::kQ5_K: return repack_q5(strip, layout, rows, n);
    default: return repack_q6(strip, layout, rows, n);
  }
}

}  // namespace octavo
