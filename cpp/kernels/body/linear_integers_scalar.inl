// The reference of linear_integers.inl: a row of a super block after the other.

#pragma once

#include "kernels/body/linear.inl"
#include "quant/int_block.h"

namespace octavo {
namespace {

// Adds a super block of one row to one token's sum.
inline float add_block(float acc, const IntBlock& block, int bias, const uint8_t* act, int64_t index, int k) {
  const Q8x256Layout layout(k);
  const auto* q = reinterpret_cast<const int8_t*>(act) + index * 256;
  const auto* sums = reinterpret_cast<const int16_t*>(act + layout.sum) + index * 16;
  const float d_act = reinterpret_cast<const float*>(act + layout.d)[index];
  int total = 0, total_min = 0;
  for (int sub = 0; sub < 16; ++sub) {
    int dot = 0;
    for (int i = 16 * sub; i < 16 * (sub + 1); ++i) dot += (block.u[i] - bias) * q[i];
    total += block.sc[sub] * dot;
    total_min += block.mn[sub] * sums[sub];
  }
  acc = static_cast<float>(total_min) * (block.dmin * -d_act) + acc;
  return static_cast<float>(total) * (block.d * d_act) + acc;
}

template <int kBias>
void scalar_integers(const LinearTask& task) {
  const int64_t n = task.k / 256, bytes = task.format->block_bytes;
  for (int row = 0; row < task.n_strips * 16; ++row) {
    const uint8_t* strip = task.weights + row / 16 * integer_strip_bytes(task);
    for (int t = 0; t < task.n_tokens; ++t)
      task.out[t * task.out_stride + row] = task.bias == nullptr ? 0 : task.bias[row];
    for (int64_t b = 0; b < n; ++b) {
      uint8_t u[256];
      IntBlock block;
      block.u = u;
      task.format->to_integers(block, strip + (b * 16 + row % 16) * bytes);
      for (int t = 0; t < task.n_tokens; ++t) {
        float& out = task.out[t * task.out_stride + row];
        out = add_block(out, block, kBias, task.act + t * task.act_stride, b, task.k);
      }
    }
  }
}

}  // namespace
}  // namespace octavo
