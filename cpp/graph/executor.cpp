#include "graph/executor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>

#include "base/check.h"

namespace octavo {
namespace {

constexpr int64_t kLogitsBytes = int64_t{64} << 20;
constexpr auto kPollInterval = std::chrono::milliseconds(20);

int logits_rows(const Graph& head, int max_tokens) {
  const int64_t row = int64_t{head.width(head.output())} * 4;
  return static_cast<int>(std::clamp<int64_t>(kLogitsBytes / row, 1, max_tokens));
}

int count_blocks(int64_t budget, int64_t block_bytes) {
  OCTAVO_CHECK(block_bytes > 0 && budget >= block_bytes, "The KV cache has ", budget >> 20, " MiB but one block of ",
               kKvTile, " tokens needs ", (block_bytes >> 20) + 1,
               " MiB; raise kv_cache_memory_bytes or free some memory.");
  return static_cast<int>(std::min<int64_t>(budget / block_bytes, 1 << 30));
}

size_t scratch_size(const Plan& body, const Plan& head, int n_threads) {
  return static_cast<size_t>(std::max(body.scratch_bytes, head.scratch_bytes)) * static_cast<size_t>(n_threads);
}

}  // namespace

Executor::Executor(const ExecutorConfig& config, const Graph& body, const Graph& head)
    : config_(config),
      body_(make_plan(body, kernels(), config.kv_type, config.max_tokens, config.max_context)),
      head_(make_plan(head, kernels(), config.kv_type, logits_rows(head, config.max_tokens), config.max_context)),
      body_memory_(static_cast<size_t>(body_.arena_bytes)),
      head_memory_(static_cast<size_t>(head_.arena_bytes)),
      scratch_(scratch_size(body_, head_, config.crew.n_threads)),
      n_blocks_(count_blocks(config.kv_bytes, body_.kv_block_bytes)),
      upcoming_(static_cast<size_t>(config.crew.n_threads)),
      counters_(std::max(body_.calls.size(), head_.calls.size()) *
                static_cast<size_t>(counters_per_call(config.crew.n_threads))) {
  kv_ = HugeBuffer(static_cast<size_t>(n_blocks_) * static_cast<size_t>(body_.kv_block_bytes));
  for (const Rope& rope : body_.ropes)
    rope_tables_.emplace_back(rope.inv_freq.size() * 2 * static_cast<size_t>(config.max_tokens));
}

void Executor::run(const Plan& plan, Step& step, const InterruptFn& interrupted) {
  const size_t n_counters = plan.calls.size() * static_cast<size_t>(counters_per_call(config_.crew.n_threads));
  for (size_t i = 0; i < n_counters; ++i) counters_[i].next.store(0, std::memory_order_relaxed);
  step.kernels = &kernels();
  step.plan = &plan;
  step.scratch = scratch_.data();
  step.kv = kv_.data();
  step.n_threads = config_.crew.n_threads;
  step.counters = counters_.data();
  step.upcoming = upcoming_.data();
  step.rope_tables = &rope_tables_;
  Step of_outputs = step;
  of_outputs.n_rows = static_cast<int>(step.batch->output_tokens.size());
  std::span<const OpCall> calls = plan.calls;
  if (of_outputs.n_rows == 0) calls = calls.first(static_cast<size_t>(plan.first_output_call));
  run_job(config_.crew, [&](const Worker& worker) {
    auto polled = std::chrono::steady_clock::now();
    for (const OpCall& call : calls) {
      if (call.only && *call.only != step.logits) continue;
      call.fn(call.index < plan.first_output_call ? step : of_outputs, call, worker);
      if (worker.id == 0 && interrupted) {
        const auto now = std::chrono::steady_clock::now();
        if (now - polled > kPollInterval) {
          polled = now;
          if (interrupted()) throw Interrupted();
        }
      }
      worker.barrier();
    }
  });
}

void Executor::forward(const Batch& batch, const InterruptFn& interrupted) {
  OCTAVO_CHECK(batch.n_tokens() > 0 && batch.n_tokens() <= config_.max_tokens, "[forward] a batch of ",
               batch.n_tokens(), " tokens; this model was built for 1 to ", config_.max_tokens, ".");
  Step step{};
  step.batch = &batch;
  step.n_rows = batch.n_tokens();
  step.arena = body_memory_.data();
  run(body_, step, interrupted);
}

int Executor::rope_class(int length) const {
  int found = 0;
  for (const Rope& rope : body_.ropes) {
    if (rope.switch_length == 0 || length <= rope.switch_length) continue;
    found = std::max(found, rope.long_inv_freq.empty() ? length : rope.switch_length + 1);
  }
  return found;
}

float* Executor::hidden(int row) {
  return reinterpret_cast<float*>(body_memory_.data() + body_.output.offset + row * body_.output.stride);
}

float* Executor::logits(const Batch& batch, int first, int n, const InterruptFn& interrupted) {
  run_head(batch, first, n, Logits::kAll, interrupted);
  return reinterpret_cast<float*>(head_memory_.data() + head_.output.offset);
}

std::span<const int32_t> Executor::largest(const Batch& batch, int first, int n, const InterruptFn& interrupted) {
  largest_.resize(static_cast<size_t>(n));
  run_head(batch, first, n, Logits::kLargest, interrupted);
  return largest_;
}

void Executor::run_head(const Batch& batch, int first, int n, Logits wanted, const InterruptFn& interrupted) {
  Step step{};
  step.logits = wanted;
  step.largest = largest_.data();
  step.batch = &batch;
  step.n_rows = n;
  step.gather = batch.gather.data() + first;
  step.hidden = hidden(0);
  step.hidden_stride = body_.output.stride;
  step.arena = head_memory_.data();
  run(head_, step, interrupted);
}

void Executor::poison_block(int block) {
  std::memset(kv_.data() + block * body_.kv_block_bytes, 0xff, static_cast<size_t>(body_.kv_block_bytes));
}

}  // namespace octavo
