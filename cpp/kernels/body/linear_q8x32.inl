// Linears over 4, 5 and 8-bit planes with a scale per 32, times kQ8x32 activations. Inside a group the dot
// is an exact integer; groups follow each other in one float chain:
//   acc = fma(float(dot), d_weight * d_act, acc), then with minima acc = fma(m_weight, s_act, acc).

#pragma once

#include "kernels/body/linear.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

inline int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

inline Vi broadcast4(const uint8_t* p) {
  int32_t dword;
  __builtin_memcpy(&dword, p, sizeof(dword));
  return set1i(dword);
}

// Where the parts of a strip lie, and what its format adds to the dot of the raw quants.
template <int kQuantBytes, bool kFifthBit, bool kHasMin, int kZeroPoint>
struct Planes32 {
  static constexpr int kBytes = kQuantBytes;  // of a group's quants
  static constexpr bool kMin = kHasMin;
  static constexpr int kZero = kZeroPoint;
  static int64_t bits(int64_t groups) { return groups * kQuantBytes; }
  static int64_t scales(int64_t groups) { return bits(groups) + (kFifthBit ? groups * 64 : 0); }
  static int64_t minima(int64_t groups) { return scales(groups) + groups * 32; }
  static int64_t strip_bytes(int64_t groups) { return align64(minima(groups) + (kHasMin ? groups * 32 : 0)); }
};

// Dots of kTokens tokens with the 16 rows of a strip, by vectors of rows.
template <int kTokens>
using Dots = Vi[kTokens][kVecs];

template <bool kFifthBit, bool kHasMin, int kZeroPoint>
struct Nibbles : Planes32<256, kFifthBit, kHasMin, kZeroPoint> {
  using Base = Planes32<256, kFifthBit, kHasMin, kZeroPoint>;

  // sums += dots of group g; act: each token's quants of the group.
  template <int kTokens>
  static void dot(Dots<kTokens>& sums, const uint8_t* strip, int64_t groups, int64_t g,
                  const uint8_t* const (&act)[kTokens]) {
    Partial partial[kTokens][kVecs];
    OCTAVO_UNROLL
    for (auto& row : partial) {
      OCTAVO_UNROLL
      for (Partial& p : row) p = set1i(0);
    }
    half<kTokens, 0>(partial, strip, groups, g, act);
    if constexpr (kFifthBit) drain<kTokens>(sums, partial);
    half<kTokens, 1>(partial, strip, groups, g, act);
    drain<kTokens>(sums, partial);
  }

 private:
  // The low or the high nibbles: 16 consecutive k.
  template <int kTokens, int kHalf>
  static void half(Partial (&partial)[kTokens][kVecs], const uint8_t* strip, int64_t groups, int64_t g,
                   const uint8_t* const (&act)[kTokens]) {
    const uint8_t* lines = strip + g * 256;
    const uint8_t* bits = strip + Base::bits(groups) + g * 64 + kHalf * 32;
    OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) {
      Vi weights[kVecs];
      OCTAVO_UNROLL
      for (int v = 0; v < kVecs; ++v) {
        const Vi line = load_bytes(lines + j * 64 + v * kLanes * 4);
        weights[v] = kHalf == 0 ? low_nibbles(line) : high_nibbles(line);
        if constexpr (kFifthBit) weights[v] = or_bits(weights[v], load_fifth_bits(bits + j * 8 + v * (kLanes / 2)));
      }
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Vi a = broadcast4(act[t] + kHalf * 16 + j * 4);
        OCTAVO_UNROLL
        for (int v = 0; v < kVecs; ++v) partial[t][v] = dot_partial(partial[t][v], weights[v], a);
      }
    }
  }

  template <int kTokens>
  static void drain(Dots<kTokens>& sums, Partial (&partial)[kTokens][kVecs]) {
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      OCTAVO_UNROLL
      for (int v = 0; v < kVecs; ++v) {
        sums[t][v] = addi(sums[t][v], dot_finish(partial[t][v]));
        partial[t][v] = set1i(0);
      }
    }
  }
};

