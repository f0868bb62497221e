// Linears over the planes of Q2_K to Q6_K and IQ4_XS times kQ8x256 activations. Inside a super block of 256 weights all
// is exact in int32; super blocks follow each other in one float chain:
//   with minima   acc = fma(float(sum over sub-blocks of mn * sum(act)), dmin_weight * -d_act, acc), then
//   always        acc = fma(float(sum over sub-blocks of sc * dot), d_weight * d_act, acc)
// where the dot without minima is that of q - 2^kBiasShift. The largest sums, sc * dot of raw quants: 8 * 63 * 32 * 31
// * 127 < 2^26 in Q5_K, 16 * 128 * 16 * 63 * 127 < 2^28 in Q6_K.

#pragma once

#include "kernels/body/linear_q8x32.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// Where the parts of a strip of n super blocks lie, and what its sub-blocks look like. kMinima: none, or beside the
// scales, or in their upper nibbles.
enum class Minima { kNone, kApart, kNibbles };

template <int kSubSize, int kQuantBits, Minima kMinima, int kShift = 0, int kMax = (1 << kQuantBits) - 1>
struct Planes256 {
  static constexpr int kDwords = kSubSize / 4;   // of one sub-block
  static constexpr int kBiasShift = kShift;      // without minima, quants are 2^kBiasShift too high
  static constexpr int kPairs = 128 / kSubSize;  // of sub-blocks
  static constexpr int kMaxQuant = kMax;
  static constexpr bool kMin = kMinima != Minima::kNone, kNibbles = kMinima == Minima::kNibbles;
  static constexpr int kQuantBytes = kQuantBits * 512, kScaleBytes = kPairs * 32;
  static constexpr int kMinBytes = kMinima == Minima::kApart ? kScaleBytes : 0;
  static constexpr int kBytes = kQuantBytes + kScaleBytes + kMinBytes + 32 + (kMin ? 32 : 0);  // of a super block

  static int64_t scales(int64_t n) { return n * kQuantBytes; }
  static int64_t minima(int64_t n) { return kNibbles ? scales(n) : scales(n) + n * kScaleBytes; }
  static int64_t d(int64_t n) { return scales(n) + n * (kScaleBytes + kMinBytes); }
  static int64_t dmin(int64_t n) { return d(n) + n * 32; }
  static int64_t strip_bytes(int64_t n) { return align64(dmin(n) + (kMin ? n * 32 : 0)); }
};

// weights: the quants of dword j of sub-block 2 * pair + half, from the super block's plane lines.
// kUnpackFrom: so many tokens pay for unpacking once.
struct Q2_KPlanes : Planes256<16, 2, Minima::kNibbles> {
  static constexpr int kUnpackFrom = kQ8Tokens + 1;
  template <class Line>
  static Vi weights(Line line, int pair, int half, int j) {
    return shifted_bits(line(pair * 2 + j / 2), j % 2 * 4 + half * 2, 3);
  }
};

struct Q3_KPlanes : Planes256<16, 3, Minima::kNone, 2> {
  static constexpr int kUnpackFrom = kQ8Tokens + 1;
  template <class Line>
  static Vi weights(Line line, int pair, int half, int j) {
    const auto bits = [&](int i, int shift, int mask) { return shifted_bits(line(pair * 3 + i), shift, mask); };
    const int dword = half * 4 + j;
    if (dword < 6) return bits(dword / 2, dword % 2 * 3, 7);
    return dword == 6 ? or_bits(bits(0, 6, 3), bits(2, 4, 4)) : or_bits(bits(1, 6, 3), bits(2, 5, 4));
  }
};

struct Q4_KPlanes : Planes256<32, 4, Minima::kApart> {
  static constexpr int kUnpackFrom = 2 * kQ8Tokens + 1;
  template <class Line>
  static Vi weights(Line line, int pair, int half, int j) {
    return half == 0 ? low_nibbles(line(pair * 8 + j)) : high_nibbles(line(pair * 8 + j));
  }
};

struct Q5_KPlanes : Planes256<32, 5, Minima::kApart> {
  static constexpr int kUnpackFrom = kQ8Tokens + 1;
  template <class Line>
  static Vi weights(Line line, int pair, int half, int j) {
    const auto bits = [&](int i, int shift, int mask) {
      return shifted_bits(line((2 * pair + half) * 5 + i), shift, mask);
    };
    if (j < 5) return bits(j, 0, 31);
    if (j == 5) return or_bits(bits(0, 5, 7), bits(1, 2, 24));
    if (j == 6) return or_bits(bits(2, 5, 7), bits(3, 2, 24));
    return or_bits(bits(4, 5, 7), or_bits(bits(1, 4, 8), bits(3, 3, 16)));
  }
};

