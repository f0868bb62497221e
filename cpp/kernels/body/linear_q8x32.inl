// Linears over 4, 5 and 8-bit planes with a scale per 32, times kQ8x32 activations. Inside a group the dot
// is an exact integer; groups follow each other in one float chain:
//   acc = fma(float(dot), d_weight * d_act, acc), then with minima acc = fma(m_weight, s_act, acc).

#pragma once

#include "kernels/body/linear.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/fmt_lowbit.h"
#include "quant/fmt_small.h"

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
  static Vf scale(const uint8_t* p) { return load_f16(reinterpret_cast<const uint16_t*>(p)); }
};

// A table that nibbles are looked up in.
struct alignas(16) Bytes16 {
  uint8_t bytes[16];
};
constexpr Bytes16 biased(const int8_t (&values)[16]) {
  Bytes16 table{};
  for (int i = 0; i < 16; ++i) table.bytes[i] = static_cast<uint8_t>(values[i] + 128);
  return table;
}
inline Vi look_up(const Bytes16& table, Vi nibbles) { return look_up(table.bytes, nibbles); }

// Strips that a tile of many tokens takes at once: what is loaded of a token is multiplied twice.
constexpr int kTileStrips = kLanes == 16 ? 2 : 1;
// Tokens whose accumulators, with so many strips, fill the register file.
constexpr int kQ8Tokens = kLanes == 16 ? 6 : 4;

// Dots of kTokens tokens with the rows of kStrips strips, by vectors of rows: column c is vector c % kVecs of strip
// c / kVecs.
template <int kTokens, int kStrips>
using Dots = Vi[kTokens][kStrips * kVecs];

// kStrips strips of a weight, from a group on.
template <int kStrips>
struct Strips {
  const uint8_t* first;
  int64_t bytes;  // from one strip to the next

  // Column c of what lies at `offset` of each strip, with kRowBytes for each row.
  template <int kRowBytes>
  const uint8_t* at(int64_t offset, int c) const {
    return first + c / kVecs * bytes + offset + c % kVecs * kLanes * kRowBytes;
  }
};

template <bool kFifthBit, bool kHasMin, int kZeroPoint>
struct Nibbles : Planes32<256, kFifthBit, kHasMin, kZeroPoint> {
  using Base = Planes32<256, kFifthBit, kHasMin, kZeroPoint>;

  // sums += dots of group g; act: each token's quants of the group.
  template <int kTokens, int kStrips>
  static void dot(Dots<kTokens, kStrips>& sums, const Strips<kStrips>& strips, int64_t groups, int64_t g,
                  const uint8_t* const (&act)[kTokens]) {
    Partial partial[kTokens][kStrips * kVecs];
    OCTAVO_UNROLL
    for (auto& row : partial) {
      OCTAVO_UNROLL
      for (Partial& p : row) p = set1i(0);
    }
    half<kTokens, kStrips, 0>(partial, strips, groups, g, act);
    if constexpr (kFifthBit) drain<kTokens, kStrips>(sums, partial);
    half<kTokens, kStrips, 1>(partial, strips, groups, g, act);
    drain<kTokens, kStrips>(sums, partial);
  }

 private:
  // The low or the high nibbles: 16 consecutive k.
  template <int kTokens, int kStrips, int kHalf>
  static void half(Partial (&partial)[kTokens][kStrips * kVecs], const Strips<kStrips>& strips, int64_t groups,
                   int64_t g, const uint8_t* const (&act)[kTokens]) {
    const int64_t lines = g * 256, bits = Base::bits(groups) + g * 64 + kHalf * 32;
    OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) {
      Vi weights[kStrips * kVecs];
      OCTAVO_UNROLL
      for (int c = 0; c < kStrips * kVecs; ++c) {
        const Vi line = load_bytes(strips.template at<4>(lines + j * 64, c));
        weights[c] = kHalf == 0 ? low_nibbles(line) : high_nibbles(line);
        if constexpr (kFifthBit)
          weights[c] = or_bits(weights[c], load_fifth_bits(strips.first + c / kVecs * strips.bytes + bits + j * 8 +
                                                           c % kVecs * (kLanes / 2)));
      }
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Vi a = broadcast4(act[t] + kHalf * 16 + j * 4);
        OCTAVO_UNROLL
        for (int c = 0; c < kStrips * kVecs; ++c) partial[t][c] = dot_partial(partial[t][c], weights[c], a);
      }
    }
  }

  template <int kTokens, int kStrips>
  static void drain(Dots<kTokens, kStrips>& sums, Partial (&partial)[kTokens][kStrips * kVecs]) {
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      OCTAVO_UNROLL
      for (int c = 0; c < kStrips * kVecs; ++c) {
        sums[t][c] = addi(sums[t][c], dot_finish(partial[t][c]));
        partial[t][c] = set1i(0);
      }
    }
  }
};

struct Bytes : Planes32<512, false, false, kSignedBias> {
  template <int kTokens, int kStrips>
  static void dot(Dots<kTokens, kStrips>& sums, const Strips<kStrips>& strips, int64_t, int64_t g,
                  const uint8_t* const (&act)[kTokens]) {
    OCTAVO_UNROLL
    for (int j = 0; j < 8; ++j) {
      SignedWeights weights[kStrips * kVecs];
      OCTAVO_UNROLL
      for (int c = 0; c < kStrips * kVecs; ++c)
        weights[c] = prepare_signed(load_bytes(strips.template at<4>(g * 512 + j * 64, c)));
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Vi a = broadcast4(act[t] + j * 4);
        OCTAVO_UNROLL
        for (int c = 0; c < kStrips * kVecs; ++c) sums[t][c] = dot_signed(sums[t][c], weights[c], a);
      }
    }
  }
};

