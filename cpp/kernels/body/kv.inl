// How one kv head's tile holds its keys and values, and what is computed with them. A Kv has
//   Query          what a query is scored as; query() makes it of floats, in scratch if they change
//   score          scores[r][key] = q[r] . K[key] for all keys of the tile
//   store_weights  writes kLanes softmax weights over the scores they were made of
//   weigh          acc[r][c] += sum over keys [first, n) of weight[r][key] * V[key][dim + c * kLanes..]; first is even,
//                  and columns beyond head_dim are there only where kCols is 1

#pragma once

#include "kernels/body/quantize.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// What is read after a tile's keys, or after its values: what comes next, and what comes after that. Every line is
// fetched twice: into the second level of cache, which can wait for many, and from there into the first.
struct Ahead {
  const uint8_t *next, *later;

  void fetch(int64_t offset) const {
    __builtin_prefetch(next + offset);
    fetch_far(later + offset);
  }
};

// kLanes keys at a time: dot(acc, key) adds to the scores of keys key..key+kLanes.
template <int kRows, class Dot>
void score_by_lanes(float (*scores)[kKvTile], Dot dot) {
  for (int key = 0; key < kKvTile; key += kLanes) {
    Vf acc[kRows];
    for (Vf& v : acc) v = zero();
    dot(acc, key);
    for (int r = 0; r < kRows; ++r) store(scores[r] + key, acc[r]);
  }
}

// Keys and values as floats; so are queries and weights.
struct FloatQueries {
  using Query = float;
  static const Query* query(float*, const float* q, int) { return q; }
  static void store_weights(float* weights, int key, Vf p) { store(weights + key, p); }
};

struct Bf16Kv : FloatQueries {
  static constexpr int kBytes = 2;

  template <int kRows>
  static void score(float (*scores)[kKvTile], const uint8_t* tile, const Query* const* q, int head_dim,
                    const Ahead& ahead) {
    score_by_lanes<kRows>(scores, [&](Vf(&acc)[kRows], int key) {
      const auto* k = reinterpret_cast<const uint16_t*>(tile) + key * 2;
      for (int d = 0; d < head_dim; d += 2) {
        Vf even, odd;
        ahead.fetch(key * 4 + d * kKvTile * 2);
        load_bf16_pairs(k + d * kKvTile, even, odd);
        for (int r = 0; r < kRows; ++r) acc[r] = fma(even, set1(q[r][d]), acc[r]);
        for (int r = 0; r < kRows; ++r) acc[r] = fma(odd, set1(q[r][d + 1]), acc[r]);
      }
    });
  }

  template <int kRows, int kCols>
  static void weigh(Vf (&acc)[kRows][kCols], const uint8_t* values, const float (*p)[kKvTile], int first, int n,
                    int dim, int head_dim, const Ahead& ahead) {
    const auto* v = reinterpret_cast<const uint16_t*>(values) + dim * 2;
    for (int key = first; key < n; key += 2)
      for (int c = 0; c < kCols; ++c) {
        Vf even, odd;
        ahead.fetch((int64_t{key} * head_dim + (dim + c * kLanes) * 2) * 2);
        load_pairs_part(v + int64_t{key} * head_dim + c * kLanes * 2, head_dim - dim - c * kLanes, even, odd);
        for (int r = 0; r < kRows; ++r) acc[r][c] = fma(even, set1(p[r][key]), acc[r][c]);
        if (key + 1 == n) continue;  // the pair's second token does not exist yet and may hold anything
        for (int r = 0; r < kRows; ++r) acc[r][c] = fma(odd, set1(p[r][key + 1]), acc[r][c]);
      }
  }

  static void write(const KvWrite& task) {
    auto* keys = reinterpret_cast<uint32_t*>(task.tile);
    uint32_t* values = keys + kKvTile / 2 * task.head_dim;
    for (int t = 0; t < task.n_tokens; ++t) write_key(keys + task.slot + t, task.k + t * task.k_stride, task.head_dim);
    const int end = task.slot + task.n_tokens;
    const auto value = [&](int slot) {
      return slot < task.slot || slot >= end ? nullptr : task.v + (slot - task.slot) * task.v_stride;
    };
    for (int slot = task.slot / 2 * 2; slot < end; slot += 2)
      write_values(values + slot / 2 * task.head_dim, value(slot), value(slot + 1), task.head_dim);
  }

