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

// x[i] = exp(x[i]) for up to kQueryRows numbers.
inline void exp_few(float (&x)[kFewLanes], int n) {
  for (int i = 0; i < n; i += kLanes) store(x + i, exp(load(x + i)));
}

// Running softmax of one row: maximum, sum and un-normalised output.
struct Softmax {
  float max;
  float sum;
  float* out;  // (head_dim), anything while max is -inf
};

inline void reset(Softmax& state) {
  state.max = kMinusInf;
  state.sum = 0;
}

// total <- total combined with a finished chunk, which is reset.
inline void merge(Softmax& total, Softmax& chunk, int head_dim) {
  if (chunk.max == kMinusInf) return;
  if (total.max == kMinusInf) {
    const Softmax empty = total;
    total = chunk;
    chunk = empty;
    return;
  }
  const float top = total.max > chunk.max ? total.max : chunk.max;
  float factors[kFewLanes] = {total.max - top, chunk.max - top};
  exp_few(factors, 2);
  const Vf keep = set1(factors[0]), take = set1(factors[1]);
  total.sum = total.sum * factors[0] + chunk.sum * factors[1];
  total.max = top;
  for (int i = 0; i < head_dim; i += kLanes) {
    const Vf merged = fma(load_at(total.out, i, head_dim), keep, mul(load_at(chunk.out, i, head_dim), take));
    if (i + kLanes <= head_dim)
      store(total.out + i, merged);
    else
      store_part(total.out + i, merged, head_dim - i);
  }
  reset(chunk);
}

// The rows that one pass over the keys serves.
template <class Kv>
struct QueryRows {
  int n;
  const typename Kv::Query* q[kQueryRows];
  int position[kQueryRows];
  const float* bias[kQueryRows];  // at distance 0, or null
  Softmax total[kQueryRows];
  Softmax chunk[kQueryRows];
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

// The scores of one row as the softmax takes them; bias: of the tile's first key, or null.
inline void finish_scores(Vf (&out)[kTileVectors], const float* scores, const AttentionTask& task, const float* bias,
                          int begin, int end) {
  for (int i = 0; i < kTileVectors; ++i) {
    Vf s = mul(load(scores + i * kLanes), set1(task.scale));
    if (task.soft_cap > 0) s = mul(set1(task.soft_cap), tanh(div(s, set1(task.soft_cap))));
    if (bias != nullptr) s = add(s, load(bias + i * kLanes));
    if (begin > 0 || end < kKvTile) {
      const Vf key = to_float(addi(iota(), set1i(i * kLanes)));
      s = select_less(key, set1(static_cast<float>(begin)), set1(kMinusInf), s);
      s = select_less(key, set1(static_cast<float>(end)), s, set1(kMinusInf));
    }
    out[i] = s;
  }
}

// Turns rows of raw scores into weights relative to their new maxima, which it sets; sums: of each row's weights.
template <class Kv, int kRows>
void soften(float (&scores)[kRows][kKvTile], float (&sums)[kRows], Softmax* states, const AttentionTask& task,
            const float* const (&bias)[kRows], const int (&begins)[kRows], const int (&ends)[kRows]) {
  Vf s[kRows][kTileVectors], tops[kRows], totals[kRows];
  OCTAVO_UNROLL
  for (int r = 0; r < kRows; ++r) {
    finish_scores(s[r], scores[r], task, bias[r], begins[r], ends[r]);
    tops[r] = s[r][0];
    OCTAVO_UNROLL
    for (int i = 1; i < kTileVectors; ++i) tops[r] = max(tops[r], s[r][i]);
  }
  float largest[kRows];
  reduce_max_each<kRows>(largest, tops);
  OCTAVO_UNROLL
  for (int r = 0; r < kRows; ++r) {
    states[r].max = largest[r] > states[r].max ? largest[r] : states[r].max;
    const Vf top = set1(states[r].max);
    totals[r] = zero();
    OCTAVO_UNROLL
    for (int i = 0; i < kTileVectors; ++i) {
      const Vf p = exp(sub(s[r][i], top));
      Kv::store_weights(scores[r], i * kLanes, p);
      totals[r] = add(totals[r], p);
    }
  }
  reduce_add_each<kRows>(sums, totals);
}

// states[r].out = states[r].out * shrink[r] + the weighed values of keys [first, n), in kCols vectors from `dim`.
template <class Kv, int kRows, int kCols>
void weigh_columns(Softmax* states, const uint8_t* values, const float (*p)[kKvTile], const float* shrink, int first,
                   int n, int dim, int head_dim, const uint8_t* next) {
  Vf acc[kRows][kCols];
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kCols; ++c)
      acc[r][c] = shrink[r] == 0 ? zero() : mul(load_at(states[r].out, dim + c * kLanes, head_dim), set1(shrink[r]));
  Kv::template weigh<kRows, kCols>(acc, values, p, first, n, dim, head_dim, next);
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kCols; ++c) {
      const int at = dim + c * kLanes;
      if (at + kLanes <= head_dim)
        store(states[r].out + at, acc[r][c]);
      else
        store_part(states[r].out + at, acc[r][c], head_dim - at);
    }
}

