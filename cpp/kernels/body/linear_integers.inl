// Linears over super blocks that only their format's own code unpacks (FormatRow::to_integers): rows become integers,
// which are multiplied as the K-quants are. A strip holds [k / 256][16 rows] blocks as in the file. Where tokens are
// many, a panel of unpacked strips serves them all.

#pragma once

#include "kernels/body/linear_q8x256.inl"
#include "quant/int_block.h"

namespace octavo {
namespace {

// Sub-blocks of kSubSize weights, quants up to kMax that are 2^kShift too high, or not at all where there are minima.
template <int kSubSize, int kShift, int kMax, bool kMinima = false>
struct Integers {
  static constexpr int kDwords = kSubSize / 4, kPairs = 128 / kSubSize, kMaxQuant = kMax, kBiasShift = kShift;
  static constexpr int kBytes = 0;  // reading ahead is done while unpacking
  static constexpr bool kMin = kMinima;
};

// kLanes dwords.
using Dwords = int32_t __attribute__((vector_size(kLanes * 4)));

// a[0] b[0] a[1] b[1] ... from element `first` of both.
inline Dwords interleave(Dwords a, Dwords b, int first) {
  Dwords order;
  for (int i = 0; i < kLanes; ++i) order[i] = first + i / 2 + i % 2 * kLanes;
  return __builtin_shuffle(a, b, order);
}

// A square of kLanes rows of dwords turned over: each round moves one bit of an element's row to its column.
inline void transpose(uint8_t* out, int64_t out_stride, const uint8_t* in, int64_t in_stride) {
  Dwords rows[2][kLanes];
  for (int i = 0; i < kLanes; ++i) __builtin_memcpy(&rows[0][i], in + i * in_stride, sizeof(Dwords));
  int at = 0;
  for (int round = 1; round < kLanes; round *= 2, at = 1 - at)
    for (int i = 0; i < kLanes / 2; ++i) {
      const Dwords a = rows[at][i], b = rows[at][i + kLanes / 2];
      rows[1 - at][2 * i] = interleave(a, b, 0);
      rows[1 - at][2 * i + 1] = interleave(a, b, kLanes / 2);
    }
  for (int i = 0; i < kLanes; ++i) __builtin_memcpy(out + i * out_stride, &rows[at][i], sizeof(Dwords));
}

// A super block of a strip, unpacked.
template <class Planes>
struct alignas(64) IntegerBlock {
  uint8_t lines[64][64];  // byte 4 * row + b of line j: weight 4 * j + b
  uint8_t scales[Planes::kPairs][16][2], minima[Planes::kPairs][16][2];
  float d[16], dmin[16];

  void fill(const LinearTask& task, int strip, int64_t block) {
    const int64_t bytes = task.format->block_bytes;
    const uint8_t* blocks = task.weights + strip * integer_strip_bytes(task) + block * 16 * bytes;
    const int64_t distance = distance_ahead(task.k / 256 * 16 * bytes);
    alignas(64) uint8_t rows[16][256];
    for (int row = 0; row < 16; ++row) {
      for (int64_t i = 0; i < bytes; i += 64) fetch_far(blocks + row * bytes + distance + i);
      put_row(row, rows[row], *task.format, blocks + row * bytes);
    }
    for (int row = 0; row < 16; row += kLanes)
      for (int j = 0; j < 64; j += kLanes) transpose(lines[j] + 4 * row, sizeof(lines[0]), rows[row] + 4 * j, 256);
  }

 private:
  void put_row(int row, uint8_t* u, const FormatRow& format, const uint8_t* bytes) {
    constexpr int kSixteens = Planes::kDwords / 4;  // of a sub-block
    IntBlock block;
    block.u = u;
    format.to_integers(block, bytes);
    for (int sub = 0; sub < 2 * Planes::kPairs; ++sub) {
      scales[sub / 2][row][sub % 2] = static_cast<uint8_t>(block.sc[sub * kSixteens]);
      if constexpr (Planes::kMin) minima[sub / 2][row][sub % 2] = block.mn[sub * kSixteens];
    }
    d[row] = block.d;
    dmin[row] = block.dmin;
  }
};

// The same super block of kStrips strips, by columns as in Dots.
template <class Planes, int kStrips>
struct IntegerStrips {
  static constexpr int kColumns = kStrips * kVecs;
  const IntegerBlock<Planes>* strips[kStrips];
  int64_t index;
  const uint8_t* share = nullptr;
  int64_t distance = 0;

  Vi weights(int pair, int half, int j, int c) const {
    return load_bytes(of(c).lines[(2 * pair + half) * Planes::kDwords + j] + row(c) * 4);
  }
  Vi scale_pairs(int pair, int c) const {
    const uint8_t* at = of(c).scales[pair][row(c)];
    return Planes::kMin ? load_u8_pairs(at) : load_s8_pairs(at);
  }
  Vi sum_factors(int pair, int c) const {
    return Planes::kMin ? load_u8_pairs(of(c).minima[pair][row(c)]) : scale_pairs(pair, c);
  }
  Vf unit(int c) const { return load(of(c).d + row(c)); }
  Vf min_unit(int c) const { return load(of(c).dmin + row(c)); }

 private:
  const IntegerBlock<Planes>& of(int c) const { return *strips[c / kVecs]; }
  static int row(int c) { return c % kVecs * kLanes; }
};

// block(strip, b): the unpacked super block b of a strip.
template <class Planes, int kStrips, class BlockAt>
void multiply_integers(const LinearTask& task, int s, BlockAt block) {
  for (int i = 0; i < kStrips; ++i) start_strip(task, s + i);
  for (int64_t b = 0; b < task.k / 256; ++b) {
    IntegerStrips<Planes, kStrips> strips;
    strips.index = b;
    for (int i = 0; i < kStrips; ++i) strips.strips[i] = block(s + i, b);
    q8x256_tokens<Planes>(task, task.out + s * 16, strips, strips);
  }
}

template <class Planes, class BlockAt>
void linear_integers(const LinearTask& task, BlockAt block) {
  int s = 0;
  if (kTileStrips > 1 && task.n_tokens >= kQ8Tokens)
    for (; s + kTileStrips <= task.n_strips; s += kTileStrips) multiply_integers<Planes, kTileStrips>(task, s, block);
  for (; s < task.n_strips; ++s) multiply_integers<Planes, 1>(task, s, block);
}

// Unpacks as it goes.
template <class Planes>
void linear_integers(const LinearTask& task) {
  IntegerBlock<Planes> blocks[kTileStrips];
  linear_integers<Planes>(task, [&](int strip, int64_t b) {
    IntegerBlock<Planes>& block = blocks[strip % kTileStrips];
    block.fill(task, strip, b);
    return &block;
  });
}

// task.weights: a panel of strips that unpack_integers made.
template <class Planes>
void linear_unpacked(const LinearTask& task) {
  const auto* panel = reinterpret_cast<const IntegerBlock<Planes>*>(task.weights);
  linear_integers<Planes>(task, [&](int strip, int64_t b) { return panel + strip * (task.k / 256) + b; });
}

template <class Planes>
void unpack_integers(uint8_t* panel, const LinearTask& task) {
  auto* block = reinterpret_cast<IntegerBlock<Planes>*>(panel);
  for (int s = 0; s < task.n_strips; ++s)
    for (int64_t b = 0; b < task.k / 256; ++b) (block++)->fill(task, s, b);
}

}  // namespace
}  // namespace octavo
