// Many tokens by super blocks of 256 weights that are unpacked first, to a panel that serves them all; with VNNI.
//
// Here weights are the signed bytes, and activations become unsigned, 128 too high: what the 128 adds is then a matter
// of the weights alone, -128 * sum over sub-blocks of sc * sum(q), and the sums start from it. The integers are those
// of linear_q8x256.inl, and so are the float chains. The largest sums, sc * dot: 16 * 128 * 16 * 32 * 255 < 2^29 in
// Q6_K.

#pragma once

#include "kernels/body/linear_entries.inl"
#include "kernels/body/linear_integers.inl"
#include "kernels/body/linear_q8x256.inl"

namespace octavo {
namespace {

// Sub-scales that leave products of one byte are multiplied into the weights: 1, or -1 where only the negative fits.
template <class Planes>
constexpr int kFolded = 0;
template <>
constexpr int kFolded<Q2_KPlanes> = 1;  // 0 .. 3 * 15
template <>
constexpr int kFolded<Q3_KPlanes> = -1;  // -(-4 .. 3) * (-32 .. 31) = -128 .. 124

// A super block of a strip. Planes: of Planes256 or Integers.
template <class Planes>
struct alignas(64) PanelBlock {
  static constexpr int kDwords = Planes::kDwords, kSubs = 2 * Planes::kPairs, kFold = kFolded<Planes>;
  uint8_t lines[64][64];  // byte 4 * row + b of line j: weight 4 * j + b
  int32_t scales[kFold == 0 ? kSubs : 0][16];
  int32_t start[16];
  float d[16];
  int16_t minima[Planes::kMin ? Planes::kPairs : 0][16][2];
  float dmin[Planes::kMin ? 16 : 0];

  // From a block whose weights are kBias too high.
  template <int kBias, class Block>
  void fill(const Block& block) {
    Vi sum = set1i(0);
    for (int pair = 0; pair < Planes::kPairs; ++pair) {
      const Vi both = block.scale_pairs(pair, 0);
      sum = addi(sum, fill_sub_block<0, kBias>(block, pair, first_scales(both)));
      sum = addi(sum, fill_sub_block<1, kBias>(block, pair, second_scales(both)));
      if constexpr (Planes::kMin) storei(minima[pair], block.sum_factors(pair, 0));
    }
    storei(start, subi(set1i(0), shift_left<7>(sum)));
    store(d, kFold < 0 ? sub(zero(), block.unit(0)) : block.unit(0));
    if constexpr (Planes::kMin) store(dmin, block.min_unit(0));
  }

 private:
  // Returns the sum of its weights times their scale.
  template <int kHalf, int kBias, class Block>
  Vi fill_sub_block(const Block& block, int pair, Vi scale) {
    const int sub = 2 * pair + kHalf;
    Vi sum = set1i(0);
    OCTAVO_UNROLL
    for (int j = 0; j < kDwords; ++j) {
      Vi weights = sub_bytes(block.weights(pair, kHalf, j, 0), kBias);
      if constexpr (kFold != 0) weights = mul_bytes(weights, kFold < 0 ? subi(set1i(0), scale) : scale);
      storei(lines[sub * kDwords + j], weights);
      sum = dot_unsigned_act(sum, set1i(0x01010101), weights);
    }
    if constexpr (kFold != 0) return sum;
    storei(scales[sub], scale);
    return mul_ints(sum, scale);
  }
};

// The rows of a tile's tokens.
template <class Planes>
struct ActRowsOf {
  const Q8x256Layout layout;
  const uint8_t* first;
  const int64_t stride;