 private:
  // Pairs of one token's key, kKvTile dwords apart.
  static void write_key(uint32_t* pairs, const float* k, int head_dim) {
    constexpr int kAtOnce = 64;
    uint32_t rounded[kAtOnce / 2];
    for (int first = 0; first < head_dim; first += kAtOnce) {
      const int n = head_dim - first < kAtOnce ? head_dim - first : kAtOnce;
      round_row(reinterpret_cast<uint16_t*>(rounded), k + first, n);
      for (int i = 0; i < n / 2; ++i) pairs[(first / 2 + i) * kKvTile] = rounded[i];
    }
  }

  // The values of a pair of tokens, one of which may be null: its halves stay as they are.
  static void write_values(uint32_t* pairs, const float* even, const float* odd, int head_dim) {
    const Vi lower = set1i(0xffff), upper = set1i(static_cast<int>(0xffff0000));
    for (int d = 0; d < head_dim; d += kLanes) {
      const bool whole = d + kLanes <= head_dim;
      const size_t part_bytes = static_cast<size_t>(head_dim - d) * sizeof(*pairs);
      uint32_t part[kLanes];
      if (!whole) __builtin_memcpy(part, pairs + d, part_bytes);
      uint32_t* at = whole ? pairs + d : part;
      const Vi low =
          even == nullptr ? and_bits(loadi(at), lower) : shift_right<16>(round_bf16(load_at(even, d, head_dim)));
      const Vi high = and_bits(odd == nullptr ? loadi(at) : round_bf16(load_at(odd, d, head_dim)), upper);
      storei(at, or_bits(low, high));
      if (!whole) __builtin_memcpy(pairs + d, part, part_bytes);
    }
  }

  static void load_pairs_part(const uint16_t* v, int lanes, Vf& even, Vf& odd) {
    if (lanes >= kLanes) return load_bf16_pairs(v, even, odd);
    uint16_t pairs[2 * kLanes] = {};
    __builtin_memcpy(pairs, v, static_cast<size_t>(lanes) * 4);
    load_bf16_pairs(pairs, even, odd);
  }
};

struct F32Kv : FloatQueries {
  static constexpr int kBytes = 4;

  template <int kRows>
  static void score(float (*scores)[kKvTile], const uint8_t* tile, const Query* const* q, int head_dim,
                    const Ahead& ahead) {
    score_by_lanes<kRows>(scores, [&](Vf(&acc)[kRows], int key) {
      const auto* k = reinterpret_cast<const float*>(tile) + key;
      for (int d = 0; d < head_dim; ++d) {
        ahead.fetch((d * kKvTile + key) * 4);
        const Vf keys = load(k + d * kKvTile);
        for (int r = 0; r < kRows; ++r) acc[r] = fma(keys, set1(q[r][d]), acc[r]);
      }
    });
  }

  template <int kRows, int kCols>
  static void weigh(Vf (&acc)[kRows][kCols], const uint8_t* values, const float (*p)[kKvTile], int first, int n,
                    int dim, int head_dim, const Ahead& ahead) {
    const auto* v = reinterpret_cast<const float*>(values);
    for (int key = first; key < n; ++key)
      for (int c = 0; c < kCols; ++c) {
        ahead.fetch((int64_t{key} * head_dim + dim + c * kLanes) * 4);
        const Vf row = load_at(v + int64_t{key} * head_dim, dim + c * kLanes, head_dim);
        for (int r = 0; r < kRows; ++r) acc[r][c] = fma(row, set1(p[r][key]), acc[r][c]);
      }
  }

  static void write(const KvWrite& task) {
    auto* keys = reinterpret_cast<float*>(task.tile) + task.slot;
    float* values = reinterpret_cast<float*>(task.tile) + (kKvTile + task.slot) * task.head_dim;
    for (int t = 0; t < task.n_tokens; ++t) {
      for (int d = 0; d < task.head_dim; ++d) keys[d * kKvTile + t] = task.k[t * task.k_stride + d];
      __builtin_memcpy(values + t * task.head_dim, task.v + t * task.v_stride,
                       sizeof(float) * static_cast<size_t>(task.head_dim));
    }
  }
};

}  // namespace
}  // namespace octavo