struct Q6_KPlanes : Planes256<16, 6, Minima::kNone, 5> {
  static constexpr int kUnpackFrom = kQ8Tokens + 1;
  template <class Line>
  static Vi weights(Line line, int pair, int half, int j) {
    const auto bits = [&](int i, int shift, int mask) {
      return shifted_bits(line((2 * pair + half) * 3 + i), shift, mask);
    };
    if (j < 3) return bits(j, 0, 63);
    return or_bits(bits(0, 6, 3), or_bits(bits(1, 4, 12), bits(2, 2, 48)));
  }
};

struct IQ4_XSPlanes : Planes256<32, 4, Minima::kNone, 7, 241> {
  static constexpr int kUnpackFrom = kQ8Tokens + 1;
  template <class Line>
  static Vi weights(Line line, int pair, int half, int j) {
    const Vi both = line((2 * pair + half) * 4 + j % 4);
    return look_up(kIQ4Biased, j < 4 ? low_nibbles(both) : high_nibbles(both));
  }
};

// One super block of kStrips strips, by columns as in Dots.
template <class Planes, int kStrips>
class StripBlock {
 public:
  static constexpr int kColumns = kStrips * kVecs;

  StripBlock(const uint8_t* strip, int64_t n, int64_t block)
      : index(block),
        share(strip + block * kStrips * Planes::kBytes),
        distance(distance_ahead(kStrips * Planes::strip_bytes(n))),
        strips_{strip, Planes::strip_bytes(n)},
        quants_(block * Planes::kQuantBytes),
        scales_(Planes::scales(n) + block * Planes::kScaleBytes),
        minima_(Planes::minima(n) + block * (Planes::kNibbles ? Planes::kScaleBytes : Planes::kMinBytes)),
        d_(Planes::d(n) + block * 32),
        dmin_(Planes::dmin(n) + block * 32) {}

  const int64_t index;
  const uint8_t* const share;  // a block's, of the strips
  const int64_t distance;      // to what is needed after it

  Vi weights(int pair, int half, int j, int c) const {
    return Planes::weights([&](int line) { return load_bytes(strips_.template at<4>(quants_ + line * 64, c)); }, pair,
                           half, j);
  }
  Vi scale_pairs(int pair, int c) const {
    const uint8_t* at = strips_.template at<2>(scales_ + pair * 32, c);
    if constexpr (Planes::kNibbles) return and_bits(load_u8_pairs(at), set1i(0x000f000f));
    return Planes::kMin ? load_u8_pairs(at) : load_s8_pairs(at);
  }
  // What the sums of activations are weighed with, for a pair of sub-blocks: minima, or scales where there are none.
  Vi sum_factors(int pair, int c) const {
    if constexpr (!Planes::kMin) return scale_pairs(pair, c);
    const Vi minima = load_u8_pairs(strips_.template at<2>(minima_ + pair * 32, c));
    return Planes::kNibbles ? and_bits(shift_right<4>(minima), set1i(0x000f000f)) : minima;
  }
  Vf unit(int c) const { return halves(d_, c); }
  Vf min_unit(int c) const { return halves(dmin_, c); }

 private:
  Vf halves(int64_t offset, int c) const {
    return load_f16(reinterpret_cast<const uint16_t*>(strips_.template at<2>(offset, c)));
  }

  Strips<kStrips> strips_;
  int64_t quants_, scales_, minima_, d_, dmin_;
};

// For dot_scaled.
template <class Block>
inline Vi scale_of(const Block& block, int pair, int half, int v) {
  const Vi both = block.scale_pairs(pair, v);
  return half == 0 ? first_scales(both) : second_scales(both);
}

// Its quants and scales, ready for many tokens.
template <class Planes, int kStrips>
struct UnpackedBlock {
  static constexpr int kColumns = kStrips * kVecs;
  Vi quants[Planes::kPairs][2][Planes::kDwords][kColumns];
  Vi scales[Planes::kPairs][2][kColumns];

  explicit UnpackedBlock(const StripBlock<Planes, kStrips>& block) {
    for (int pair = 0; pair < Planes::kPairs; ++pair) {
      OCTAVO_UNROLL
      for (int half = 0; half < 2; ++half) {
        OCTAVO_UNROLL
        for (int c = 0; c < kColumns; ++c) {
          OCTAVO_UNROLL
          for (int j = 0; j < Planes::kDwords; ++j) quants[pair][half][j][c] = block.weights(pair, half, j, c);
          scales[pair][half][c] = scale_of(block, pair, half, c);
        }
      }
    }
  }
  Vi weights(int pair, int half, int j, int c) const { return quants[pair][half][j][c]; }
};

