// The CPU implementations of plan calls. Every thread runs each call; work is shared through its counter.
#pragma once

#include <algorithm>
#include <array>

#include "graph/plan.h"
#include "graph/step.h"

namespace octavo::cpu {

void embed(const Step&, const OpCall&, const Worker&);
void gather(const Step&, const OpCall&, const Worker&);
void norm(const Step&, const OpCall&, const Worker&);
void quantize(const Step&, const OpCall&, const Worker&);
void activation(const Step&, const OpCall&, const Worker&);
void scale(const Step&, const OpCall&, const Worker&);
void soft_cap(const Step&, const OpCall&, const Worker&);
void mul(const Step&, const OpCall&, const Worker&);
void add(const Step&, const OpCall&, const Worker&);
void linear(const Step&, const OpCall&, const Worker&);
void measure(const Step&, const OpCall&, const Worker&);
void settle(const Step&, const OpCall&, const Worker&);
void rope_tables(const Step&, const OpCall&, const Worker&);
void attention(const Step&, const OpCall&, const Worker&);
void keep_outputs(const Step&, const OpCall&, const Worker&);

// f(row) for all rows, shared so that a thread owns the same ones in every call, as far as it is not helped.
template <class F>
void for_rows(Counter* counters, const Worker& worker, int n_rows, F f) {
  constexpr int kRowsPerChunk = 4;
  ChunkFeed feed(counters, worker, (n_rows + kRowsPerChunk - 1) / kRowsPerChunk);
  for (int chunk; (chunk = feed.take()) >= 0;) {
    const int first = chunk * kRowsPerChunk;
    for (int row = first; row < std::min(first + kRowsPerChunk, n_rows); ++row) f(row);
  }
}

// Where one row, or the first of several, goes or lies in each activation format; null: not in this one.
struct ActTarget {
  uint8_t* first = nullptr;
  int64_t stride = 0;  // bytes
};
using ActTargets = std::array<ActTarget, kActFormatCount>;
ActTargets targets_of(const Step& step, const ValueRows& rows, int row);
// left = x - what its quantised row says.
void subtract_quantized(float* left, const float* x, const uint8_t* row, ActFormat format, int n);
// A norm's row in every format that has a target. scratch: norm_scratch bytes.
void norm_row(const Step& step, const OpCall& norm, int row, const ActTargets& to, float* scratch);
constexpr int64_t norm_scratch(int width) { return (int64_t{8} * width + 63) / 64 * 64; }

// Bytes of scratch one thread needs for a linear, for measuring or settling what it screens, and for attention over
// max_context tokens.
int64_t linear_scratch(const OpCall& call);
int64_t screen_scratch(const OpCall& call);
int64_t attention_scratch_bytes(const AttentionOp& op, int max_context);

}  // namespace octavo::cpu
