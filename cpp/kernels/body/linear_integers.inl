// Linears over super blocks that only their format's own code unpacks (FormatRow::to_integers): 16 rows at a time
// become integers, which are multiplied with all tokens as the K-quants are. A strip holds [k / 256][16 rows] blocks as
// in the file.

#pragma once

#include "kernels/body/linear_q8x256.inl"
#include "quant/int_block.h"

namespace octavo {
namespace {

// Sub-blocks of 16 weights, quants up to kMax that are 2^kShift too high, or not at all where there are minima.
template <int kShift, int kMax, bool kMinima = false>
struct Integers {
  static constexpr int kDwords = 4, kPairs = 8, kMaxQuant = kMax, kBiasShift = kShift;
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

template <class Planes>
struct IntegerBlock {
  static constexpr int kColumns = kVecs;
  alignas(64) uint8_t lines[64][64];  // byte 4 * row + b of line j: weight 4 * j + b
  alignas(64) uint8_t scales[Planes::kPairs][16][2], minima[Planes::kPairs][16][2];
  alignas(64) float d[16], dmin[16];
  int64_t index;
  const uint8_t* ahead = nullptr;

  IntegerBlock(const LinearTask& task, const uint8_t* strip, int64_t block) : index(block) {
    const int64_t bytes = task.format->block_bytes;
    const uint8_t* blocks = strip + block * 16 * bytes;
    const int64_t distance = distance_ahead(task.k / 256 * 16 * bytes);
    alignas(64) uint8_t rows[16][256];
    for (int row = 0; row < 16; ++row) {
      for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(blocks + row * bytes + distance + i);
      put_row(row, rows[row], *task.format, blocks + row * bytes);
    }
    for (int row = 0; row < 16; row += kLanes)
      for (int j = 0; j < 64; j += kLanes) transpose(lines[j] + 4 * row, sizeof(lines[0]), rows[row] + 4 * j, 256);
  }

  Vi weights(int pair, int half, int j, int v) const {
    return load_bytes(lines[(2 * pair + half) * 4 + j] + v * kLanes * 4);
  }
  Vi scale_pairs(int pair, int v) const { return load_s8_pairs(scales[pair][v * kLanes]); }
  Vi sum_factors(int pair, int v) const {
    return Planes::kMin ? load_u8_pairs(minima[pair][v * kLanes]) : scale_pairs(pair, v);
  }
  Vf unit(int v) const { return load(d + v * kLanes); }
  Vf min_unit(int v) const { return load(dmin + v * kLanes); }

 private:
  void put_row(int row, uint8_t* u, const FormatRow& format, const uint8_t* bytes) {
    IntBlock block;
    block.u = u;
    format.to_integers(block, bytes);
    for (int pair = 0; pair < Planes::kPairs; ++pair) {
      __builtin_memcpy(scales[pair][row], block.sc + 2 * pair, 2);
      if constexpr (Planes::kMin) __builtin_memcpy(minima[pair][row], block.mn + 2 * pair, 2);
    }
    d[row] = block.d;
    dmin[row] = block.dmin;
  }
};

template <class Planes>
void linear_integers(const LinearTask& task) {
  const int64_t n = task.k / 256, strip_bytes = integer_strip_bytes(task);
  for (int s = 0; s < task.n_strips; ++s) {
    start_strip(task, s);
    for (int64_t b = 0; b < n; ++b) {
      const IntegerBlock<Planes> block(task, task.weights + s * strip_bytes, b);
      q8x256_tokens<Planes>(task, task.out + s * 16, block, block);
    }
  }
}

}  // namespace
}  // namespace octavo