template <class Planes, int kStrips>
inline Vi scale_of(const UnpackedBlock<Planes, kStrips>& block, int pair, int half, int c) {
  return block.scales[pair][half][c];
}

// Quants that a partial sum of unsigned weights cannot hold are multiplied as signed ones.
template <class Planes>
constexpr bool kWide = kPartialDots<Planes::kMaxQuant> == 0;

// sums += scale * dot of one sub-block of wide quants, 128 too high.
template <class Planes, int kTokens, class Block>
inline void add_wide_sub_block(Vi (&sums)[kTokens][Block::kColumns], const Block& block, int pair, int half,
                               const uint8_t* const (&act)[kTokens]) {
  OCTAVO_UNROLL
  for (int c = 0; c < Block::kColumns; ++c) {
    const Vi scale = shift_right_signed<16>(scale_of(block, pair, half, c));  // it is in both halves of a lane
    SignedWeights weights[Planes::kDwords];
    OCTAVO_UNROLL
    for (int j = 0; j < Planes::kDwords; ++j) weights[j] = signed_of_biased(block.weights(pair, half, j, c));
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      Vi dot = set1i(0);
      OCTAVO_UNROLL
      for (int j = 0; j < Planes::kDwords; ++j)
        dot = dot_signed(dot, weights[j], broadcast4(act[t] + (half * Planes::kDwords + j) * 4));
      sums[t][c] = addi(sums[t][c], mul_ints(dot, scale));
    }
  }
}

// sums += scale * dot of one sub-block; act: each token's quants of the pair.
template <class Planes, int kTokens, class Block>
inline void add_sub_block(Vi (&sums)[kTokens][Block::kColumns], const Block& block, int pair, int half,
                          const uint8_t* const (&act)[kTokens]) {
  if constexpr (kWide<Planes>) return add_wide_sub_block<Planes, kTokens>(sums, block, pair, half, act);
  constexpr int kHeld = kPartialDots<Planes::kMaxQuant>;
  constexpr int kRun = kHeld >= Planes::kDwords ? Planes::kDwords : kHeld >= 4 ? 4 : kHeld >= 2 ? 2 : 1;
  Vi scale[Block::kColumns];
  OCTAVO_UNROLL
  for (int c = 0; c < Block::kColumns; ++c) scale[c] = scale_of(block, pair, half, c);
  OCTAVO_UNROLL
  for (int run = 0; run < Planes::kDwords; run += kRun) {
    Partial partial[kTokens][Block::kColumns];
    OCTAVO_UNROLL
    for (auto& row : partial) {
      OCTAVO_UNROLL
      for (Partial& p : row) p = set1i(0);
    }
    OCTAVO_UNROLL
    for (int j = run; j < run + kRun; ++j) {
      Vi weights[Block::kColumns];
      OCTAVO_UNROLL
      for (int c = 0; c < Block::kColumns; ++c) weights[c] = block.weights(pair, half, j, c);
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Vi a = broadcast4(act[t] + (half * Planes::kDwords + j) * 4);
        OCTAVO_UNROLL
        for (int c = 0; c < Block::kColumns; ++c) partial[t][c] = dot_partial(partial[t][c], weights[c], a);
      }
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      OCTAVO_UNROLL
      for (int c = 0; c < Block::kColumns; ++c) sums[t][c] = dot_scaled(sums[t][c], partial[t][c], scale[c]);
    }
  }
}

// The dots of a super block, from its raw quants; what is needed `distance` after `share` is fetched meanwhile, if that
// is not null.
template <class Planes, int kTokens, class Block>
inline void raw_dots(Vi (&sums)[kTokens][Block::kColumns], const Block& block, const uint8_t* const (&rows)[kTokens],
                     const uint8_t* share, int64_t distance) {
  constexpr int kBytesPerPair = (Planes::kBytes * Block::kColumns / kVecs / Planes::kPairs + 63) / 64 * 64;
  const uint8_t* act[kTokens];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    act[t] = rows[t];
    OCTAVO_UNROLL
    for (Vi& sum : sums[t]) sum = set1i(0);
  }
  for (int pair = 0; pair < Planes::kPairs; ++pair) {
    if (share != nullptr)
      for (int i = 0; i < kBytesPerPair; i += 64) fetch_weights(share + pair * kBytesPerPair + i, distance);
    add_sub_block<Planes, kTokens>(sums, block, pair, 0, act);
    add_sub_block<Planes, kTokens>(sums, block, pair, 1, act);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) act[t] += Planes::kDwords * 8;
  }
}