// Nibbles that stand for the values of a table.
template <const Bytes16& kTable>
struct Lookup : Planes32<256, false, false, kSignedBias> {
  template <int kTokens, int kStrips>
  static void dot(Dots<kTokens, kStrips>& sums, const Strips<kStrips>& strips, int64_t, int64_t g,
                  const uint8_t* const (&act)[kTokens]) {
    OCTAVO_UNROLL
    for (int j = 0; j < 8; ++j) {
      SignedWeights weights[kStrips * kVecs];
      OCTAVO_UNROLL
      for (int c = 0; c < kStrips * kVecs; ++c) {
        const Vi both = load_bytes(strips.template at<4>(g * 256 + j % 4 * 64, c));
        weights[c] = signed_of_biased(look_up(kTable, j < 4 ? low_nibbles(both) : high_nibbles(both)));
      }
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Vi a = broadcast4(act[t] + j * 4);
        OCTAVO_UNROLL
        for (int c = 0; c < kStrips * kVecs; ++c) sums[t][c] = dot_signed(sums[t][c], weights[c], a);
      }
    }
  }
};

// What the nibbles of IQ4_NL and of MXFP4 stand for, 128 too high.
constexpr Bytes16 kIQ4Biased = biased(kIQ4Values);
constexpr Bytes16 kE2M1Biased = biased(kE2M1Values);

struct IQ4_NLPlanes : Lookup<kIQ4Biased> {};
struct MXFP4Planes : Lookup<kE2M1Biased> {
  static Vf scale(const uint8_t* p) { return load_bf16(reinterpret_cast<const uint16_t*>(p)); }
};

// -kZero * sum in all lanes: what a zero point has added to the dots.
template <int kZero>
inline Vi minus_zero_points(const int32_t* sum) {
  if constexpr (kZero == 0) return set1i(0);
  return subi(set1i(0), shift_left<__builtin_ctz(kZero | 1 << 30)>(broadcast4(reinterpret_cast<const uint8_t*>(sum))));
}

// kTokens tokens by kStrips strips.
template <class Planes, int kTokens, int kStrips>
void q8x32_tile(const LinearTask& task, int token, int strip, ReadAhead& ahead) {
  constexpr int kColumns = kStrips * kVecs;
  const int64_t groups = task.k / 32, strip_bytes = Planes::strip_bytes(groups);
  const Q8x32Layout layout(task.k);
  const Strips<kStrips> strips{task.weights + strip * strip_bytes, strip_bytes};
  const uint8_t* act[kTokens];
  const float *d_act[kTokens], *s_act[kTokens];
  const int32_t* sum_act[kTokens];
  Vf acc[kTokens][kColumns];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    act[t] = task.act + (token + t) * task.act_stride;
    d_act[t] = reinterpret_cast<const float*>(act[t] + layout.d);
    s_act[t] = reinterpret_cast<const float*>(act[t] + layout.s);
    sum_act[t] = reinterpret_cast<const int32_t*>(act[t] + layout.sum);
    OCTAVO_UNROLL
    for (int c = 0; c < kColumns; ++c) acc[t][c] = initial(task, strip * 16 + c * kLanes);
  }
  for (int64_t g = 0; g < groups; ++g) {
    ahead.step(kTokens);
    Dots<kTokens, kStrips> sums;
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      OCTAVO_UNROLL
      for (Vi& sum : sums[t]) sum = minus_zero_points<Planes::kZero>(sum_act[t] + g);
    }
    Planes::template dot<kTokens, kStrips>(sums, strips, groups, g, act);
    OCTAVO_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const Vf d = Planes::scale(strips.template at<2>(Planes::scales(groups) + g * 32, c));
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) acc[t][c] = fma(to_float(sums[t][c]), mul(d, set1(d_act[t][g])), acc[t][c]);
      if constexpr (Planes::kMin) {
        const Vf m = Planes::scale(strips.template at<2>(Planes::minima(groups) + g * 32, c));
        OCTAVO_UNROLL
        for (int t = 0; t < kTokens; ++t) acc[t][c] = fma(m, set1(s_act[t][g]), acc[t][c]);
      }
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) act[t] += 32;
  }
  float* out = task.out + token * task.out_stride + strip * 16;
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    OCTAVO_UNROLL
    for (int c = 0; c < kColumns; ++c) store(out + t * task.out_stride + c * kLanes, acc[t][c]);
  }
}

template <class Planes, int kStrips>
void q8x32_tokens(const LinearTask& task, int strip) {
  const int64_t strip_bytes = Planes::strip_bytes(task.k / 32);
  ReadAhead ahead(task, task.weights + strip * strip_bytes, kStrips * strip_bytes, task.k / 32);
  for_tiles<kQ8Tokens>(task.n_tokens, [&](int token, auto size) {
    q8x32_tile<Planes, decltype(size)::value, kStrips>(task, token, strip, ahead);
  });
}

template <class Planes>
void linear_q8x32(const LinearTask& task) {
  int strip = 0;
  if (kTileStrips > 1 && task.n_tokens >= kQ8Tokens)
    for (; strip + kTileStrips <= task.n_strips; strip += kTileStrips) q8x32_tokens<Planes, kTileStrips>(task, strip);
  for (; strip < task.n_strips; ++strip) q8x32_tokens<Planes, 1>(task, strip);
}

}  // namespace
}  // namespace octavo
