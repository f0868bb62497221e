// BF16 planes times BF16 activations by vdpbf16ps: one chain over ascending pairs of k for every output.

#pragma once

#include "kernels/body/linear.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

template <int kTokens, int kStrips>
void bf16_tile(const LinearTask& task, int token, int strip, ReadAhead& shared) {
  ReadAhead ahead = shared;  // in registers
  const int64_t strip_bytes = int64_t{(task.k + 1) / 2} * 64;
  const uint8_t* act = task.act + token * task.act_stride;
  const uint8_t* weights = task.weights + strip * strip_bytes;
  Vf acc[kTokens][kStrips];
  OCTAVO_UNROLL
  for (int s = 0; s < kStrips; ++s) {
    const Vf first = initial(task, (strip + s) * 16);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) acc[t][s] = first;
  }
  const int n_pairs = (task.k + 1) / 2;
  for (int pair = 0; pair < n_pairs; ++pair) {
    ahead.step(kTokens);
    Vi column[kStrips];
    OCTAVO_UNROLL
    for (int s = 0; s < kStrips; ++s) column[s] = load_bytes(weights + s * strip_bytes + pair * 64);
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      OCTAVO_UNROLL
      for (int s = 0; s < kStrips; ++s)
        acc[t][s] = dot_bf16(acc[t][s], column[s], act + t * task.act_stride + pair * 4);
    }
  }
  shared = ahead;
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    OCTAVO_UNROLL
    for (int s = 0; s < kStrips; ++s) store(task.out + (token + t) * task.out_stride + (strip + s) * 16, acc[t][s]);
  }
}

template <int kStrips>
void bf16_strips(const LinearTask& task, int strip) {
  const int n_pairs = (task.k + 1) / 2;
  const int64_t strip_bytes = int64_t{n_pairs} * 64;
  ReadAhead ahead(task, task.weights + strip * strip_bytes, kStrips * strip_bytes, n_pairs);
  for_tiles<6>(task.n_tokens,
               [&](int token, auto size) { bf16_tile<decltype(size)::value, kStrips>(task, token, strip, ahead); });
}

void linear_bf16_dot(const LinearTask& task) {
  int strip = 0;
  for (; strip + 4 <= task.n_strips; strip += 4) bf16_strips<4>(task, strip);
  for (; task.n_tokens >= 6 && strip + 2 <= task.n_strips; strip += 2) bf16_strips<2>(task, strip);
  for (; strip < task.n_strips; ++strip) bf16_strips<1>(task, strip);
}

}  // namespace
}  // namespace octavo