  ActRowsOf(const LinearTask& task, int token)
      : layout(task.k), first(task.act + token * task.act_stride), stride(task.act_stride) {}
  // Of super block b, from the first token's row on.
  const uint8_t* quants(int64_t b) const { return first + layout.u + b * 256; }
  const uint8_t* sums(int64_t b) const { return first + sums_at<Planes>(layout) + b * Planes::kPairs * 4; }
  float d(int t, int64_t b) const { return reinterpret_cast<const float*>(first + t * stride + layout.d)[b]; }
};

// sums += the dots of kDwords dwords from line `line` on.
template <int kDwords, class Panel, int kTokens, int kStrips>
inline void panel_dots(Vi (&sums)[kTokens][kStrips], int line, const uint8_t* act, int64_t act_stride,
                       const Panel* const (&strips)[kStrips]) {
  OCTAVO_UNROLL
  for (int j = line; j < line + kDwords; ++j) {
    Vi weights[kStrips];
    OCTAVO_UNROLL
    for (int c = 0; c < kStrips; ++c) weights[c] = loadi(strips[c]->lines[j]);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const Vi a = broadcast4(act + t * act_stride + j * 4);
      OCTAVO_UNROLL
      for (int c = 0; c < kStrips; ++c) sums[t][c] = dot_unsigned_act(sums[t][c], a, weights[c]);
    }
  }
}

// The dots of a super block, sub-scales and all.
template <class Panel, int kTokens, int kStrips>
inline void scaled_dots(Vi (&sums)[kTokens][kStrips], const uint8_t* act, int64_t act_stride,
                        const Panel* const (&strips)[kStrips]) {
  OCTAVO_UNROLL
  for (auto& row : sums) {
    OCTAVO_UNROLL
    for (int c = 0; c < kStrips; ++c) row[c] = loadi(strips[c]->start);
  }
  for (int sub = 0; sub < Panel::kSubs; ++sub) {
    if constexpr (Panel::kFold != 0) {
      panel_dots<Panel::kDwords>(sums, sub * Panel::kDwords, act, act_stride, strips);
    } else {
      Vi dots[kTokens][kStrips];
      OCTAVO_UNROLL
      for (auto& row : dots) {
        OCTAVO_UNROLL
        for (Vi& dot : row) dot = set1i(0);
      }
      panel_dots<Panel::kDwords>(dots, sub * Panel::kDwords, act, act_stride, strips);
      OCTAVO_UNROLL
      for (int c = 0; c < kStrips; ++c) {
        const Vi scale = loadi(strips[c]->scales[sub]);
        OCTAVO_UNROLL
        for (int t = 0; t < kTokens; ++t) sums[t][c] = addi(sums[t][c], mul_ints(dots[t][c], scale));
      }
    }
  }
}

template <class Planes, int kTokens>
inline void add_minima(Vf (&acc)[kTokens], const ActRowsOf<Planes>& act, int64_t b, const PanelBlock<Planes>& block) {
  Vi totals[kTokens];
  OCTAVO_UNROLL
  for (Vi& total : totals) total = set1i(0);
  OCTAVO_UNROLL
  for (int pair = 0; pair < Planes::kPairs; ++pair) {
    const Vi minima = loadi(block.minima[pair]);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t)
      totals[t] = dot_pairs(totals[t], minima, broadcast4(act.sums(b) + t * act.stride + pair * 4));
  }
  const Vf dmin = load(block.dmin);
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) acc[t] = fma(to_float(totals[t]), mul(dmin, set1(-act.d(t, b))), acc[t]);
}

// Adds super block b to the outputs of a tile; act: its tokens' rows, strips: the super block of each strip.
template <class Planes, int kTokens, int kStrips>
[[gnu::always_inline]] inline void panel_block(float* out, int64_t out_stride, const ActRowsOf<Planes>& act, int64_t b,
                                               const PanelBlock<Planes>* const (&strips)[kStrips]) {
  Vi dots[kTokens][kStrips];
  scaled_dots(dots, act.quants(b), act.stride, strips);
  OCTAVO_UNROLL
  for (int c = 0; c < kStrips; ++c) {
    Vf acc[kTokens];
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) acc[t] = load(out + t * out_stride + c * 16);
    if constexpr (Planes::kMin) add_minima<Planes>(acc, act, b, *strips[c]);
    const Vf d = load(strips[c]->d);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t)
      store(out + t * out_stride + c * 16, fma(to_float(dots[t][c]), mul(d, set1(act.d(t, b))), acc[t]));
  }
}

template <class Planes, int kTokens, int kStrips>
void panel_tile(const LinearTask& task, int token, int s) {
  const int64_t n = task.k / 256;
  const auto* panel = reinterpret_cast<const PanelBlock<Planes>*>(task.weights) + s * n;
  const ActRowsOf<Planes> act(task, token);
  float* out = task.out + token * task.out_stride + s * 16;
  for (int64_t b = 0; b < n; ++b) {
    const PanelBlock<Planes>* strips[kStrips];
    OCTAVO_UNROLL
    for (int i = 0; i < kStrips; ++i) strips[i] = panel + i * n + b;
    panel_block<Planes, kTokens, kStrips>(out, task.out_stride, act, b, strips);
  }
}

template <class Planes, int kStrips>
void panel_strips(const LinearTask& task, int s) {
  for (int i = 0; i < kStrips; ++i) start_strip(task, s + i);
  for_tiles<kQ8Tokens>(
      task.n_tokens, [&](int token, auto size) { panel_tile<Planes, decltype(size)::value, kStrips>(task, token, s); });
}

template <class Planes>
void linear_panel(const LinearTask& task) {
  int s = 0;
  for (; s + 2 <= task.n_strips; s += 2) panel_strips<Planes, 2>(task, s);
  if (s < task.n_strips) panel_strips<Planes, 1>(task, s);
}

template <class Planes>
constexpr int kBiasOf = Planes::kMin ? 0 : 1 << Planes::kBiasShift;

// fill(block, strip, b) for every super block of a panel.
template <class Planes, class Fill>
inline void for_panel_blocks(uint8_t* panel, const LinearTask& task, Fill fill) {
  auto* block = reinterpret_cast<PanelBlock<Planes>*>(panel);
  for (int s = 0; s < task.n_strips; ++s)
    for (int64_t b = 0; b < task.k / 256; ++b) fill(*block++, s, b);
}

// A panel of planes.
template <class Planes>
void unpack_planes(uint8_t* panel, const LinearTask& task) {
  const int64_t n = task.k / 256;
  for_panel_blocks<Planes>(panel, task, [&](PanelBlock<Planes>& block, int s, int64_t b) {
    block.template fill<kBiasOf<Planes>>(StripBlock<Planes, 1>(task.weights + s * Planes::strip_bytes(n), n, b));
  });
}