struct Bytes : Planes32<512, false, false, kSignedBias> {
  template <int kTokens>
  static void dot(Dots<kTokens>& sums, const uint8_t* strip, int64_t, int64_t g, const uint8_t* const (&act)[kTokens]) {
    const uint8_t* lines = strip + g * 512;
    OCTAVO_UNROLL
    for (int j = 0; j < 8; ++j) {
      SignedWeights weights[kVecs];
      OCTAVO_UNROLL
      for (int v = 0; v < kVecs; ++v) weights[v] = prepare_signed(load_bytes(lines + j * 64 + v * kLanes * 4));
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Vi a = broadcast4(act[t] + j * 4);
        OCTAVO_UNROLL
        for (int v = 0; v < kVecs; ++v) sums[t][v] = dot_signed(sums[t][v], weights[v], a);
      }
    }
  }
};

// kTokens tokens by one strip.
template <class Planes, int kTokens>
void q8x32_tile(const LinearTask& task, int token, int strip_index) {
  const int64_t groups = task.k / 32;
  const Q8x32Layout layout(task.k);
  const uint8_t* strip = task.weights + strip_index * Planes::strip_bytes(groups);
  const auto* scales = reinterpret_cast<const uint16_t*>(strip + Planes::scales(groups));
  const auto* minima = reinterpret_cast<const uint16_t*>(strip + Planes::minima(groups));
  const uint8_t* act[kTokens];
  const float *d_act[kTokens], *s_act[kTokens];
  const int32_t* sum_act[kTokens];
  Vf acc[kTokens][kVecs];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    act[t] = task.act + (token + t) * task.act_stride;
    d_act[t] = reinterpret_cast<const float*>(act[t] + layout.d);
    s_act[t] = reinterpret_cast<const float*>(act[t] + layout.s);
    sum_act[t] = reinterpret_cast<const int32_t*>(act[t] + layout.sum);
    OCTAVO_UNROLL
    for (int v = 0; v < kVecs; ++v) acc[t][v] = initial(task, strip_index * 16 + v * kLanes);
  }
  ReadAhead ahead(task, token, kTokens, strip, Planes::strip_bytes(groups), groups);
  for (int64_t g = 0; g < groups; ++g) {
    ahead.step();
    Dots<kTokens> sums;
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      OCTAVO_UNROLL
      for (Vi& sum : sums[t]) sum = Planes::kZero == 0 ? set1i(0) : set1i(-Planes::kZero * sum_act[t][g]);
    }
    Planes::template dot<kTokens>(sums, strip, groups, g, act);
    OCTAVO_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      const Vf d = load_f16(scales + g * 16 + v * kLanes);
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) acc[t][v] = fma(to_float(sums[t][v]), mul(d, set1(d_act[t][g])), acc[t][v]);
      if constexpr (Planes::kMin) {
        const Vf m = load_f16(minima + g * 16 + v * kLanes);
        OCTAVO_UNROLL
        for (int t = 0; t < kTokens; ++t) acc[t][v] = fma(m, set1(s_act[t][g]), acc[t][v]);
      }
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) act[t] += 32;
  }
  float* out = task.out + token * task.out_stride + strip_index * 16;
  for (int t = 0; t < kTokens; ++t)
    for (int v = 0; v < kVecs; ++v) store(out + t * task.out_stride + v * kLanes, acc[t][v]);
}

template <class Planes, int kTokens>
int q8x32_tokens(const LinearTask& task, int token, int strip) {
  for (; token + kTokens <= task.n_tokens; token += kTokens) q8x32_tile<Planes, kTokens>(task, token, strip);
  return token;
}

// Tokens whose accumulators fill the register file.
constexpr int kQ8Tokens = kLanes == 16 ? 8 : 4;

template <class Planes>
void linear_q8x32(const LinearTask& task) {
  for (int strip = 0; strip < task.n_strips; ++strip) {
    int token = q8x32_tokens<Planes, kQ8Tokens>(task, 0, strip);
    token = q8x32_tokens<Planes, 2>(task, token, strip);
    q8x32_tokens<Planes, 1>(task, token, strip);
  }
}

}  // namespace
}  // namespace octavo
