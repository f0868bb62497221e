// Paged attention of one kv head: for every query row (a query of one head) a running softmax over tiles of
// 32 keys, restarted every kKvChunk keys and merged in ascending order. Rows never share a decision, so a
// row's bits depend on its own position only.

#pragma once

#include "kernels/body/activation.inl"
#include "kernels/body/kv.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

constexpr int kQueryRows = 8;  // rows that read a tile together
constexpr int kFewLanes = kQueryRows < kLanes ? kLanes : kQueryRows;
constexpr int kTileVectors = kKvTile / kLanes;
constexpr float kMinusInf = -__builtin_inff();

// Running softmaxes of rows: maxima, sums and un-normalised outputs. Whole vectors of them may be read.
struct Softmaxes {
  float max[kQueryRows + kFewLanes];
  float sum[kQueryRows + kFewLanes];
  float* out[kQueryRows];  // (head_dim), zero while max is -inf
};

inline void reset(Softmaxes& states, int row, int head_dim) {
  states.max[row] = kMinusInf;
  states.sum[row] = 0;
  __builtin_memset(states.out[row], 0, sizeof(float) * static_cast<size_t>(head_dim));
}

template <class T>
inline void swap(T& a, T& b) {
  const T other = a;
  a = b;
  b = other;
}

// total <- total combined with a finished chunk, which is reset.
inline void merge(Softmaxes& total, Softmaxes& chunk, int row, int head_dim) {
  if (chunk.max[row] == kMinusInf) return;
  if (total.max[row] == kMinusInf) {
    swap(total.max[row], chunk.max[row]);
    swap(total.sum[row], chunk.sum[row]);
    swap(total.out[row], chunk.out[row]);
    return;
  }
  const float top = total.max[row] > chunk.max[row] ? total.max[row] : chunk.max[row];
  const Vf keep = exp(set1(total.max[row] - top)), take = exp(set1(chunk.max[row] - top));
  float factors[2 * kLanes];
  store(factors, keep);
  store(factors + kLanes, take);
  total.sum[row] = total.sum[row] * factors[0] + chunk.sum[row] * factors[kLanes];
  total.max[row] = top;
  map_row(total.out[row], total.out[row], head_dim,
          [&](int i, Vf v) { return fma(v, keep, mul(load_at(chunk.out[row], i, head_dim), take)); });
  reset(chunk, row, head_dim);
}

// The rows that one pass over the keys serves, in ascending order of their positions.
template <class Kv>
struct QueryRows {
  int n;
  const typename Kv::Query* q[kQueryRows];
  int position[kQueryRows];
  const float* bias[kQueryRows];  // at distance 0, or null
  Softmaxes total;
  Softmaxes chunk;
};

// The keys [first, end) that a query sees.
inline int first_key_of(const AttentionTask& task, int position) {
  return first_visible_key(position, task.window, task.causal);
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

// What the rows see of a tile: keys [begin, end), with biases from the tile's first key, or null.
template <int kRows>
struct Sight {
  int begin[kRows], end[kRows];
  const float* bias[kRows];
};

// Scores of a tile's keys from `first` on, by one row, as the softmax takes them.
template <int kRows>
inline Vf finish_score(Vf score, const AttentionTask& task, const Sight<kRows>& sight, int row, int first) {
  Vf s = mul(score, set1(task.scale));
  if (task.soft_cap > 0) s = mul(set1(task.soft_cap), tanh(div(s, set1(task.soft_cap))));
  if (sight.bias[row] != nullptr) s = add(s, load(sight.bias[row] + first));
  if (sight.begin[row] > 0 || sight.end[row] < kKvTile) {
    const Vf key = to_float(addi(iota(), set1i(first)));
    s = select_less(key, set1(static_cast<float>(sight.begin[row])), set1(kMinusInf), s);
    s = select_less(key, set1(static_cast<float>(sight.end[row])), s, set1(kMinusInf));
  }
  return s;
}

// Turns rows of raw scores into weights relative to the rows' new maxima; shrink: what the old outputs are worth.
// finish(score, row, key): finish_score of the keys from `key` on.
template <class Kv, int kRows, class Finish>
void soften(float (&scores)[kRows][kKvTile], float (&shrink)[kFewLanes], Softmaxes& states, int first, Finish finish) {
  Vf s[kRows][kTileVectors], tops[kRows], totals[kRows];
  OCTAVO_UNROLL
  for (int r = 0; r < kRows; ++r) {
    OCTAVO_UNROLL
    for (int i = 0; i < kTileVectors; ++i) {
      s[r][i] = finish(load(scores[r] + i * kLanes), r, i * kLanes);
      tops[r] = i == 0 ? s[r][0] : max(tops[r], s[r][i]);
    }
  }
  float largest[kFewLanes] = {}, sums[kFewLanes] = {};
  reduce_max_each<kRows>(largest, tops);
  for (int r = 0; r < kRows; r += kLanes) {
    const Vf before = load(states.max + first + r), now = max(load(largest + r), before);
    store(shrink + r, exp(sub(before, now)));
    store(largest + r, now);
    store_at(states.max + first, now, r, kRows);
  }
  OCTAVO_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const Vf top = set1(largest[r]);
    totals[r] = zero();
    OCTAVO_UNROLL
    for (int i = 0; i < kTileVectors; ++i) {
      const Vf p = exp(sub(s[r][i], top));
      Kv::store_weights(scores[r], i * kLanes, p);
      totals[r] = add(totals[r], p);
    }
  }
  reduce_add_each<kRows>(sums, totals);
  for (int r = 0; r < kRows; r += kLanes)
    store_at(states.sum + first, add(mul(load(states.sum + first + r), load(shrink + r)), load(sums + r)), r, kRows);
}

