#include "quant/planes.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/check.h"
#include "quant/fmt_kquants.h"
#include "quant/fmt_legacy.h"
#include "quant/fmt_small.h"
#include "quant/strip.h"

namespace octavo {
namespace {

constexpr int kBlock = 32;         // weights per block of the legacy formats
constexpr int kSuperBlock = 256;   // of the K-quants
constexpr int kSubs = 8 * kStrip;  // bytes of eight sub-scales or minima per row

// Bytes per plane that so many columns of a strip take; 0 columns: no planes.
struct PlaneBytes {
  int columns = 0, quants = 0, bits = 0, d = 0, m = 0, sub_scales = 0, sub_minima = 0;
};

PlaneBytes plane_bytes(Format format) {
  const FormatRow& row = format_row(format);
  if (row.to_integers != nullptr) return {kSuperBlock, kStrip * row.block_bytes};
  switch (format) {
    case Format::kF32: return {1, kLine};
    case Format::kF16: return {1, kHalves};
    case Format::kBF16: return {2, kLine};
    case Format::kQ4_0: return {kBlock, 4 * kLine, 0, kHalves};
    case Format::kQ4_1: return {kBlock, 4 * kLine, 0, kHalves, kHalves};
    case Format::kQ5_0: return {kBlock, 4 * kLine, kLine, kHalves};
    case Format::kQ5_1: return {kBlock, 4 * kLine, kLine, kHalves, kHalves};
    case Format::kQ8_0: return {kBlock, 8 * kLine, 0, kHalves};
    case Format::kIQ4_NL: return {kBlock, 4 * kLine, 0, kHalves};
    case Format::kMXFP4: return {kBlock, 4 * kLine, 0, kHalves};
    case Format::kQ2_K: return {kSuperBlock, 16 * kLine, 0, kHalves, kHalves, 2 * kSubs, 0};
    case Format::kQ3_K: return {kSuperBlock, 24 * kLine, 0, kHalves, 0, 2 * kSubs, 0};
    case Format::kIQ4_XS: return {kSuperBlock, 32 * kLine, 0, kHalves, 0, kSubs, 0};
    case Format::kQ4_K: return {kSuperBlock, 32 * kLine, 0, kHalves, kHalves, kSubs, kSubs};
    case Format::kQ5_K: return {kSuperBlock, 40 * kLine, 0, kHalves, kHalves, kSubs, kSubs};
    case Format::kQ6_K: return {kSuperBlock, 48 * kLine, 0, kHalves, 0, 2 * kSubs, 0};
    default: return {};
  }
}

// out[i][r] = element i of row r, in pieces of a cache line.
template <class T>
void transpose(uint8_t* out, const StripRows& rows, int64_t count) {
  constexpr int kPiece = kLine / sizeof(T);
  constexpr int kStep = kStrip * sizeof(T);
  for (int64_t i = 0; i < count; i += kPiece, out += kPiece * kStep) {
    const int n = static_cast<int>(std::min<int64_t>(kPiece, count - i));
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* in = rows.at(r, i * int64_t{sizeof(T)});
      for (int j = 0; j < n; ++j) std::memcpy(out + j * kStep + r * sizeof(T), in + j * sizeof(T), sizeof(T));
    }
  }
}

void repack_bf16(uint8_t* out, const StripRows& rows, int64_t k) {
  transpose<uint32_t>(out, rows, k / 2);
  if (k % 2 == 0) return;
  uint8_t* last = out + k / 2 * kLine;
  for (int r = 0; r < kStrip; ++r) {
    std::memcpy(last + 4 * r, rows.at(r, (k - 1) * 2), 2);
    std::memset(last + 4 * r + 2, 0, 2);
  }
}

// bits[j] gathers bits 4j..4j+3 of every row.
void put_bits(uint8_t* bits, const uint32_t* fifth) {
  for (int j = 0; j < 8; ++j) {
    uint64_t word = 0;
    for (int r = 0; r < kStrip; ++r) word |= static_cast<uint64_t>(fifth[r] >> (4 * j) & 15) << (4 * r);
    std::memcpy(bits + 8 * j, &word, 8);
  }
}

// Fields are moved straight from the source: a copy of the whole block first would halve the speed.
template <class Block>
void repack_blocks(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n_blocks) {
  constexpr int kLines = sizeof(Block::qs) / 4;
  for (int64_t b = 0; b < n_blocks; ++b) {
    [[maybe_unused]] uint32_t fifth[kStrip];
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* block = rows.at(r, b * int64_t{sizeof(Block)});
      put_lines<kLines>(strip + layout.quants + b * kLines * kLine, r, block + offsetof(Block, qs));
      std::memcpy(strip + layout.d + b * kHalves + 2 * r, block + offsetof(Block, d), 2);
      if constexpr (requires(Block x) { x.m; }) {
        std::memcpy(strip + layout.m + b * kHalves + 2 * r, block + offsetof(Block, m), 2);
      }
      if constexpr (requires(Block x) { x.qh; }) std::memcpy(&fifth[r], block + offsetof(Block, qh), 4);
    }
    if constexpr (requires(Block x) { x.qh; }) put_bits(strip + layout.bits + b * kLine, fifth);
  }
}

