// The reference of linear_q8x256.inl in plain C++: the same integers, the same order of float operations.

#pragma once

#include "kernels/body/linear_q8x32_scalar.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

struct Shape256 {
  int quant_bits;
  int sub_size;
  bool has_min;
  int (*weight_at)(const uint8_t* quants, int k);  // of weight k (0..255), from a row's first byte
  bool nibbles = false;                            // minima in the upper nibbles of the scales

  int subs() const { return 256 / sub_size; }
  int quant_bytes() const { return quant_bits * 512; }
  int scale_bytes() const { return subs() * 16; }
  int min_bytes() const { return has_min && !nibbles ? scale_bytes() : 0; }
  int64_t strip_bytes(int64_t n) const {
    const int64_t bytes = n * (quant_bytes() + scale_bytes() + min_bytes() + 32 + (has_min ? 32 : 0));
    return (bytes + 63) / 64 * 64;
  }
};

// One row of one super block; every part is indexed by its place in the strip.
struct RowBlock {
  const uint8_t *quants, *scales, *minima;
  const uint16_t *d, *dmin;

  RowBlock(const Shape256& shape, const uint8_t* strip, int64_t n, int64_t b, int row) {
    const uint8_t* all_scales = strip + n * shape.quant_bytes();
    const uint8_t* all_minima = shape.nibbles ? all_scales : all_scales + n * shape.scale_bytes();
    const uint8_t* all_d = all_scales + n * (shape.scale_bytes() + shape.min_bytes());
    quants = strip + b * shape.quant_bytes() + row * 4;
    scales = all_scales + b * shape.scale_bytes() + row * 2;
    minima = all_minima + b * shape.scale_bytes() + row * 2;
    d = reinterpret_cast<const uint16_t*>(all_d) + b * 16 + row;
    dmin = reinterpret_cast<const uint16_t*>(all_d + n * 32) + b * 16 + row;
  }
};

// `count` bits of a byte from bit `from`, moved to bit `to`.
inline int bits_of(uint8_t byte, int from, int count, int to) { return (byte >> from & ((1 << count) - 1)) << to; }

inline int quant2_at(const uint8_t* quants, int k) {
  const int j = k % 16 / 4;
  return bits_of(quants[(k / 32 * 2 + j / 2) * 64 + k % 4], j % 2 * 4 + k / 16 % 2 * 2, 2, 0);
}

inline int weight3_at(const uint8_t* quants, int k) {
  const int dword = k % 32 / 4;
  const uint8_t* lines = quants + k / 32 * 3 * 64 + k % 4;
  if (dword < 6) return bits_of(lines[dword / 2 * 64], dword % 2 * 3, 3, 0) - 4;
  return (bits_of(lines[(dword - 6) * 64], 6, 2, 0) | bits_of(lines[128], dword, 1, 2)) - 4;
}

inline int iq4_at(const uint8_t* quants, int k) {
  const uint8_t both = quants[(k / 32 * 4 + k % 16 / 4) * 64 + k % 4];
  return kIQ4Values[k % 32 < 16 ? both & 15 : both >> 4];
}

inline int quant4_at(const uint8_t* quants, int k) {
  return bits_of(quants[(k / 64 * 8 + k % 32 / 4) * 64 + k % 4], k / 32 % 2 * 4, 4, 0);
}

inline int quant5_at(const uint8_t* quants, int k) {
  const int j = k % 32 / 4;
  const uint8_t* lines = quants + k / 32 * 5 * 64 + k % 4;
  if (j < 5) return bits_of(lines[j * 64], 0, 5, 0);
  if (j == 5) return bits_of(lines[0], 5, 3, 0) | bits_of(lines[64], 5, 2, 3);
  if (j == 6) return bits_of(lines[128], 5, 3, 0) | bits_of(lines[192], 5, 2, 3);
  return bits_of(lines[256], 5, 3, 0) | bits_of(lines[64], 7, 1, 3) | bits_of(lines[192], 7, 1, 4);
}

inline int weight6_at(const uint8_t* quants, int k) {
  const int j = k % 16 / 4;
  const uint8_t* lines = quants + k / 16 * 3 * 64 + k % 4;
  if (j < 3) return bits_of(lines[j * 64], 0, 6, 0) - 32;
  return (bits_of(lines[0], 6, 2, 0) | bits_of(lines[64], 6, 2, 2) | bits_of(lines[128], 6, 2, 4)) - 32;
}

inline float q8x256_output(const Shape256& shape, const uint8_t* strip, int row, const uint8_t* act, int k, float acc) {
  const Q8x256Layout layout(k);
  for (int64_t b = 0; b < k / 256; ++b) {
    const RowBlock block(shape, strip, k / 256, b, row);
    const auto* q = reinterpret_cast<const int8_t*>(act) + b * 256;
    const auto* sums = reinterpret_cast<const int16_t*>(act + layout.sum) + b * 16;
    const float d_act = reinterpret_cast<const float*>(act + layout.d)[b];
    int total = 0, total_min = 0;
    for (int sub = 0; sub < shape.subs(); ++sub) {
      const int at = sub / 2 * 32 + sub % 2;
      int dot = 0, sum = 0;
      for (int i = sub * shape.sub_size; i < (sub + 1) * shape.sub_size; ++i)
        dot += shape.weight_at(block.quants, i) * q[i];
      for (int i = sub * shape.sub_size; i < (sub + 1) * shape.sub_size; i += 16) sum += sums[i / 16];
      const int scale = shape.nibbles   ? block.scales[at] & 15
                        : shape.has_min ? block.scales[at]
                                        : static_cast<int8_t>(block.scales[at]);
      total += scale * dot;
      if (shape.has_min) total_min += (shape.nibbles ? block.minima[at] >> 4 : block.minima[at]) * sum;
    }
    if (shape.has_min) acc = static_cast<float>(total_min) * (half_at(block.dmin) * -d_act) + acc;
    acc = static_cast<float>(total) * (half_at(block.d) * d_act) + acc;
  }
  return acc;
}

inline void linear_q8x256_scalar(const LinearTask& task, const Shape256& shape) {
  for (int s = 0; s < task.n_strips; ++s) {
    const uint8_t* strip = task.weights + s * shape.strip_bytes(task.k / 256);
    for (int t = 0; t < task.n_tokens; ++t)
      for (int row = 0; row < 16; ++row)
        task.out[t * task.out_stride + s * 16 + row] =
            q8x256_output(shape, strip, row, task.act + t * task.act_stride, task.k,
                          task.bias == nullptr ? 0 : task.bias[s * 16 + row]);
  }
}

void scalar_q2_k(const LinearTask& task) { linear_q8x256_scalar(task, {2, 16, true, quant2_at, true}); }
void scalar_q3_k(const LinearTask& task) { linear_q8x256_scalar(task, {3, 16, false, weight3_at}); }
void scalar_q4_k(const LinearTask& task) { linear_q8x256_scalar(task, {4, 32, true, quant4_at}); }
void scalar_q5_k(const LinearTask& task) { linear_q8x256_scalar(task, {5, 32, true, quant5_at}); }
void scalar_q6_k(const LinearTask& task) { linear_q8x256_scalar(task, {6, 16, false, weight6_at}); }
void scalar_iq4_xs(const LinearTask& task) { linear_q8x256_scalar(task, {4, 32, false, iq4_at}); }

constexpr LinearKernel scalar_kernel(void (*run)(const LinearTask&)) { return {ActFormat::kQ8x256, run}; }

}  // namespace
}  // namespace octavo