// out[r] = out[r] * shrink[r] + the weighed values of keys [first, n), in kCols vectors from `dim`.
template <class Kv, int kRows, int kCols>
void weigh_columns(float* const* out, const uint8_t* values, const float (*p)[kKvTile], const float* shrink, int first,
                   int n, int dim, int head_dim, const Ahead& ahead) {
  Vf acc[kRows][kCols];
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kCols; ++c) acc[r][c] = mul(load_at(out[r], dim + c * kLanes, head_dim), set1(shrink[r]));
  Kv::template weigh<kRows, kCols>(acc, values, p, first, n, dim, head_dim, ahead);
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kCols; ++c) store_at(out[r], acc[r][c], dim + c * kLanes, head_dim);
}

template <class Kv, int kRows>
void weigh_rows(float* const* out, const uint8_t* values, const float (*p)[kKvTile], const float* shrink, int first,
                int n, int head_dim, const Ahead& ahead) {
  constexpr int kFit = kLanes / kRows;  // vectors whose sums fit the registers together
  constexpr int kCols = kFit > 4 ? 4 : kFit > 1 ? kFit : 1;
  int dim = 0;
  for (; dim + kCols * kLanes <= head_dim; dim += kCols * kLanes)
    weigh_columns<Kv, kRows, kCols>(out, values, p, shrink, first, n, dim, head_dim, ahead);
  for (; dim < head_dim; dim += kLanes)
    weigh_columns<Kv, kRows, 1>(out, values, p, shrink, first, n, dim, head_dim, ahead);
}

template <class Kv, int kRows>
Sight<kRows> look(const QueryRows<Kv>& rows, int first, const AttentionTask& task, int first_key) {
  Sight<kRows> sight;
  for (int r = 0; r < kRows; ++r) {
    const int position = rows.position[first + r];
    visible(sight.begin[r], sight.end[r], task, position, first_key);
    sight.bias[r] = task.bias == nullptr ? nullptr : rows.bias[first + r] + first_key - position;
  }
  return sight;
}

// kRows consecutive rows, all of which see some key of the tile, against it. next: the tile to fetch meanwhile.
template <class Kv, int kRows>
void tile_rows(QueryRows<Kv>& rows, int first, const AttentionTask& task, const uint8_t* tile, int first_key,
               const uint8_t* next) {
  alignas(64) float scores[kRows][kKvTile];
  float shrink[kFewLanes];
  const int64_t bytes = int64_t{kKvTile} * task.head_dim * Kv::kBytes;  // of the keys, which the values follow
  Kv::template score<kRows>(scores, tile, rows.q + first, task.head_dim, Ahead{tile + bytes, next});
  const Sight<kRows> sight = look<Kv, kRows>(rows, first, task, first_key);
  const bool all = sight.begin[kRows - 1] == 0 && sight.end[0] == kKvTile;
  if (all && task.bias == nullptr && task.soft_cap == 0)
    soften<Kv, kRows>(scores, shrink, rows.chunk, first, [&](Vf s, int, int) { return mul(s, set1(task.scale)); });
  else
    soften<Kv, kRows>(scores, shrink, rows.chunk, first,
                      [&](Vf s, int r, int key) { return finish_score(s, task, sight, r, key); });
  float* const* out = rows.chunk.out + first;
  const Ahead ahead{next, next + bytes};
  // Ends ascend with the rows. Values after a row's own end, which may be infinite, are not even multiplied by zero.
  const int together = sight.end[0] == sight.end[kRows - 1] ? sight.end[0] : sight.end[0] & ~1;
  weigh_rows<Kv, kRows>(out, tile + bytes, scores, shrink, 0, together, task.head_dim, ahead);
  const float keep = 1;
  for (int r = 0; r < kRows; ++r)
    if (sight.end[r] > together)
      weigh_rows<Kv, 1>(out + r, tile + bytes, scores + r, &keep, together, sight.end[r], task.head_dim, ahead);
}

