// Paged attention of one kv head: for every query row (a query of one head) a running softmax over tiles of
// 32 keys, restarted every kKvChunk keys and merged in ascending order. Rows never share a decision, so a
// row's bits depend on its own position only.

#pragma once

#include "kernels/body/activation.inl"
#include "kernels/body/elementwise.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

constexpr int kQueryRows = 8;  // rows that read a tile together
constexpr float kMinusInf = -__builtin_inff();

inline float exp_scalar(float x) {
  float lanes[kLanes];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

// Running softmax of one row: maximum, sum and un-normalised output.
struct Softmax {
  float max;
  float sum;
  float* out;  // (head_dim)
};

inline void reset(Softmax& state, int head_dim) {
  state.max = kMinusInf;
  state.sum = 0;
  for (int i = 0; i < head_dim; ++i) state.out[i] = 0;
}

// total <- total combined with a finished chunk.
inline void merge(Softmax& total, const Softmax& chunk, int head_dim) {
  if (chunk.max == kMinusInf) return;
  const float top = total.max > chunk.max ? total.max : chunk.max;
  const float keep = exp_scalar(total.max - top), take = exp_scalar(chunk.max - top);
  total.sum = total.sum * keep + chunk.sum * take;
  total.max = top;
  for (int i = 0; i < head_dim; i += kLanes) {
    const Vf scaled = mul(load_at(chunk.out, i, head_dim), set1(take));
    const Vf merged = fma(load_at(total.out, i, head_dim), set1(keep), scaled);
    if (i + kLanes <= head_dim)
      store(total.out + i, merged);
    else
      store_part(total.out + i, merged, head_dim - i);
  }
}

struct Bf16Kv {
  static constexpr int kBytes = 2;

  // scores[r][key] += q[r] . K[key], for kLanes keys from `key`.
  template <int kRows>
  static void score(Vf (&acc)[kRows], const uint8_t* tile, const float* const* q, int key, int head_dim) {
    const auto* k = reinterpret_cast<const uint16_t*>(tile) + key * 2;
    for (int d = 0; d < head_dim; d += 2) {
      Vf even, odd;
      load_bf16_pairs(k + d * kKvTile, even, odd);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(even, set1(q[r][d]), acc[r]);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(odd, set1(q[r][d + 1]), acc[r]);
    }
  }

  // acc[r] += sum over keys [first, n) of p[r][key] * V[key][dim..dim+kLanes); first is even.
  template <int kRows>
  static void weigh(Vf (&acc)[kRows], const uint8_t* tile, const float (*p)[kKvTile], int first, int n, int dim,
                    int head_dim) {
    const auto* v = reinterpret_cast<const uint16_t*>(tile) + dim * 2;
    int key = first;
    for (; key + 2 <= n; key += 2) {
      Vf even, odd;
      load_pairs_part(v + int64_t{key} * head_dim, head_dim - dim, even, odd);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(even, set1(p[r][key]), acc[r]);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(odd, set1(p[r][key + 1]), acc[r]);
    }
    if (key < n) {  // the pair's second token does not exist yet and may hold anything
      Vf even, odd;
      load_pairs_part(v + int64_t{key} * head_dim, head_dim - dim, even, odd);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(even, set1(p[r][key]), acc[r]);
    }
  }

  static void load_pairs_part(const uint16_t* v, int lanes, Vf& even, Vf& odd) {
    if (lanes >= kLanes) return load_bf16_pairs(v, even, odd);
    uint16_t pairs[2 * kLanes] = {};
    __builtin_memcpy(pairs, v, static_cast<size_t>(lanes) * 4);
    load_bf16_pairs(pairs, even, odd);
  }

  static void write(uint8_t* tile, const float* k, const float* v, int slot, int head_dim) {
    auto* keys = reinterpret_cast<uint16_t*>(tile) + slot * 2;
    auto* values =
        reinterpret_cast<uint16_t*>(tile) + int64_t{kKvTile} * head_dim + int64_t{slot / 2} * head_dim * 2 + slot % 2;
    for (int d = 0; d < head_dim; ++d) {
      keys[d / 2 * kKvTile * 2 + d % 2] = round_bf16(k[d]);
      values[d * 2] = round_bf16(v[d]);
    }
  }
};

struct F32Kv {
  static constexpr int kBytes = 4;

  template <int kRows>
  static void score(Vf (&acc)[kRows], const uint8_t* tile, const float* const* q, int key, int head_dim) {
    const auto* k = reinterpret_cast<const float*>(tile) + key;
    for (int d = 0; d < head_dim; ++d) {
      const Vf keys = load(k + d * kKvTile);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(keys, set1(q[r][d]), acc[r]);
    }
  }

  template <int kRows>
  static void weigh(Vf (&acc)[kRows], const uint8_t* tile, const float (*p)[kKvTile], int first, int n, int dim,
                    int head_dim) {
    const auto* v = reinterpret_cast<const float*>(tile);
    for (int key = first; key < n; ++key) {
      const Vf values = load_at(v + int64_t{key} * head_dim, dim, head_dim);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(values, set1(p[r][key]), acc[r]);
    }
  }

  static void write(uint8_t* tile, const float* k, const float* v, int slot, int head_dim) {
    auto* keys = reinterpret_cast<float*>(tile) + slot;
    auto* values = reinterpret_cast<float*>(tile) + int64_t{kKvTile} * head_dim + int64_t{slot} * head_dim;
    for (int d = 0; d < head_dim; ++d) keys[d * kKvTile] = k[d];
    __builtin_memcpy(values, v, sizeof(float) * static_cast<size_t>(head_dim));
  }
};

// The rows that one pass over the keys serves.
struct QueryRows {
  int n;
  const float* q[kQueryRows];
  int position[kQueryRows];
  const float* bias[kQueryRows];  // at distance 0, or null
  Softmax total[kQueryRows];
  Softmax chunk[kQueryRows];
};

// The keys [first, end) that a query sees.
inline int first_key_of(const AttentionTask& task, int position) {
  if (task.window == 0) return 0;
  const int oldest = task.causal ? position - task.window + 1 : position - task.window / 2;
  return oldest > 0 ? oldest : 0;
}

inline int end_key_of(const AttentionTask& task, int position) {
  if (task.causal) return position + 1;
  const int end = task.window == 0 ? task.n_keys : position + task.window / 2 + 1;
  return end < task.n_keys ? end : task.n_keys;
}

// The same inside the tile that starts at first_key.
inline void visible(int& begin, int& end, const AttentionTask& task, int position, int first_key) {
  const int oldest = first_key_of(task, position);
  begin = oldest > first_key ? oldest - first_key : 0;
  end = end_key_of(task, position) - first_key;
  if (end > kKvTile) end = kKvTile;
}

// Turns one row's raw scores into probabilities relative to the row's new maximum; returns the factor by
// which the row's earlier sums shrink. bias: of the tile's first key, or null.
inline float soften(float* scores, Softmax& state, const AttentionTask& task, const float* bias, int begin, int end) {
  Vf top = set1(kMinusInf);
  for (int i = 0; i < kKvTile; i += kLanes) {
    Vf s = mul(load(scores + i), set1(task.scale));
    if (task.soft_cap > 0) s = mul(set1(task.soft_cap), tanh(div(s, set1(task.soft_cap))));
    if (bias != nullptr) s = add(s, load(bias + i));
    store(scores + i, s);
  }
  for (int i = 0; i < begin; ++i) scores[i] = kMinusInf;
  for (int i = end; i < kKvTile; ++i) scores[i] = kMinusInf;
  for (int i = 0; i < kKvTile; i += kLanes) top = max(top, load(scores + i));
  const float tile_max = reduce_max(top);
  const float new_max = tile_max > state.max ? tile_max : state.max;
  Vf sum = zero();
  for (int i = 0; i < kKvTile; i += kLanes) {
    const Vf p = exp(sub(load(scores + i), set1(new_max)));
    store(scores + i, p);
    sum = add(sum, p);
  }
  const float shrink = exp_scalar(state.max - new_max);
  state.sum = state.sum * shrink + reduce_add(sum);
  state.max = new_max;
  return shrink;
}

template <class Kv, int kRows>
void score_rows(float (*scores)[kKvTile], const uint8_t* tile, const float* const* q, int head_dim) {
  for (int key = 0; key < kKvTile; key += kLanes) {
    Vf acc[kRows];
    for (Vf& v : acc) v = zero();
    Kv::template score<kRows>(acc, tile, q, key, head_dim);
    for (int r = 0; r < kRows; ++r) store(scores[r] + key, acc[r]);
  }
}

// states[r].out = states[r].out * shrink[r] + the weighed values of keys [first, n).
template <class Kv, int kRows>
void weigh_rows(Softmax* states, const uint8_t* values, const float (*p)[kKvTile], const float* shrink, int first,
                int n, int head_dim) {
  for (int dim = 0; dim < head_dim; dim += kLanes) {
    Vf acc[kRows];
    for (int r = 0; r < kRows; ++r) acc[r] = mul(load_at(states[r].out, dim, head_dim), set1(shrink[r]));
    Kv::template weigh<kRows>(acc, values, p, first, n, dim, head_dim);
    for (int r = 0; r < kRows; ++r) {
      if (dim + kLanes <= head_dim)
        store(states[r].out + dim, acc[r]);
      else
        store_part(states[r].out + dim, acc[r], head_dim - dim);
    }
  }
}

// kRows consecutive rows, all of which see some key of the tile, against it.
template <class Kv, int kRows>
void tile_rows(QueryRows& rows, int first, const AttentionTask& task, const uint8_t* tile, int first_key) {
  float scores[kRows][kKvTile];
  float shrink[kRows];
  int ends[kRows];
  score_rows<Kv, kRows>(scores, tile, rows.q + first, task.head_dim);
  for (int r = 0; r < kRows; ++r) {
    int begin;
    visible(begin, ends[r], task, rows.position[first + r], first_key);
    const int row = first + r;
    const float* bias = rows.bias[row] == nullptr ? nullptr : rows.bias[row] + first_key - rows.position[row];
    shrink[r] = soften(scores[r], rows.chunk[row], task, bias, begin, ends[r]);
  }
  const uint8_t* values = tile + int64_t{kKvTile} * task.head_dim * Kv::kBytes;
  // Ends ascend with the rows. Values after a row's own end, which may be infinite, are not even multiplied by zero.
  const int together = ends[0] == ends[kRows - 1] ? ends[0] : ends[0] & ~1;
  weigh_rows<Kv, kRows>(rows.chunk + first, values, scores, shrink, 0, together, task.head_dim);
  const float keep = 1;
  for (int r = 0; r < kRows; ++r)
    if (ends[r] > together)
      weigh_rows<Kv, 1>(rows.chunk + first + r, values, scores + r, &keep, together, ends[r], task.head_dim);
}

inline bool sees(const AttentionTask& task, int position, int first_key) {
  int begin, end;
  visible(begin, end, task, position, first_key);
  return begin < end;
}

template <class Kv>
void attend_tile(QueryRows& rows, const AttentionTask& task, const uint8_t* tile, int first_key) {
  int row = 0;
  while (row < rows.n) {
    if (!sees(task, rows.position[row], first_key)) {
      ++row;
      continue;
    }
    int last = row + 1;
    while (last < rows.n && sees(task, rows.position[last], first_key)) ++last;
    for (; row + 8 <= last; row += 8) tile_rows<Kv, 8>(rows, row, task, tile, first_key);
    for (; row + 3 <= last; row += 3) tile_rows<Kv, 3>(rows, row, task, tile, first_key);
    for (; row < last; ++row) tile_rows<Kv, 1>(rows, row, task, tile, first_key);
  }
}

inline void gather_rows(QueryRows& rows, const AttentionTask& task, int first, int n) {
  rows.n = n;
  for (int r = 0; r < n; ++r) {
    const int query = (first + r) / task.n_group, head = (first + r) % task.n_group;
    rows.q[r] = task.q + query * task.token_stride + int64_t{head} * task.head_dim;
    rows.position[r] = task.first_position + query;
    rows.bias[r] = task.bias == nullptr
                       ? nullptr
                       : task.bias + head * relative_bias_width(task.bias_length) + task.bias_length - 1;
    rows.total[r].out = task.scratch + int64_t{2 * r} * task.head_dim;
    rows.chunk[r].out = rows.total[r].out + task.head_dim;
    reset(rows.total[r], task.head_dim);
    reset(rows.chunk[r], task.head_dim);
  }
}

inline void end_chunk(QueryRows& rows, int head_dim) {
  for (int r = 0; r < rows.n; ++r) {
    merge(rows.total[r], rows.chunk[r], head_dim);
    reset(rows.chunk[r], head_dim);
  }
}

inline void write_rows(const QueryRows& rows, const AttentionTask& task, int first) {
  for (int r = 0; r < rows.n; ++r) {
    const int query = (first + r) / task.n_group, head = (first + r) % task.n_group;
    float* out = task.out + query * task.out_stride + int64_t{head} * task.head_dim;
    const Vf inverse = set1(1.0f / rows.total[r].sum);
    map_row(out, rows.total[r].out, task.head_dim, [&](int, Vf v) { return mul(v, inverse); });
  }
}

template <class Kv>
void attention(const AttentionTask& task) {
  QueryRows rows;
  const int n_rows = task.n_queries * task.n_group;
  for (int first = 0; first < n_rows; first += kQueryRows) {
    gather_rows(rows, task, first, n_rows - first < kQueryRows ? n_rows - first : kQueryRows);
    const int end_key = end_key_of(task, rows.position[rows.n - 1]);
    for (int tile = first_key_of(task, rows.position[0]) / kKvTile; tile * kKvTile < end_key; ++tile) {
      if (tile * kKvTile % kKvChunk == 0) end_chunk(rows, task.head_dim);
      attend_tile<Kv>(rows, task, task.tiles[tile], tile * kKvTile);
    }
    end_chunk(rows, task.head_dim);
    write_rows(rows, task, first);
  }
}

}  // namespace
}  // namespace octavo