// Where a row keeps the sums of activations by sub-blocks.
template <class Planes>
constexpr int64_t sums_at(const Q8x256Layout& layout) {
  return Planes::kDwords == 8 ? layout.sum32 : layout.sum;
}

// totals[t] = sum over sub-blocks of factor * sum(act); sums: each token's, by sub-blocks.
template <class Planes, int kTokens, class Block>
inline void weigh_sums(Vi (&totals)[kTokens], const Block& block, int c, const uint8_t* const (&sums)[kTokens]) {
  OCTAVO_UNROLL
  for (Vi& total : totals) total = set1i(0);
  OCTAVO_UNROLL
  for (int pair = 0; pair < Planes::kPairs; ++pair) {
    const Vi factors = block.sum_factors(pair, c);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) totals[t] = dot_pairs(totals[t], factors, broadcast4(sums[t] + pair * 4));
  }
}

// The float chains of a super block: out[t] += ...
template <class Planes, int kTokens, class Block>
inline void add_scaled(float* const (&out)[kTokens], const Vi (&dots)[kTokens][Block::kColumns],
                       const uint8_t* const (&sums)[kTokens], const Block& block, const float (&d_act)[kTokens]) {
  OCTAVO_UNROLL
  for (int c = 0; c < Block::kColumns; ++c) {
    const Vf d = block.unit(c);
    const Vf dmin = Planes::kMin ? block.min_unit(c) : d;
    Vi totals[kTokens];
    weigh_sums<Planes, kTokens>(totals, block, c, sums);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      Vf acc = load(out[t] + c * kLanes);
      Vi dot = dots[t][c];
      if constexpr (Planes::kMin)
        acc = fma(to_float(totals[t]), mul(dmin, set1(-d_act[t])), acc);
      else if constexpr (!kWide<Planes>)
        dot = subi(dot, shift_left<Planes::kBiasShift>(totals[t]));
      store(out[t] + c * kLanes, fma(to_float(dot), mul(d, set1(d_act[t])), acc));
    }
  }
}

// Adds a super block to the outputs of kTokens tokens; `source` is the block or its unpacked form.
template <class Planes, int kTokens, class Block, class Source>
void q8x256_tile(const LinearTask& task, float* out, const Block& block, const Source& source, int token) {
  const Q8x256Layout layout(task.k);
  const uint8_t *act[kTokens], *act_sums[kTokens];
  float *at[kTokens], d_act[kTokens];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const uint8_t* row = task.act + (token + t) * task.act_stride;
    act[t] = row + block.index * 256;
    act_sums[t] = row + sums_at<Planes>(layout) + block.index * Planes::kPairs * 4;
    d_act[t] = reinterpret_cast<const float*>(row + layout.d)[block.index];
    at[t] = out + (token + t) * task.out_stride;
  }
  Vi dots[kTokens][Source::kColumns];
  raw_dots<Planes, kTokens>(dots, source, act, token == 0 ? block.share : nullptr, block.distance);
  add_scaled<Planes, kTokens>(at, dots, act_sums, block, d_act);
}

template <class Planes, class Block, class Source>
inline void q8x256_tokens(const LinearTask& task, float* out, const Block& block, const Source& source) {
  for_tiles<kQ8Tokens>(task.n_tokens, [&](int token, auto size) {
    q8x256_tile<Planes, decltype(size)::value>(task, out, block, source, token);
  });
}

inline void start_strip(const LinearTask& task, int s) {
  for (int t = 0; t < task.n_tokens; ++t)
    for (int row = s * 16; row < (s + 1) * 16; row += kLanes)
      store(task.out + t * task.out_stride + row, initial(task, row));
}

template <class Planes, int kStrips>
void q8x256_strips(const LinearTask& task, int s) {
  const int64_t n = task.k / 256;
  float* out = task.out + s * 16;
  for (int i = 0; i < kStrips; ++i) start_strip(task, s + i);
  for (int64_t b = 0; b < n; ++b) {
    const StripBlock<Planes, kStrips> block(task.weights + s * Planes::strip_bytes(n), n, b);
    if (task.n_tokens < Planes::kUnpackFrom)
      q8x256_tokens<Planes>(task, out, block, block);
    else
      q8x256_tokens<Planes>(task, out, block, UnpackedBlock<Planes, kStrips>(block));
  }
}

template <class Planes>
void linear_q8x256(const LinearTask& task) {
  int s = 0;
  if (kTileStrips > 1 && task.n_tokens >= kQ8Tokens)
    for (; s + kTileStrips <= task.n_strips; s += kTileStrips) q8x256_strips<Planes, kTileStrips>(task, s);
  for (; s < task.n_strips; ++s) q8x256_strips<Planes, 1>(task, s);
}

}  // namespace
}  // namespace octavo
