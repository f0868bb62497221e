#include "graph/screen.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/dtype.h"
#include "kernels/kernels.h"
#include "quant/fmt_legacy.h"
#include "quant/planes.h"

namespace octavo {
namespace {

constexpr float kRoundedUp = 1 + 1e-3f;  // more than the rounding of so many floats' sum takes off
constexpr float kVanishes = 1e-18f;      // more than the largest number whose square is rounded to zero

int64_t copy_row_bytes(const Weight& weight) { return static_cast<int64_t>(row_bytes(kScreenFormat, weight.k)); }

// A row of the copy: quantised as activations are, which kernels do fast. act: act_row_bytes of scratch.
void quantize_row(uint8_t* out, const float* x, int64_t k, uint8_t* act) {
  const auto width = static_cast<int>(k);
  kernels().quantize_act[static_cast<size_t>(ActFormat::kQ8x32)]({act, 0, x, 0, 1, 0, width, width});
  auto* blocks = reinterpret_cast<BlockQ8_0*>(out);
  const auto* scales = reinterpret_cast<const float*>(act + Q8x32Layout(k).d);
  for (int64_t b = 0; b < k / kActGroup; ++b) {
    blocks[b].d = float_to_half(scales[b]);
    std::memcpy(blocks[b].qs, act + b * kActGroup, kActGroup);
  }
}

// A row as the weight holds it.
void exact_row(float* out, uint8_t* converted, const Weight& weight, const SourceMatrix& source, int64_t row) {
  const uint8_t* from = source.rows + row * static_cast<int64_t>(row_bytes(source.format, source.k));
  format_row(source.format).dequantize(out, from, source.k);
  if (source.format == weight.format) return;
  format_row(weight.format).quantize(converted, out, weight.k);
  format_row(weight.format).dequantize(out, converted, weight.k);
}

}  // namespace

float norm_bound(const float* x, int64_t n) {
  float sums[8] = {};
  for (int64_t i = 0; i < n; i += 8)
    for (int lane = 0; lane < 8; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  float sum = 0;
  for (const float lane : sums) sum += lane;
  return std::sqrt(sum) * kRoundedUp + std::sqrt(static_cast<float>(n)) * kVanishes;
}

bool screens_by_copy(const Weight& weight) { return format_row(weight.format).scale_class == ScaleClass::kNone; }

bool can_screen(const Weight& weight) {
  const bool whole = !screens_by_copy(weight) || weight.k % format_row(kScreenFormat).block_size == 0;
  return weight.planes && weight.aqlm == nullptr && !weight.in_file && whole;
}

int64_t measuring_scratch(const Weight& weight) {
  return 8 * weight.k + act_row_bytes(ActFormat::kQ8x32, weight.k) + kStrip * copy_row_bytes(weight) +
         static_cast<int64_t>(row_bytes(weight.format, weight.k));
}

void measure_strips(const Weight& weight, const SourceMatrix& source, uint8_t* planes, float* norms, float* errors,
                    uint8_t* scratch, int64_t begin, int64_t end) {
  auto* exact = reinterpret_cast<float*>(scratch);
  float* copied = exact + weight.k;
  uint8_t* act = scratch + 8 * weight.k;
  uint8_t* rows = act + act_row_bytes(ActFormat::kQ8x32, weight.k);
  uint8_t* converted = rows + kStrip * copy_row_bytes(weight);
  const int64_t stride = plane_layout(kScreenFormat, weight.k).bytes;
  for (int64_t s = begin; s < end; ++s) {
    const int64_t count = std::min<int64_t>(kStrip, weight.n - s * kStrip);
    std::fill_n(norms + s * kStrip, kStrip, std::numeric_limits<float>::infinity());
    for (int64_t r = 0; r < count; ++r) {
      const int64_t n = s * kStrip + r;
      exact_row(exact, converted, weight, source, n);
      norms[n] = norm_bound(exact, weight.k);
      if (planes == nullptr) continue;
      uint8_t* row = rows + r * copy_row_bytes(weight);
      quantize_row(row, exact, weight.k, act);
      format_row(kScreenFormat).dequantize(copied, row, weight.k);
      norms[n] = norm_bound(copied, weight.k);
      for (int64_t i = 0; i < weight.k; ++i) exact[i] -= copied[i];
      errors[n] = norm_bound(exact, weight.k);
    }
    if (planes != nullptr) repack(planes + s * stride, rows, kScreenFormat, count, weight.k, 0, 1);
  }
}

}  // namespace octavo
