// Rows of activations in the formats that linears read (quant/activation.h).

#pragma once

#include "kernels/body/elementwise.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// f(row, x) for every row of a task.
template <class F>
inline void for_task_rows(const QuantizeTask& task, F f) {
  for (int r = 0; r < task.n_rows; ++r) f(task.rows + r * task.row_stride, task.x + r * task.x_stride);
}

void copy_f32(const QuantizeTask& task) {
  for_task_rows(task, [&](uint8_t* row, const float* x) {
    __builtin_memcpy(row + int64_t{task.first} * 4, x, sizeof(float) * static_cast<size_t>(task.n));
  });
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

void quantize_bf16(const QuantizeTask& task) {
  for_task_rows(
      task, [&](uint8_t* row, const float* x) { round_row(reinterpret_cast<uint16_t*>(row) + task.first, x, task.n); });
}

// q = round(x * inverse) for n values; returns the sums of q by lanes. |x * inverse| <= 127 by construction.
inline Vf quantize_values(int8_t* q, const float* x, int n, Vf inverse) {
  Vi total = set1i(0);
  for (int i = 0; i < n; i += kLanes) {
    const Vi v = round_to_int(mul(load(x + i), inverse));
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
inline Vf quantize_factor(Vf amax) {
  const Vf inverse = div(set1(127.0f), amax);
  return select_less(inverse, set1(__builtin_inff()), inverse, zero());
}

// The 32 values of group g of a row.
struct Group {
  uint8_t* row;
  const float* x;
  int g;
};

template <int kGroups>
inline void quantize_groups(const Group (&groups)[kGroups], const Q8x32Layout& layout) {
  constexpr int kPadded = (kGroups + kLanes - 1) / kLanes * kLanes;
  Vf largest[kGroups], totals[kGroups];
  OCTAVO_UNROLL
  for (int i = 0; i < kGroups; ++i) {
    largest[i] = zero();
    for (int j = 0; j < 32; j += kLanes) largest[i] = max(largest[i], abs(load(groups[i].x + j)));
  }
  float d[kPadded] = {}, inverse[kPadded], sums[kPadded] = {}, s[kPadded];
  reduce_max_each<kGroups>(d, largest);
  for (int i = 0; i < kPadded; i += kLanes) {
    const Vf amax = load(d + i);
    store(inverse + i, quantize_factor(amax));
    store(d + i, div(amax, set1(127.0f)));
  }
  OCTAVO_UNROLL
  for (int i = 0; i < kGroups; ++i)
    totals[i] =
        quantize_values(reinterpret_cast<int8_t*>(groups[i].row) + groups[i].g * 32, groups[i].x, 32, set1(inverse[i]));
  reduce_add_each<kGroups>(sums, totals);  // integers below 2^12: exact
  for (int i = 0; i < kPadded; i += kLanes) store(s + i, mul(load(d + i), load(sums + i)));
  int32_t whole[kPadded];
  for (int i = 0; i < kPadded; i += kLanes) storei(whole + i, round_to_int(load(sums + i)));
  const auto put = [&](int first, auto count) {
    constexpr size_t kBytes = 4 * decltype(count)::value;
    uint8_t* row = groups[first].row + groups[first].g * 4;
    __builtin_memcpy(row + layout.d, d + first, kBytes);
    __builtin_memcpy(row + layout.s, s + first, kBytes);
    __builtin_memcpy(row + layout.sum, whole + first, kBytes);
  };
  if (groups[0].row == groups[kGroups - 1].row) return put(0, Size<kGroups>());
  for (int i = 0; i < kGroups; ++i) put(i, Size<1>());
}

// The groups of all rows, one row after the other.
class GroupWalk {
 public:
  explicit GroupWalk(const QuantizeTask& task)
      : at_{task.rows, task.x, task.first / 32},
        first_(at_.g),
        end_((task.first + task.n) / 32),
        row_stride_(task.row_stride),
        x_gap_(task.x_stride - task.n) {}

  Group take() {
    const Group group = at_;
    at_.x += 32;
    if (++at_.g == end_) at_ = {at_.row + row_stride_, at_.x + x_gap_, first_};
    return group;
  }

 private:
  Group at_;
  int first_, end_;
  int64_t row_stride_, x_gap_;
};

void quantize_q8x32(const QuantizeTask& task) {
  const Q8x32Layout layout(task.width);
  GroupWalk walk(task);
  int left = task.n_rows * (task.n / 32);
  const auto run = [&](auto size) {
    constexpr int kGroups = decltype(size)::value;
    for (; left >= kGroups; left -= kGroups) {
      Group groups[kGroups];
      for (Group& group : groups) group = walk.take();
      quantize_groups<kGroups>(groups, layout);
    }
  };
  run(Size<8>());
  run(Size<2>());
  run(Size<1>());
}

// The 256 values of super group g of a row.
inline void quantize_super_group(uint8_t* row, const float* x, int g, const Q8x256Layout& layout) {
  const float amax = largest_magnitude(x, 256);
  const Vf inverse = quantize_factor(set1(amax));
  auto* q = reinterpret_cast<int8_t*>(row) + g * 256;
  float sums[24];  // whole vectors are stored
  for (int half = 0; half < 2; ++half) {
    Vf totals[8];
    OCTAVO_UNROLL
    for (int j = 0; j < 8; ++j)
      totals[j] = quantize_values(q + (half * 8 + j) * 16, x + (half * 8 + j) * 16, 16, inverse);
    reduce_add_each<8>(sums + half * 8, totals);
  }
  auto* sum = reinterpret_cast<int16_t*>(row + layout.sum) + g * 16;
  auto* sum32 = reinterpret_cast<int16_t*>(row + layout.sum32) + g * 8;
  for (int i = 0; i < 16; ++i) sum[i] = static_cast<int16_t>(sums[i]);
  for (int i = 0; i < 8; ++i) sum32[i] = static_cast<int16_t>(sums[2 * i] + sums[2 * i + 1]);
  uint8_t* u = row + layout.u + g * 256;
  for (int i = 0; i < 256; ++i) u[i] = static_cast<uint8_t>(q[i] ^ 0x80);
  reinterpret_cast<float*>(row + layout.d)[g] = amax / 127.0f;
}

void quantize_q8x256(const QuantizeTask& task) {
  const Q8x256Layout layout(task.width);
  for_task_rows(task, [&](uint8_t* row, const float* x) {
    for (int i = 0; i < task.n; i += 256) quantize_super_group(row, x + i, (task.first + i) / 256, layout);
  });
}

}  // namespace
}  // namespace octavo
