// Row-wise kernels: norms, activation quantisation, gates, rope, and the sampler's reductions.
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

inline Vf load_at(const float* x, int i, int n) { return i + kLanes <= n ? load(x + i) : load_part(x + i, n - i); }

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
    const int lanes = half - i;
    const Vf c = load_at(cos, i, half), s = load_at(sin, i, half);
    const Vf a = load_at(x, i, half);
    const Vf b = lanes >= kLanes ? load(x + half + i) : load_part(x + half + i, lanes);
    const Vf low = sub(mul(a, c), mul(b, s)), high = add(mul(b, c), mul(a, s));
    if (lanes >= kLanes) {
      store(x + i, low);
      store(x + half + i, high);
    } else {
      store_part(x + i, low, lanes);
      store_part(x + half + i, high, lanes);
    }
  }
}

void copy_f32(uint8_t* row, const float* x, int first, int n, int) {
  __builtin_memcpy(row + int64_t{first} * 4, x, sizeof(float) * static_cast<size_t>(n));
}

// To bfloat16, nearest even, in the upper halves of the lanes; the lower ones hold anything.
inline Vi round_bf16(Vf v) {
  const Vi bits = bits_of(v), odd = and_bits(shift_right<16>(bits), set1i(1));
  // What is not finite is kept: a sum with itself has the same upper half, and is no signalling NaN.
  return select_less(abs(v), set1(__builtin_inff()), addi(addi(bits, set1i(0x7fff)), odd), bits_of(add(v, v)));
}

inline void store_bf16(uint16_t* p, Vf v) {
#ifdef OCTAVO_SIMD_BF16
  convert_bf16(p, v);
#else
  store_halves(p, shift_right<16>(round_bf16(v)));
#endif
}

// An odd number of values is padded with zero.
inline void round_row(uint16_t* out, const float* x, int n) {
  for_row(
      x, n, [&](int i, Vf v) { store_bf16(out + i, v); },
      [&](int i, Vf v, int lanes) {
        uint16_t last[kLanes];
        store_bf16(last, v);
        __builtin_memcpy(out + i, last, sizeof(*last) * static_cast<size_t>(lanes));
      });
  if (n % 2 != 0) out[n] = 0;
}

void quantize_bf16(uint8_t* row, const float* x, int first, int n, int) {
  round_row(reinterpret_cast<uint16_t*>(row) + first, x, n);
}

// q = round(x * inverse) for n values; returns the sums of q by lanes. |x * inverse| <= 127 by construction.
inline Vf quantize_values(int8_t* q, const float* x, int n, float inverse) {
  Vi total = set1i(0);
  for (int i = 0; i < n; i += kLanes) {
    const Vi v = round_to_int(mul(load(x + i), set1(inverse)));
    total = addi(total, v);
    store_bytes(q + i, v);
  }
  return to_float(total);
}

inline float largest_magnitude(const float* x, int n) {
  Vf largest = zero();
  for (int i = 0; i < n; i += kLanes) largest = max(largest, abs(load(x + i)));
  return reduce_max(largest);
}

// 127 / amax; 0 where that overflows: so small a group, of subnormals mostly, counts as zero.
inline float quantize_factor(float amax) {
  const float inverse = 127.0f / amax;
  return inverse <= __FLT_MAX__ ? inverse : 0;
}

// kGroups groups of 32 from group g on.
template <int kGroups>
inline void quantize_groups(uint8_t* row, const float* x, int g, const Q8x32Layout& layout) {
  auto* q = reinterpret_cast<int8_t*>(row) + g * 32;
  auto* d = reinterpret_cast<float*>(row + layout.d) + g;
  auto* s = reinterpret_cast<float*>(row + layout.s) + g;
  auto* sum = reinterpret_cast<int32_t*>(row + layout.sum) + g;
  Vf largest[kGroups], totals[kGroups];
  OCTAVO_UNROLL
  for (int i = 0; i < kGroups; ++i) {
    largest[i] = zero();
    for (int j = 0; j < 32; j += kLanes) largest[i] = max(largest[i], abs(load(x + i * 32 + j)));
  }
  float amax[kGroups], inverse[kGroups], sums[kGroups];
  reduce_max_each<kGroups>(amax, largest);
  for (int i = 0; i < kGroups; ++i) inverse[i] = quantize_factor(amax[i]);
  OCTAVO_UNROLL
  for (int i = 0; i < kGroups; ++i) totals[i] = quantize_values(q + i * 32, x + i * 32, 32, inverse[i]);
  reduce_add_each<kGroups>(sums, totals);  // integers below 2^12: exact
  for (int i = 0; i < kGroups; ++i) {
    d[i] = amax[i] / 127.0f;
    s[i] = d[i] * sums[i];
    sum[i] = static_cast<int32_t>(sums[i]);
  }
}

void quantize_q8x32(uint8_t* row, const float* x, int first, int n, int width) {
  const Q8x32Layout layout(width);
  int g = first / 32;
  const int end = (first + n) / 32;
  for (; g + 8 <= end; g += 8, x += 8 * 32) quantize_groups<8>(row, x, g, layout);
  for (; g + 2 <= end; g += 2, x += 2 * 32) quantize_groups<2>(row, x, g, layout);
  for (; g < end; ++g, x += 32) quantize_groups<1>(row, x, g, layout);
}

void quantize_q8x256(uint8_t* row, const float* x, int first, int n, int width) {
  const Q8x256Layout layout(width);
  auto* sums = reinterpret_cast<int16_t*>(row + layout.sum);
  for (int g = first / 256; g < (first + n) / 256; ++g) {
    const float amax = largest_magnitude(x, 256);
    const float inverse = quantize_factor(amax);
    for (int i = g * 256; i < (g + 1) * 256; i += 8 * 16, x += 8 * 16) {
      Vf totals[8];
      OCTAVO_UNROLL
      for (int j = 0; j < 8; ++j)
        totals[j] = quantize_values(reinterpret_cast<int8_t*>(row) + i + j * 16, x + j * 16, 16, inverse);
      float each[8];
      reduce_add_each<8>(each, totals);
      for (int j = 0; j < 8; ++j) sums[i / 16 + j] = static_cast<int16_t>(each[j]);
    }
    reinterpret_cast<float*>(row + layout.d)[g] = amax / 127.0f;
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