inline bool sees(const AttentionTask& task, int position, int first_key) {
  int begin, end;
  visible(begin, end, task, position, first_key);
  return begin < end;
}

template <class Kv>
void attend_tile(QueryRows<Kv>& rows, const AttentionTask& task, const uint8_t* tile, int first_key,
                 const uint8_t* next) {
  // The rows that see some of it are consecutive.
  int row = 0, last = rows.n;
  while (row < last && !sees(task, rows.position[row], first_key)) ++row;
  while (row < last && !sees(task, rows.position[last - 1], first_key)) --last;
  for (; row + 8 <= last; row += 8) tile_rows<Kv, 8>(rows, row, task, tile, first_key, next);
  for (; row + 4 <= last; row += 4) tile_rows<Kv, 4>(rows, row, task, tile, first_key, next);
  for (; row + 3 <= last; row += 3) tile_rows<Kv, 3>(rows, row, task, tile, first_key, next);
  for (; row + 2 <= last; row += 2) tile_rows<Kv, 2>(rows, row, task, tile, first_key, next);
  for (; row < last; ++row) tile_rows<Kv, 1>(rows, row, task, tile, first_key, next);
}

template <class Kv>
void gather_rows(QueryRows<Kv>& rows, const AttentionTask& task, int first, int n) {
  rows.n = n;
  for (int r = 0; r < n; ++r) {
    const int query = (first + r) / task.n_group, head = (first + r) % task.n_group;
    float* scratch = task.scratch + int64_t{3 * r} * task.head_dim;
    rows.q[r] = Kv::query(scratch, task.q + query * task.token_stride + int64_t{head} * task.head_dim, task.head_dim);
    rows.position[r] = task.first_position + query;
    rows.bias[r] = task.bias == nullptr
                       ? nullptr
                       : task.bias + head * relative_bias_width(task.bias_length) + task.bias_length - 1;
    rows.total.out[r] = scratch + task.head_dim;
    rows.chunk.out[r] = scratch + 2 * task.head_dim;
    reset(rows.total, r, task.head_dim);
    reset(rows.chunk, r, task.head_dim);
  }
}

template <class Kv>
void end_chunk(QueryRows<Kv>& rows, int head_dim) {
  for (int r = 0; r < rows.n; ++r) merge(rows.total, rows.chunk, r, head_dim);
}

template <class Kv>
void write_rows(const QueryRows<Kv>& rows, const AttentionTask& task, int first) {
  for (int r = 0; r < rows.n; ++r) {
    const int query = (first + r) / task.n_group, head = (first + r) % task.n_group;
    float* out = task.out + query * task.out_stride + int64_t{head} * task.head_dim;
    const Vf inverse = set1(1.0f / rows.total.sum[r]);
    map_row(out, rows.total.out[r], task.head_dim, [&](int, Vf v) { return mul(v, inverse); });
  }
}

template <class Kv>
void attention(const AttentionTask& task) {
  QueryRows<Kv> rows;
  const int n_rows = task.n_queries * task.n_group;
  for (int first = 0; first < n_rows; first += kQueryRows) {
    gather_rows(rows, task, first, n_rows - first < kQueryRows ? n_rows - first : kQueryRows);
    const int end_key = end_key_of(task, rows.position[rows.n - 1]);
    for (int tile = first_key_of(task, rows.position[0]) / kKvTile; tile * kKvTile < end_key; ++tile) {
      if (tile * kKvTile % kKvChunk == 0) end_chunk(rows, task.head_dim);
      attend_tile<Kv>(rows, task, task.tiles[tile], tile * kKvTile, task.tiles[tile + 1]);
    }
    end_chunk(rows, task.head_dim);
    write_rows(rows, task, first);
  }
}

}  // namespace
}  // namespace octavo