// Scales become bfloat16.
void repack_mxfp4(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, int64_t n_blocks) {
  for (int64_t b = 0; b < n_blocks; ++b)
    for (int r = 0; r < kStrip; ++r) {
      const uint8_t* block = rows.at(r, b * int64_t{sizeof(BlockMXFP4)});
      put_lines<4>(strip + layout.quants + b * 4 * kLine, r, block + offsetof(BlockMXFP4, qs));
      const uint16_t scale = half_of_e8m0(block[offsetof(BlockMXFP4, e)]);
      std::memcpy(strip + layout.d + b * kHalves + 2 * r, &scale, 2);
    }
}

// The 16 rows' blocks side by side.
void interleave_blocks(uint8_t* strip, const StripRows& rows, int64_t block_bytes, int64_t n_blocks) {
  for (int64_t b = 0; b < n_blocks; ++b)
    for (int r = 0; r < kStrip; ++r)
      std::memcpy(strip + (b * kStrip + r) * block_bytes, rows.at(r, b * block_bytes),
                  static_cast<size_t>(block_bytes));
}

void repack_strip(uint8_t* strip, const PlaneLayout& layout, const StripRows& rows, Format format, int64_t k) {
  switch (format) {
    case Format::kF32: return transpose<uint32_t>(strip, rows, k);
    case Format::kF16: return transpose<uint16_t>(strip, rows, k);
    case Format::kBF16: return repack_bf16(strip, rows, k);
    case Format::kQ4_0: return repack_blocks<BlockQ4_0>(strip, layout, rows, k / kBlock);
    case Format::kQ4_1: return repack_blocks<BlockQ4_1>(strip, layout, rows, k / kBlock);
    case Format::kQ5_0: return repack_blocks<BlockQ5_0>(strip, layout, rows, k / kBlock);
    case Format::kQ5_1: return repack_blocks<BlockQ5_1>(strip, layout, rows, k / kBlock);
    case Format::kQ8_0: return repack_blocks<BlockQ8_0>(strip, layout, rows, k / kBlock);
    case Format::kIQ4_NL: return repack_blocks<BlockIQ4_NL>(strip, layout, rows, k / kBlock);
    case Format::kMXFP4: return repack_mxfp4(strip, layout, rows, k / kBlock);
    case Format::kQ2_K:
    case Format::kQ3_K:
    case Format::kIQ4_XS:
    case Format::kQ4_K:
    case Format::kQ5_K:
    case Format::kQ6_K: return repack_kquants(strip, layout, rows, format, k / kSuperBlock);
    default: return interleave_blocks(strip, rows, format_row(format).block_bytes, k / kSuperBlock);
  }
}

}  // namespace

bool has_planes(Format format) { return plane_bytes(format).columns != 0; }

PlaneLayout plane_layout(Format format, int64_t k) {
  const PlaneBytes part = plane_bytes(format);
  OCTAVO_CHECK(part.columns != 0, format_row(format).name, " has no planes");
  OCTAVO_CHECK(k > 0 && k % format_row(format).block_size == 0, "a row of ", k, " weights cannot be ",
               format_row(format).name);
  const int64_t parts = (k + part.columns - 1) / part.columns;
  PlaneLayout layout;
  layout.bits = layout.quants + parts * part.quants;
  layout.sub_scales = layout.bits + parts * part.bits;
  layout.sub_minima = layout.sub_scales + parts * part.sub_scales;
  layout.d = layout.sub_minima + parts * part.sub_minima;
  layout.m = layout.d + parts * part.d;
  layout.bytes = (layout.m + parts * part.m + kLine - 1) / kLine * kLine;
  return layout;
}

void repack(uint8_t* planes, const uint8_t* rows, Format format, int64_t n, int64_t k, int64_t begin, int64_t end) {
  OCTAVO_CHECK(0 <= begin && end <= n_strips(n), "strips ", begin, "..", end, " of a matrix with ", n, " rows");
  const PlaneLayout layout = plane_layout(format, k);
  const auto bytes = static_cast<int64_t>(row_bytes(format, k));
  for (int64_t s = begin; s < end; ++s) {
    uint8_t* strip = planes + s * layout.bytes;
    std::memset(strip + layout.bytes - kLine, 0, kLine);  // what the strip does not fill of it stays as padding
    repack_strip(strip, layout, StripRows(rows + s * kStrip * bytes, bytes, n - s * kStrip), format, k);
  }
}

}  // namespace octavo
