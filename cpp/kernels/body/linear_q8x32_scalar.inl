// The reference of linear_q8x32.inl in plain C++: the same integers, the same order of float operations.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/fmt_lowbit.h"
#include "quant/fmt_small.h"

namespace octavo {
namespace {

struct StripView {
  const uint8_t* quants;
  const uint8_t* bits;
  const uint16_t* scales;
  const uint16_t* minima;
};

struct Shape32 {
  int quant_bytes;  // per group and strip
  bool fifth_bit;
  bool has_min;
  int zero_point;
  const int8_t* values = nullptr;  // what nibbles stand for, where it is not themselves
  bool bf16_scales = false;

  int64_t strip_bytes(int64_t groups) const {
    const int64_t bytes = groups * (quant_bytes + (fifth_bit ? 64 : 0) + 32 + (has_min ? 32 : 0));
    return (bytes + 63) / 64 * 64;
  }
  StripView view(const uint8_t* strip, int64_t groups) const {
    const uint8_t* bits = strip + groups * quant_bytes;
    const uint8_t* scales = bits + (fifth_bit ? groups * 64 : 0);
    return {strip, bits, reinterpret_cast<const uint16_t*>(scales),
            reinterpret_cast<const uint16_t*>(scales + groups * 32)};
  }
};

inline int weight_at(const Shape32& shape, const StripView& strip, int64_t g, int row, int k) {
  if (shape.quant_bytes == 512)
    return reinterpret_cast<const int8_t*>(strip.quants)[g * 512 + k / 4 * 64 + row * 4 + k % 4];
  const int line = k % 16 / 4;
  const int byte = strip.quants[g * 256 + line * 64 + row * 4 + k % 4];
  int quant = k < 16 ? byte & 15 : byte >> 4;
  if (shape.values != nullptr) return shape.values[quant];
  if (shape.fifth_bit) {
    uint64_t bits;
    __builtin_memcpy(&bits, strip.bits + g * 64 + k / 4 * 8, sizeof(bits));
    quant |= static_cast<int>((bits >> (row * 4 + k % 4)) & 1) << 4;
  }
  return quant - shape.zero_point;
}

inline float half_at(const uint16_t* p) {
  alignas(16) float lanes[4];
  const uint16_t padded[4] = {*p, 0, 0, 0};
  store(lanes, load_f16(padded));
  return lanes[0];
}

inline float bf16_at(const uint16_t* p) {
  const uint32_t bits = uint32_t{*p} << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float q8x32_output(const Shape32& shape, const StripView& strip, int row, const uint8_t* act, int k, float acc) {
  const Q8x32Layout layout(k);
  const auto* q = reinterpret_cast<const int8_t*>(act);
  for (int64_t g = 0; g < k / 32; ++g) {
    int sum = 0;
    for (int i = 0; i < 32; ++i) sum += weight_at(shape, strip, g, row, i) * q[g * 32 + i];
    const uint16_t* scale = strip.scales + g * 16 + row;
    const float d =
        (shape.bf16_scales ? bf16_at(scale) : half_at(scale)) * reinterpret_cast<const float*>(act + layout.d)[g];
    acc = static_cast<float>(sum) * d + acc;
    if (shape.has_min)
      acc = half_at(strip.minima + g * 16 + row) * reinterpret_cast<const float*>(act + layout.s)[g] + acc;
  }
  return acc;
}

inline void linear_q8x32_scalar(const LinearTask& task, const Shape32& shape) {
  const int64_t groups = task.k / 32;
  for (int s = 0; s < task.n_strips; ++s) {
    const StripView strip = shape.view(task.weights + s * shape.strip_bytes(groups), groups);
    for (int t = 0; t < task.n_tokens; ++t)
      for (int row = 0; row < 16; ++row)
        task.out[t * task.out_stride + s * 16 + row] =
            q8x32_output(shape, strip, row, task.act + t * task.act_stride, task.k,
                         task.bias == nullptr ? 0 : task.bias[s * 16 + row]);
  }
}

void scalar_q4_0(const LinearTask& task) { linear_q8x32_scalar(task, {256, false, false, 8}); }
void scalar_q4_1(const LinearTask& task) { linear_q8x32_scalar(task, {256, false, true, 0}); }
void scalar_q5_0(const LinearTask& task) { linear_q8x32_scalar(task, {256, true, false, 16}); }
void scalar_q5_1(const LinearTask& task) { linear_q8x32_scalar(task, {256, true, true, 0}); }
void scalar_q8_0(const LinearTask& task) { linear_q8x32_scalar(task, {512, false, false, 0}); }
void scalar_iq4_nl(const LinearTask& task) { linear_q8x32_scalar(task, {256, false, false, 0, kIQ4Values}); }
void scalar_mxfp4(const LinearTask& task) { linear_q8x32_scalar(task, {256, false, false, 0, kE2M1Values, true}); }

}  // namespace
}  // namespace octavo
