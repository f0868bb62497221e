// Row-wise kernels: norms, gates, rope, and the sampler's reductions.
// Every reduction has one order that depends on the row's length only.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// f(offset, vector) over whole vectors, then the zero-padded tail: f(offset, vector, lanes).
template <class Whole, class Part>
inline void for_row(const float* x, int n, Whole whole, Part part) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) whole(i, load(x + i));
  if (i < n) part(i, load_part(x + i, n - i), n - i);
}

// out[i] = f(a[i]) lane by lane.
template <class F>
inline void map_row(float* out, const float* a, int n, F f) {
  for_row(
      a, n, [&](int i, Vf v) { store(out + i, f(i, v)); },
      [&](int i, Vf v, int lanes) { store_part(out + i, f(i, v), lanes); });
}

// Lanes i, i + 1, ... of n.
inline Vf load_at(const float* x, int i, int n) { return i + kLanes <= n ? load(x + i) : load_part(x + i, n - i); }
inline void store_at(float* x, Vf v, int i, int n) {
  if (i + kLanes <= n)
    store(x + i, v);
  else
    store_part(x + i, v, n - i);
}

inline float sum_of_squares(const float* x, int n) {
  Vf acc[4] = {zero(), zero(), zero(), zero()};
  int i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) {
      const Vf v = load(x + i + j * kLanes);
      acc[j] = fma(v, v, acc[j]);
    }
  for (; i < n; i += kLanes) {
    const Vf v = load_at(x, i, n);
    acc[0] = fma(v, v, acc[0]);
  }
  return reduce_add(add(add(acc[0], acc[1]), add(acc[2], acc[3])));
}

void rms_norm(float* out, const float* x, const float* weight, int n, float eps) {
  const float mean = sum_of_squares(x, n) / static_cast<float>(n);
  const Vf scale = set1(1.0f / __builtin_sqrtf(mean + eps));
  map_row(out, x, n, [&](int i, Vf v) { return mul(mul(v, scale), load_at(weight, i, n)); });
}

// f folded over the row: in four interleaved chains, then the tail one by one.
template <class F>
inline float sum_row(const float* x, int n, F f) {
  Vf acc[4] = {zero(), zero(), zero(), zero()};
  int i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) acc[j] = f(acc[j], load(x + i + j * kLanes));
  for (; i + kLanes <= n; i += kLanes) acc[0] = f(acc[0], load(x + i));
  float tail = 0;
  for (; i < n; ++i) {
    float lanes[kLanes];
    store(lanes, f(zero(), set1(x[i])));
    tail += lanes[0];
  }
  return reduce_add(add(add(acc[0], acc[1]), add(acc[2], acc[3]))) + tail;
}

void layer_norm(float* out, const float* x, const float* weight, const float* bias, int n, float eps) {
  const float mean = sum_row(x, n, [](Vf acc, Vf v) { return add(acc, v); }) / static_cast<float>(n);
  const Vf centre = set1(mean);
  const auto square = [&](Vf acc, Vf v) { return fma(sub(v, centre), sub(v, centre), acc); };
  const float variance = sum_row(x, n, square) / static_cast<float>(n);
  const Vf scale = set1(1.0f / __builtin_sqrtf(variance + eps));
  map_row(out, x, n, [&](int i, Vf v) {
    const Vf y = mul(mul(sub(v, centre), scale), load_at(weight, i, n));
    return bias == nullptr ? y : add(y, load_at(bias, i, n));
  });
}

void add_rows(float* out, const float* a, const float* b, int n) {
  map_row(out, a, n, [&](int i, Vf v) { return add(v, load_at(b, i, n)); });
}

void mul_rows(float* out, const float* a, const float* b, int n) {
  map_row(out, a, n, [&](int i, Vf v) { return mul(v, load_at(b, i, n)); });
}

void scale_row(float* out, const float* x, float factor, int n) {
  map_row(out, x, n, [&](int, Vf v) { return mul(v, set1(factor)); });
}

void rope(float* x, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; i += kLanes) {
    const Vf c = load_at(cos, i, half), s = load_at(sin, i, half);
    const Vf a = load_at(x, i, half);
    const Vf b = load_at(x + half, i, half);
    store_at(x, sub(mul(a, c), mul(b, s)), i, half);
    store_at(x + half, add(mul(b, c), mul(a, s)), i, half);
  }
}

// Where no number is larger: the first -inf, or 0 in a row of NaN.
inline int first_minus_inf(const float* x, int n) {
  for (int i = 0; i < n; ++i)
    if (x[i] == -__builtin_inff()) return i;
  return 0;
}

int argmax(const float* x, int n) {
  Vf best = set1(-__builtin_inff());
  Vi best_index = set1i(0);
  Vi index = iota();
  for (int i = 0; i + kLanes <= n; i += kLanes) {
    const Vf v = load(x + i);
    best_index = select_less(best, v, index, best_index);
    best = select_less(best, v, v, best);
    index = addi(index, set1i(kLanes));
  }
  float values[kLanes];
  int32_t indices[kLanes];
  store(values, best);
  storei(indices, best_index);
  float top = -__builtin_inff();
  int top_index = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    if (values[lane] > top || (values[lane] == top && top > -__builtin_inff() && indices[lane] < top_index)) {
      top = values[lane];
      top_index = indices[lane];
    }
  for (int i = n / kLanes * kLanes; i < n; ++i)
    if (x[i] > top) {
      top = x[i];
      top_index = i;
    }
  return top > -__builtin_inff() ? top_index : first_minus_inf(x, n);
}

float exp_sum(float* out, const float* x, int n, float max, float scale) {
  Vf acc[2] = {zero(), zero()};
  float tail = 0;
  const auto term = [&](Vf v) { return exp(mul(sub(v, set1(max)), set1(scale))); };
  for_row(
      x, n,
      [&](int i, Vf v) {
        const Vf e = term(v);
        acc[i / kLanes % 2] = add(acc[i / kLanes % 2], e);
        if (out != nullptr) store(out + i, e);
      },
      [&](int i, Vf v, int lanes) {
        float e[kLanes];
        store(e, term(v));
        for (int j = 0; j < lanes; ++j) {
          tail += e[j];
          if (out != nullptr) out[i + j] = e[j];
        }
      });
  return reduce_add(add(acc[0], acc[1])) + tail;
}

}  // namespace
}  // namespace octavo
