// Ops whose rows are independent: one thread owns a row.
#include <algorithm>
#include <cmath>

#include "graph/cpu_ops.h"

namespace octavo::cpu {
namespace {

template <class F>
void for_rows(const Step& step, const OpCall& call, const Worker& worker, F f) {
  cpu::for_rows(step.counters_of(call), worker, step.n_rows, f);
}

// Writes x in every format that has a target, except kF32.
void emit(const Step& step, const ActTargets& to, bool refined, const float* x, int n, float* scratch) {
  const auto write = [&](size_t f, uint8_t* row, const float* from) {
    step.kernels->quantize_act[f]({row, 0, from, 0, 1, 0, n, n});
  };
  for (size_t f = 1; f < kActFormatCount; ++f) {
    if (to[f].first == nullptr) continue;
    write(f, to[f].first, x);
    if (!refined || !is_quantized(static_cast<ActFormat>(f))) continue;
    subtract_quantized(scratch, x, to[f].first, static_cast<ActFormat>(f), n);
    write(f, to[f].first + to[f].stride / 2, scratch);
  }
}

int index_of(const Batch& batch, EmbedSource source, int row) {
  switch (source) {
    case EmbedSource::kTokens: return batch.token_ids[static_cast<size_t>(row)];
    case EmbedSource::kPositions: return batch.positions[static_cast<size_t>(row)];
    case EmbedSource::kTypes: return batch.token_type(row);
  }
  return 0;
}

// The frequencies of a sequence that may grow to `length` tokens.
const float* rope_frequencies(float* scratch, const Rope& rope, int length) {
  if (rope.switch_length == 0 || length <= rope.switch_length) return rope.inv_freq.data();
  if (!rope.long_inv_freq.empty()) return rope.long_inv_freq.data();
  const size_t half = rope.inv_freq.size();
  const double dim = 2.0 * static_cast<double>(half);
  const double growth = rope.ntk_factor * length / rope.switch_length - (rope.ntk_factor - 1);
  const double base = rope.ntk_theta * std::pow(growth, dim / (dim - 2));
  for (size_t i = 0; i < half; ++i)
    scratch[i] = static_cast<float>(1.0 / std::pow(base, 2.0 * static_cast<double>(i) / dim));
  return scratch;
}

}  // namespace

void embed(const Step& step, const OpCall& call, const Worker& worker) {
  const Weight& table = *call.weight;
  const Batch& batch = *step.batch;
  const size_t bytes = row_bytes(table.format, table.k);
  for_rows(step, call, worker, [&](int row) {
    float* out = step.floats(call.out, row);
    const float* given = call.source == EmbedSource::kTokens ? batch.embed(row) : nullptr;
    if (given != nullptr) {
      std::copy_n(given, table.k, out);
    } else {
      const auto index = static_cast<size_t>(index_of(batch, call.source, row) + call.offset);
      format_row(table.format).dequantize(out, table.data + index * bytes, table.k);
      if (call.factor != 1) step.kernels->scale(out, out, call.factor, call.width);
    }
  });
}

void gather(const Step& step, const OpCall& call, const Worker& worker) {
  for_rows(step, call, worker, [&](int row) {
    const auto* source = reinterpret_cast<const uint8_t*>(step.hidden) + step.gather[row] * step.hidden_stride;
    std::copy_n(reinterpret_cast<const float*>(source), call.width, step.floats(call.out, row));
  });
}

// Moves the rows of output tokens to the front. These ascend, so no row is overwritten before it has moved; they are
// few, or are in place already.
void keep_outputs(const Step& step, const OpCall& call, const Worker& worker) {
  if (worker.id != 0) return;
  for (const Rows& rows : call.in) {
    if (rows.offset < 0) continue;
    for (int row = 0; row < step.n_rows; ++row) {
      const int token = step.batch->output_tokens[static_cast<size_t>(row)];
      if (token != row) std::copy_n(step.row<uint8_t>(rows, token), rows.stride, step.row<uint8_t>(rows, row));
    }
  }
}

ActTargets targets_of(const Step& step, const ValueRows& rows, int row) {
  ActTargets to{};
  for (size_t f = 0; f < kActFormatCount; ++f)
    if (rows[f].offset >= 0) to[f] = {step.row<uint8_t>(rows[f], row), rows[f].stride};
  return to;
}

void subtract_quantized(float* left, const float* x, const uint8_t* row, ActFormat format, int n) {
  const bool small = format == ActFormat::kQ8x32;
  const auto* scales = reinterpret_cast<const float*>(row + (small ? Q8x32Layout(n).d : Q8x256Layout(n).d));
  const int group = small ? kActGroup : kActSuperGroup;
  for (int g = 0; g < n / group; ++g)
    for (int i = g * group; i < (g + 1) * group; ++i)
      left[i] = x[i] - scales[g] * static_cast<float>(reinterpret_cast<const int8_t*>(row)[i]);
}

void norm_row(const Step& step, const OpCall& call, int row, const ActTargets& to, float* scratch) {
  float* out = to[0].first != nullptr ? reinterpret_cast<float*>(to[0].first) : scratch;
  const float* x = step.floats(call.in, row);
  for (int i = 0; i < call.width; i += call.group) {
    const int64_t first = i % call.weight->k;  // of the weight
    const float* weight = call.weight->floats() + first;
    if (call.norm == NormOp::Kind::kRms)
      step.kernels->rms_norm(out + i, x + i, weight, call.group, call.factor);
    else
      step.kernels->layer_norm(out + i, x + i, weight, call.bias ? call.bias + first : nullptr, call.group,
                               call.factor);
  }
  emit(step, to, call.refined, out, call.width, scratch + call.width);
}

void norm(const Step& step, const OpCall& call, const Worker& worker) {
  auto* scratch = reinterpret_cast<float*>(step.thread_scratch(worker));
  for_rows(step, call, worker, [&](int row) { norm_row(step, call, row, targets_of(step, call.out, row), scratch); });
}

void quantize(const Step& step, const OpCall& call, const Worker& worker) {
  auto* scratch = reinterpret_cast<float*>(step.thread_scratch(worker));
  for_rows(step, call, worker, [&](int row) {
    emit(step, targets_of(step, call.out, row), call.refined, step.floats(call.in, row), call.width, scratch);
  });
}

void activation(const Step& step, const OpCall& call, const Worker& worker) {
  const auto f = step.kernels->activate[static_cast<size_t>(call.activation)];
  for_rows(step, call, worker, [&](int row) { f(step.floats(call.out, row), step.floats(call.in, row), call.width); });
}

void scale(const Step& step, const OpCall& call, const Worker& worker) {
  for_rows(step, call, worker, [&](int row) {
    step.kernels->scale(step.floats(call.out, row), step.floats(call.in, row), call.factor, call.width);
  });
}

void soft_cap(const Step& step, const OpCall& call, const Worker& worker) {
  for_rows(step, call, worker, [&](int row) {
    step.kernels->soft_cap(step.floats(call.out, row), step.floats(call.in, row), call.factor, call.width);
  });
}

void mul(const Step& step, const OpCall& call, const Worker& worker) {
  for_rows(step, call, worker, [&](int row) {
    float* out = step.floats(call.out, row);
    const float *a = step.floats(call.in, row), *b = step.floats(call.second, row);
    if (call.broadcast)
      step.kernels->scale(out, a, *b, call.width);
    else
      step.kernels->mul(out, a, b, call.width);
  });
}

void add(const Step& step, const OpCall& call, const Worker& worker) {
  for_rows(step, call, worker, [&](int row) {
    step.kernels->add(step.floats(call.out, row), step.floats(call.in, row), step.floats(call.second, row), call.width);
  });
}

// Angles are float products and their functions are rounded from double, as the models were trained.
void rope_tables(const Step& step, const OpCall& call, const Worker& worker) {
  const Rope& rope = step.plan->ropes[static_cast<size_t>(call.rope_slot)];
  const size_t half = rope.inv_freq.size();
  float* table = (*step.rope_tables)[static_cast<size_t>(call.rope_slot)].data();
  auto* scratch = reinterpret_cast<float*>(step.thread_scratch(worker));
  for_rows(step, call, worker, [&](int row) {
    const auto position = static_cast<float>(step.batch->positions[static_cast<size_t>(row)]);
    const float* frequencies = rope_frequencies(scratch, rope, step.batch->rope_length(row));
    float* cos = table + static_cast<size_t>(row) * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const double angle = position * frequencies[i];
      cos[i] = static_cast<float>(std::cos(angle)) * rope.scale;
      cos[half + i] = static_cast<float>(std::sin(angle)) * rope.scale;
    }
  });
}

}  // namespace octavo::cpu
