// Few tokens by formats whose weights are entries of a codebook with signs (quant/fmt_codebook.h). Entries go straight
// into vectors (entries_loaded.inl, entries_permuted.inl), and signs to the activations, so nothing is unpacked. The
// integers are those of linear_integers.inl, which takes many tokens, and so are the bits of the result.

#pragma once

#ifdef OCTAVO_SIMD_VBMI
#include "kernels/body/entries_permuted.inl"
#else
#include "kernels/body/entries_loaded.inl"
#endif
#include "kernels/body/linear_integers.inl"

namespace octavo {
namespace {

// A super block of 16 rows times kTokens tokens, added to their outputs.
template <class Block, int kTokens>
void add_entries(const LinearTask& task, float* out, const Block* blocks, int64_t index, int token) {
  const Q8x256Layout layout(task.k);
  const uint8_t* act[kTokens];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) act[t] = task.act + (token + t) * task.act_stride;
  const auto& codebook = *static_cast<const typename Block::Codebook*>(task.format->codebook);
  constexpr int kVectors = 64 / kLanes;  // of a row
  Vi plus[kTokens][kVectors], minus[kTokens][kVectors];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    OCTAVO_UNROLL
    for (int p = 0; p < kVectors; ++p) {
      plus[t][p] = load_bytes(act[t] + index * 256 + p * kLanes * 4);
      minus[t][p] = negative_bytes(plus[t][p]);
    }
  }
  Vi sums[kTokens][16];
  uint16_t d[16];
  for (int row = 0; row < 16; ++row) d[row] = blocks[row].d;
  __asm__ volatile("" : : "r"(d) : "memory");  // stored now, as they are loaded together at the end
  constexpr int kRows = Magnitudes<Block>::kRows;
  // Made a round before they are multiplied: a core does not look far enough ahead to do both at once.
  Magnitudes<Block> next(blocks, codebook);
  for (int first = 0; first < 16; first += kRows) {
    const Magnitudes<Block> magnitudes = next;
    next = Magnitudes<Block>(blocks + (first + kRows) % 16, codebook);
    const Signs<Block> signs(blocks + first);
    OCTAVO_UNROLL
    for (int i = 0; i < kRows; ++i) {
      Vi sum[kTokens];
      OCTAVO_UNROLL
      for (Vi& s : sum) s = set1i(0);
      OCTAVO_UNROLL
      for (int p = 0; p < kVectors; ++p) {
        const Vi weights = magnitudes.vector(i, p);
        const SignBits negative = signs.negative(i, p);
        const Vi scales = signs.scales(i, p);
        OCTAVO_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          const Vi a = negative_where(negative, plus[t][p], minus[t][p]);
          sum[t] = dot_pairs(sum[t], dot_byte_pairs(weights, a), scales);
        }
      }
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) sums[t][first + i] = sum[t];
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    const float d_act = reinterpret_cast<const float*>(act[t] + layout.d)[index];
    for (int v = 0; v < kVecs; ++v) {
      float* at = out + (token + t) * task.out_stride + v * kLanes;
      const Vf unit = mul(load_f16(d + v * kLanes), set1(Entries<Block>::kUnit));
      store(at, fma(to_float(sums_of_rows(sums[t] + v * kLanes)), mul(unit, set1(d_act)), load(at)));
    }
  }
}

// Fetches what lies `distance` after so many bytes. (The first level of cache is the codebook's.)
inline void fetch_ahead(const void* at, size_t bytes, int64_t distance) {
  const auto* ahead = static_cast<const uint8_t*>(at) + distance;
  for (size_t i = 0; i < bytes; i += 64) fetch_far(ahead + i);
}

template <class Block>
void few_by_entries(const LinearTask& task) {
  const int64_t n = task.k / 256, strip_bytes = integer_strip_bytes(task), distance = distance_ahead(strip_bytes);
  for (int s = 0; s < task.n_strips; ++s) {
    start_strip(task, s);
    const auto* blocks = reinterpret_cast<const Block*>(task.weights + s * strip_bytes);
    for (int64_t b = 0; b < n; ++b, blocks += 16) {
      fetch_ahead(blocks, 16 * sizeof(Block), distance);
      int token = 0;
      for (; token + 2 <= task.n_tokens; token += 2) add_entries<Block, 2>(task, task.out + s * 16, blocks, b, token);
      if (token < task.n_tokens) add_entries<Block, 1>(task, task.out + s * 16, blocks, b, token);
    }
  }
}

// So many tokens pay for unpacking.
constexpr int kUnpackEntriesFrom = 5;

template <class Block, class Planes>
void linear_entries(const LinearTask& task) {
  if (task.n_tokens < kUnpackEntriesFrom)
    few_by_entries<Block>(task);
  else
    linear_integers<Planes>(task);
}

}  // namespace
}  // namespace octavo
