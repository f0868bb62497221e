// Linears over F32, F16 and BF16 planes: one chain of multiply-adds over ascending k for every output.

#pragma once

#include "kernels/body/linear.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// kTokens tokens by kCols vectors of rows.
template <int kTokens, int kCols>
using FloatTile = Vf[kTokens][kCols];

// tile += weights * x[.][k]
template <int kTokens, int kCols>
inline void add_column(FloatTile<kTokens, kCols>& tile, const Vf (&weights)[kCols], const float* const (&x)[kTokens],
                       int k) {
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const Vf value = set1(x[t][k]);
    OCTAVO_UNROLL
    for (int c = 0; c < kCols; ++c) tile[t][c] = fma(weights[c], value, tile[t][c]);
  }
}

// Weight columns of several strips: vector c is rows c * kLanes .. of the strips side by side. accumulate adds columns
// [begin, end) of n; begin is even.
struct F32Planes {
  static int64_t strip_bytes(int k) { return int64_t{k} * 64; }
  template <int kTokens, int kCols>
  static void accumulate(FloatTile<kTokens, kCols>& tile, const uint8_t* strips, const float* const (&x)[kTokens],
                         int n, int begin, int end) {
    for (int k = begin; k < end; ++k) {
      Vf weights[kCols];
      OCTAVO_UNROLL
      for (int c = 0; c < kCols; ++c)
        weights[c] =
            load(reinterpret_cast<const float*>(strips + c / kVecs * strip_bytes(n)) + k * 16 + c % kVecs * kLanes);
      add_column<kTokens, kCols>(tile, weights, x, k);
    }
  }
};

struct F16Planes {
  static int64_t strip_bytes(int k) { return (int64_t{k} * 32 + 63) / 64 * 64; }
  template <int kTokens, int kCols>
  static void accumulate(FloatTile<kTokens, kCols>& tile, const uint8_t* strips, const float* const (&x)[kTokens],
                         int n, int begin, int end) {
    for (int k = begin; k < end; ++k) {
      Vf weights[kCols];
      OCTAVO_UNROLL
      for (int c = 0; c < kCols; ++c)
        weights[c] = load_f16(reinterpret_cast<const uint16_t*>(strips + c / kVecs * strip_bytes(n)) + k * 16 +
                              c % kVecs * kLanes);
      add_column<kTokens, kCols>(tile, weights, x, k);
    }
  }
};

struct Bf16Planes {
  static int64_t strip_bytes(int k) { return int64_t{(k + 1) / 2} * 64; }
  template <int kTokens, int kCols>
  static void accumulate(FloatTile<kTokens, kCols>& tile, const uint8_t* strips, const float* const (&x)[kTokens],
                         int n, int begin, int end) {
    for (int k = begin; k < end; k += 2) {
      const uint8_t* pair = strips + int64_t{k} * 32;
      Vf weights[kCols];
      OCTAVO_UNROLL
      for (int c = 0; c < kCols; ++c) weights[c] = bf16_even(column(pair, c, n));
      add_column<kTokens, kCols>(tile, weights, x, k);
      if (k + 1 == n) break;
      OCTAVO_UNROLL
      for (int c = 0; c < kCols; ++c) weights[c] = bf16_odd(column(pair, c, n));
      add_column<kTokens, kCols>(tile, weights, x, k + 1);
    }
  }

 private:
  static const uint16_t* column(const uint8_t* pair, int c, int n) {
    return reinterpret_cast<const uint16_t*>(pair + c / kVecs * strip_bytes(n)) + c % kVecs * kLanes * 2;
  }
};

constexpr int kColumnsPerStep = 32;  // of reading ahead

template <class Planes, int kTokens, int kStrips>
void float_tile(const LinearTask& task, int token, int strip, ReadAhead& ahead) {
  constexpr int kCols = kStrips * kVecs;
  const float* x[kTokens];
  FloatTile<kTokens, kCols> tile;
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    x[t] = reinterpret_cast<const float*>(task.act + (token + t) * task.act_stride);
    OCTAVO_UNROLL
    for (int c = 0; c < kCols; ++c) tile[t][c] = initial(task, strip * 16 + c * kLanes);
  }
  const int64_t bytes = Planes::strip_bytes(task.k);
  const uint8_t* weights = task.weights + strip * bytes;
  for (int begin = 0; begin < task.k; begin += kColumnsPerStep) {
    ahead.step(kTokens);
    const int end = begin + kColumnsPerStep < task.k ? begin + kColumnsPerStep : task.k;
    Planes::template accumulate<kTokens, kCols>(tile, weights, x, task.k, begin, end);
  }
  float* out = task.out + token * task.out_stride + strip * 16;
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    OCTAVO_UNROLL
    for (int c = 0; c < kCols; ++c) store(out + t * task.out_stride + c * kLanes, tile[t][c]);
  }
}

// Tiles that fill the register file. One or two tokens take several strips at once, so that enough independent chains
// hide the latency.
constexpr int kFloatTokens = 6;
constexpr int kFloatStrips = kLanes == 16 ? 4 : 1;
constexpr int kFewTokens = 2;
constexpr int kFewStrips = kLanes == 16 ? 4 : 2;

template <class Planes>
ReadAhead read_ahead(const LinearTask& task, int strip, int n_strips) {
  const int64_t bytes = Planes::strip_bytes(task.k);
  return {task, task.weights + strip * bytes, n_strips * bytes, task.k / kColumnsPerStep + 1};
}

template <class Planes, int kStrips>
void float_strips(const LinearTask& task, int strip) {
  ReadAhead ahead = read_ahead<Planes>(task, strip, kStrips);
  for_tiles<kFloatTokens>(task.n_tokens, [&](int token, auto size) {
    float_tile<Planes, decltype(size)::value, kStrips>(task, token, strip, ahead);
  });
}

template <class Planes, int kTokens, int kStrips>
void float_few(const LinearTask& task) {
  int strip = 0;
  for (; strip + kStrips <= task.n_strips; strip += kStrips) {
    ReadAhead ahead = read_ahead<Planes>(task, strip, kStrips);
    float_tile<Planes, kTokens, kStrips>(task, 0, strip, ahead);
  }
  for (; strip < task.n_strips; ++strip) {
    ReadAhead ahead = read_ahead<Planes>(task, strip, 1);
    float_tile<Planes, kTokens, 1>(task, 0, strip, ahead);
  }
}

template <class Planes>
void linear_float(const LinearTask& task) {
  if (task.n_tokens == 1) return float_few<Planes, 1, 4>(task);
  if (task.n_tokens == kFewTokens) return float_few<Planes, kFewTokens, kFewStrips>(task);
  int strip = 0;
  for (; strip + kFloatStrips <= task.n_strips; strip += kFloatStrips) float_strips<Planes, kFloatStrips>(task, strip);
  for (; strip < task.n_strips; ++strip) float_strips<Planes, 1>(task, strip);
}

}  // namespace
}  // namespace octavo
