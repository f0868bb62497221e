// Few tokens by formats whose weights are entries of a codebook (quant/fmt_codebook.h). Entries go straight into
// vectors (add_entries: entries_loaded.inl, entries_rounds.inl, entries_ternary.inl), and signs to the activations, so
// nothing is unpacked. The integers are those of linear_integers.inl, which takes many tokens, and so are the bits of
// the result.

#pragma once

#ifdef OCTAVO_SIMD_VBMI
#include "kernels/body/entries_rounds.inl"
#else
#include "kernels/body/entries_loaded.inl"
#endif
#include "kernels/body/entries_ternary.inl"
#include "kernels/body/linear_integers.inl"

namespace octavo {
namespace {

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
