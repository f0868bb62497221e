// The largest logits, without the others: a cheaper product bounds them all, and what may be the largest is computed as
// it would be among all (graph/screen.h). Calls have the cheaper product as their first part and the exact one as their
// second, the linear between them the cheaper one alone.
#include <algorithm>
#include <limits>

#include "base/dtype.h"
#include "base/memory.h"
#include "graph/cpu_linear.h"
#include "graph/screen.h"

namespace octavo::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kFetchedBytes = 2048;  // as a kernel reads ahead in a strip by itself
// Multiplied at once: rows are shared among threads, so tokens are many, and hardly any are left over by tiles of 6.
constexpr int kScreenedTokens = 96;
static_assert(kScreenedTokens * kMaxChunkStrips * kStrip <= kTileFloats);

// What a row holds in place of logits.
struct Bounds {
  float* upper;    // (strips)
  float* lower;    // (strips)
  float* factors;  // (2)
  int strips;
};

Bounds bounds_of(const Step& step, const OpCall& call, int row) {
  const LinearPart& screened = call.parts[0];
  const auto strips = static_cast<int>(n_strips(screened.weight->n));
  auto* at = step.row<float>(screened.out, row);
  return {at, at + strips, at + 2 * strips, strips};
}

// A row that a dense weight is multiplied by.
void read_dense(float* out, const uint8_t* row, ActFormat format, int n) {
  const auto* halves = reinterpret_cast<const uint16_t*>(row);
  if (format == ActFormat::kF32)
    std::copy_n(reinterpret_cast<const float*>(row), n, out);
  else
    std::transform(halves, halves + n, out, bf16_to_float);
}

// Writes the factors of what is between the exact product w x of a row, as computed, and the cheaper one, v y:
//   |w x - v y| <= |x| |w - v| + |x - y| |v|, and either is rounded in its sum of `width` terms.
void measure_row(const Step& step, const OpCall& call, int row, float* scratch) {
  const LinearPart &screened = call.parts[0], &exact = call.parts[1];
  const Rows& rows = call.in[static_cast<size_t>(screened.kernel.act)];
  const auto* y = step.row<uint8_t>(rows, row);
  float *x = scratch, *left = scratch + call.width;
  const auto distance = [&](const uint8_t* quantized) {
    subtract_quantized(left, x, quantized, screened.kernel.act, call.width);
    return norm_bound(left, call.width);
  };
  float of_x, of_left;
  if (exact.refined) {
    std::fill_n(x, call.width, 0.0f);
    of_left = distance(y + rows.stride / 2);
    of_x = distance(y) + of_left;
  } else {
    const ActFormat format = exact.kernel.act;
    read_dense(x, step.row<uint8_t>(call.in[static_cast<size_t>(format)], row), format, call.width);
    of_left = distance(y);
    of_x = norm_bound(x, call.width);
  }
  const float rounding = static_cast<float>(call.width) * 0x1p-23f * (of_x + of_left);
  float* factors = bounds_of(step, call, row).factors;
  factors[0] = of_x + rounding;
  factors[1] = of_left + 2 * rounding;
}

// The exact products of one row with one strip.
void exact_strip(float* out, const Step& step, const OpCall& call, const ActTargets& in, int strip, int row) {
  const Chunk chunk = open_chunk(step, call.parts[1], strip, 1, {row, row + 1}, nullptr);
  float tile[2 * kStrip];
  multiply_part(out, kStrip, in, row, step, chunk, 1, tile);
}

// The next strip from `strip` on that may hold the largest product.
int next_strip(const Bounds& bounds, float least, int strip) {
  while (strip < bounds.strips && bounds.upper[strip] < least) ++strip;
  return strip;
}

// Fetches how the strip begins; its kernel reads the rest ahead.
void fetch_strip(const LinearPart& part, int strip) {
  const uint8_t* weights = part.weight->data + strip * part.strip_bytes;
  for (int64_t at = 0; at < std::min(part.strip_bytes, kFetchedBytes); at += kCacheLine)
    __builtin_prefetch(weights + at);
}

// The first of the largest products; -1 where none is above -inf.
int32_t find_largest(const Step& step, const OpCall& call, const ActTargets& in, int row) {
  const Bounds bounds = bounds_of(step, call, row);
  const float least = bounds.lower[step.kernels->argmax(bounds.lower, bounds.strips)];
  const LinearPart& exact = call.parts[1];
  const auto n = static_cast<int>(exact.weight->n);
  float largest = -kInfinity;
  int32_t found = -1;
  for (int strip = next_strip(bounds, least, 0), next; strip < bounds.strips; strip = next) {
    next = next_strip(bounds, least, strip + 1);
    if (next < bounds.strips) fetch_strip(exact, next);
    float products[kStrip];
    exact_strip(products, step, call, in, strip, row);
    for (int i = 0; i < std::min(kStrip, n - strip * kStrip); ++i)
      if (products[i] > largest) {
        largest = products[i];
        found = strip * kStrip + i;
      }
  }
  return found;
}

}  // namespace

void screen_chunk(const Step& step, const OpCall& call, const ActTargets& in, const Chunk& chunk, float* tile) {
  const Screen& screen = *call.screen;
  const int width = chunk.width(), first = chunk.first();
  for (int token = chunk.tokens.begin; token < chunk.tokens.end; token += kScreenedTokens) {
    const int n = std::min(kScreenedTokens, chunk.tokens.end - token);
    const Bounds bounds = bounds_of(step, call, token);
    multiply(tile, width, rows_from(step, in, chunk, token), step, chunk, n);
    step.kernels->screen({.upper = bounds.upper + chunk.first_strip,
                          .lower = bounds.lower + chunk.first_strip,
                          .factors = bounds.factors,
                          .row_stride = chunk.part->out.stride / 4,
                          .x = tile,
                          .x_stride = width,
                          .norms = screen.norms + first,
                          .errors = screen.errors == nullptr ? nullptr : screen.errors + first,
                          .n_tokens = n,
                          .n_strips = chunk.strips});
  }
}

int64_t screen_scratch(const OpCall& call) { return std::max(linear_scratch(call), norm_scratch(call.width)); }

void measure(const Step& step, const OpCall& call, const Worker& worker) {
  auto* scratch = reinterpret_cast<float*>(step.thread_scratch(worker));
  for_rows(step.counters_of(call), worker, step.n_rows, [&](int row) { measure_row(step, call, row, scratch); });
}

void settle(const Step& step, const OpCall& call, const Worker& worker) {
  const ActTargets in = targets_of(step, call.in, 0);
  for_rows(step.counters_of(call), worker, step.n_rows,
           [&](int row) { step.largest[row] = find_largest(step, call, in, row); });
}

}  // namespace octavo::cpu