// A panel of super blocks that their format's own code unpacks.
template <class Planes>
void unpack_blocks(uint8_t* panel, const LinearTask& task) {
  IntegerBlock<Planes> integers;
  for_panel_blocks<Planes>(panel, task, [&](PanelBlock<Planes>& block, int s, int64_t b) {
    integers.fill(task, s, b);
    block.template fill<kBiasOf<Planes>>(IntegerStrips<Planes, 1>{{&integers}, b});
  });
}

// The signed weights of 16 rows' super blocks from a codebook with signs, and without.
template <class Block>
inline void signed_rows(uint8_t (&rows)[16][256], const Block* blocks, const typename Block::Codebook& codebook) {
  for (int first = 0; first < 16; first += Magnitudes<Block>::kRows) {
    const Magnitudes<Block> magnitudes(blocks + first, codebook);
    const Signs<Block> signs(blocks + first);
    for (int i = 0; i < Magnitudes<Block>::kRows; ++i) {
      OCTAVO_UNROLL
      for (int p = 0; p < 4; ++p) {
        const Vi plus = magnitudes.vector(i, p);
        storei(rows[first + i] + p * 64, negative_where(signs.negative(i, p), plus, negative_bytes(plus)));
      }
    }
  }
}
template <Ternary Block>
inline void signed_rows(uint8_t (&rows)[16][256], const Block* blocks, const typename Block::Codebook& codebook) {
  for (int i = 0; i < 16; ++i) {
    const TernaryRow<Block> row(blocks[i], codebook);
    OCTAVO_UNROLL
    for (int p = 0; p < 4; ++p) storei(rows[i] + p * 64, sub_bytes(row.vector(p), Block::kBias));
  }
}

// A super block of a strip from a codebook.
template <class Block, class Planes>
struct EntriesBlock {
  alignas(64) uint8_t lines[64][64];  // of signed weights
  uint8_t scales[Planes::kPairs][16][2];
  Vf d;

  EntriesBlock(const Block* blocks, const typename Block::Codebook& codebook) {
    alignas(64) uint8_t rows[16][256];
    uint16_t units[16];
    signed_rows(rows, blocks, codebook);
    for (int row = 0; row < 16; ++row) {
      units[row] = unit_of(blocks[row]);
      put_scales(row, Entries<Block>::factors(blocks[row]));
    }
    for (int j = 0; j < 64; j += kLanes) transpose(lines[j], sizeof(lines[0]), rows[0] + 4 * j, sizeof(rows[0]));
    d = mul(load_f16(units), set1(Entries<Block>::kUnit));
  }

  Vi weights(int pair, int half, int j, int) const { return loadi(lines[(2 * pair + half) * Planes::kDwords + j]); }
  Vi scale_pairs(int pair, int) const { return load_s8_pairs(scales[pair][0]); }
  Vf unit(int) const { return d; }

 private:
  void put_scales(int row, __m128i factors) {
    uint8_t each[16];  // of 16 weights
    __builtin_memcpy(each, &factors, sizeof(each));
    for (int sub = 0; sub < 2 * Planes::kPairs; ++sub) scales[sub / 2][row][sub % 2] = each[sub * Planes::kDwords / 4];
  }
};

template <class Block, class Planes>
void unpack_entries(uint8_t* panel, const LinearTask& task) {
  const auto& codebook = *static_cast<const typename Block::Codebook*>(task.format->codebook);
  const int64_t strip_bytes = integer_strip_bytes(task), distance = distance_ahead(strip_bytes);
  for_panel_blocks<Planes>(panel, task, [&](PanelBlock<Planes>& to, int s, int64_t b) {
    const auto* blocks = reinterpret_cast<const Block*>(task.weights + s * strip_bytes) + b * 16;
    fetch_ahead(blocks, 16 * sizeof(Block), distance);
    to.template fill<0>(EntriesBlock<Block, Planes>(blocks, codebook));
  });
}

template <class Planes>
constexpr LinearKernel with_panel(void (*run)(const LinearTask&), int from,
                                  void (*unpack)(uint8_t*, const LinearTask&)) {
  return {ActFormat::kQ8x256, run, from, sizeof(PanelBlock<Planes>), unpack, linear_panel<Planes>};
}

// Planes are quick to unpack where they are multiplied, nibbles above all.
template <class Planes>
constexpr LinearKernel planes_kernel() {
  constexpr int kFrom = Planes::kUnpackFrom > kQ8Tokens + 1 ? 128 : 64;
  return with_panel<Planes>(linear_q8x256<Planes>, kFrom, unpack_planes<Planes>);
}

template <class Planes>
constexpr LinearKernel integers_kernel() {
  return with_panel<Planes>(linear_integers<Planes>, 4, unpack_blocks<Planes>);
}

template <class Block, class Planes>
constexpr LinearKernel entries_kernel() {
  return with_panel<Planes>(linear_entries<Block, Planes>, 4, unpack_entries<Block, Planes>);
}

}  // namespace
}  // namespace octavo
