// What screened products may be at most and at least, strip by strip.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// bounds: the upper ones of kStrips strips, then the lower ones.
template <int kStrips>
inline void screen_strips(float (&bounds)[16], const ScreenTask& task, const float* x, const float* factors,
                          int strip) {
  const Vf of_errors = set1(factors[0]), of_norms = set1(factors[1]), infinity = set1(__builtin_inff());
  Vf largest[2 * kStrips];
  OCTAVO_UNROLL
  for (int s = 0; s < kStrips; ++s) {
    Vf &upper = largest[s], &lower = largest[kStrips + s];
    upper = lower = sub(zero(), infinity);
    OCTAVO_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      const int at = (strip + s) * 16 + v * kLanes;
      Vf bound = mul(load(task.norms + at), of_norms);
      if (task.errors != nullptr) bound = fma(load(task.errors + at), of_errors, bound);
      // Of a NaN and a second operand, min and max give the second.
      upper = max(upper, min(add(load(x + at), bound), infinity));
      lower = max(sub(load(x + at), bound), lower);
    }
  }
  reduce_max_each(bounds, largest);
}

template <int kStrips>
inline void screen_token(const ScreenTask& task, int token, int strip) {
  float bounds[16];  // a whole vector is stored
  const int64_t row = token * task.row_stride;
  screen_strips<kStrips>(bounds, task, task.x + token * task.x_stride, task.factors + row, strip);
  for (int s = 0; s < kStrips; ++s) {
    task.upper[row + strip + s] = bounds[s];
    task.lower[row + strip + s] = bounds[kStrips + s];
  }
}

void screen(const ScreenTask& task) {
  for (int token = 0; token < task.n_tokens; ++token) {
    int strip = 0;
    for (; strip + 4 <= task.n_strips; strip += 4) screen_token<4>(task, token, strip);
    for (; strip < task.n_strips; ++strip) screen_token<1>(task, token, strip);
  }
}

}  // namespace
}  // namespace octavo