template <class Kv, int kRows>
void weigh_rows(Softmax* states, const uint8_t* values, const float (*p)[kKvTile], const float* shrink, int first,
                int n, int head_dim, const uint8_t* next) {
  constexpr int kFit = kLanes / kRows;  // vectors whose sums fit the registers together
  constexpr int kCols = kFit > 4 ? 4 : kFit > 1 ? kFit : 1;
  int dim = 0;
  for (; dim + kCols * kLanes <= head_dim; dim += kCols * kLanes)
    weigh_columns<Kv, kRows, kCols>(states, values, p, shrink, first, n, dim, head_dim, next);
  for (; dim < head_dim; dim += kLanes) weigh_columns<Kv, kRows, 1>(states, values, p, shrink, first, n, dim, head_dim, next);
}

// kRows consecutive rows, all of which see some key of the tile, against it.
template <class Kv, int kRows>
void tile_rows(QueryRows<Kv>& rows, int first, const AttentionTask& task, const uint8_t* tile, int first_key, const uint8_t* next) {
  alignas(64) float scores[kRows][kKvTile];
  float shrink[kFewLanes] = {}, sums[kRows];
  float before[kRows];
  int begins[kRows], ends[kRows];
  const float* bias[kRows];
  Softmax* states = rows.chunk + first;
  Kv::template score<kRows>(scores, tile, rows.q + first, task.head_dim, next);
  next += int64_t{kKvTile} * task.head_dim * Kv::kBytes;
  for (int r = 0; r < kRows; ++r) {
    const int row = first + r;
    visible(begins[r], ends[r], task, rows.position[row], first_key);
    bias[r] = rows.bias[row] == nullptr ? nullptr : rows.bias[row] + first_key - rows.position[row];
    before[r] = states[r].max;
  }
  soften<Kv, kRows>(scores, sums, states, task, bias, begins, ends);
  for (int r = 0; r < kRows; ++r) shrink[r] = before[r] - states[r].max;
  exp_few(shrink, kRows);
  for (int r = 0; r < kRows; ++r) states[r].sum = states[r].sum * shrink[r] + sums[r];
  const uint8_t* values = tile + int64_t{kKvTile} * task.head_dim * Kv::kBytes;
  // Ends ascend with the rows. Values after a row's own end, which may be infinite, are not even multiplied by zero.
  const int together = ends[0] == ends[kRows - 1] ? ends[0] : ends[0] & ~1;
  weigh_rows<Kv, kRows>(states, values, scores, shrink, 0, together, task.head_dim, next);
  const float keep = 1;
  for (int r = 0; r < kRows; ++r)
    if (ends[r] > together) weigh_rows<Kv, 1>(states + r, values, scores + r, &keep, together, ends[r], task.head_dim, next);
}

inline bool sees(const AttentionTask& task, int position, int first_key) {
  int begin, end;
  visible(begin, end, task, position, first_key);
  return begin < end;
}

template <class Kv>
void attend_tile(QueryRows<Kv>& rows, const AttentionTask& task, const uint8_t* tile, int first_key, const uint8_t* next) {
  int row = 0;
  while (row < rows.n) {
    if (!sees(task, rows.position[row], first_key)) {
      ++row;
      continue;
    }
    int last = row + 1;
    while (last < rows.n && sees(task, rows.position[last], first_key)) ++last;
    for (; row + 8 <= last; row += 8) tile_rows<Kv, 8>(rows, row, task, tile, first_key, next);
    for (; row + 4 <= last; row += 4) tile_rows<Kv, 4>(rows, row, task, tile, first_key, next);
    for (; row + 3 <= last; row += 3) tile_rows<Kv, 3>(rows, row, task, tile, first_key, next);
    for (; row + 2 <= last; row += 2) tile_rows<Kv, 2>(rows, row, task, tile, first_key, next);
    for (; row < last; ++row) tile_rows<Kv, 1>(rows, row, task, tile, first_key, next);
  }
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
    rows.total[r].out = scratch + task.head_dim;
    rows.chunk[r].out = scratch + 2 * task.head_dim;
    reset(rows.total[r]);
    reset(rows.chunk[r]);
  }
}

template <class Kv>
void end_chunk(QueryRows<Kv>& rows, int head_dim) {
  for (int r = 0; r < rows.n; ++r) merge(rows.total[r], rows.chunk[r], head_dim);
}

template <class Kv>
void write_rows(const QueryRows<Kv>& rows, const AttentionTask& task, int first) {
  for (int r = 0; r < rows.n; ++r) {
    const int query = (first + r) / task.n_group, head = (first + r) % task.n_group;
    float* out = task.out + query * task.out_stride + int64_t{head} * task.head_dim;
    const Vf inverse = set1(1.0f / rows.total[r].sum);
    map_row(out, rows.total[r].out, task.head_dim, [&](int, Vf v) { return mul(v, inverse); });
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
