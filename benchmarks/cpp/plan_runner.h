// A plan with memory of its own, whose calls of one kind can be timed without the rest.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/memory.h"
#include "graph/plan.h"
#include "graph/step.h"
#include "peak.h"

namespace octavo::bench {

class PlanRunner {
 public:
  // max_context: tokens of the longest sequence; n_blocks: of the KV cache, 0 where nothing attends.
  PlanRunner(const Graph& graph, int n_threads, int max_rows, int max_context, int n_blocks)
      : n_threads_(n_threads),
        plan_(make_plan(graph, kernels(), KvType::kBF16, max_rows, max_context)),
        arena_(static_cast<size_t>(plan_.arena_bytes)),
        scratch_(static_cast<size_t>(plan_.scratch_bytes * n_threads)),
        kv_(static_cast<size_t>(std::max<int64_t>(n_blocks * plan_.kv_block_bytes, 1))),
        counters_(plan_.calls.size() * static_cast<size_t>(counters_per_call(n_threads))) {
    for (const Rope& rope : plan_.ropes)
      rope_tables_.emplace_back(rope.inv_freq.size() * 2 * static_cast<size_t>(max_rows));
    fill_kv();
  }

  const Plan& plan() const { return plan_; }

  void run_all(const Batch& batch) {
    run(batch, [](const OpCall&) { return true; });
  }

  // Seconds of the calls that `wanted` picks, each with its barrier.
  template <class Wanted>
  double run(const Batch& batch, const Wanted& wanted) {
    Step step = make_step(batch);
    for (Counter& counter : counters_) counter.next.store(0, std::memory_order_relaxed);
    double seconds = 0;
    run_job(n_threads_, [&](const Worker& worker) {
      worker.barrier();
      const double start = now();
      for (const OpCall& call : plan_.calls) {
        if (!wanted(call)) continue;
        call.fn(step, call, worker);
        worker.barrier();
      }
      if (worker.id == 0) seconds = now() - start;
    });
    return seconds;
  }

 private:
  Step make_step(const Batch& batch) {
    Step step{};
    step.kernels = &kernels();
    step.plan = &plan_;
    step.batch = &batch;
    step.n_rows = batch.n_tokens();
    step.arena = arena_.data();
    step.scratch = scratch_.data();
    step.kv = kv_.data();
    step.n_threads = n_threads_;
    step.counters = counters_.data();
    step.rope_tables = &rope_tables_;
    return step;
  }

  // Small numbers of both signs, read as bf16.
  void fill_kv() {
    uint32_t random = 1;
    for (size_t i = 0; i < kv_.size() / 2; ++i) {
      random = random * 1664525u + 1013904223u;
      kv_.as<uint16_t>()[i] = static_cast<uint16_t>(0x3c00u | ((random >> 16) & 0x80ffu));
    }
  }

  int n_threads_;
  Plan plan_;
  HugeBuffer arena_, scratch_, kv_;
  std::vector<Counter> counters_;
  std::vector<std::vector<float>> rope_tables_;
};

// n_seqs sequences, the last n_new of whose n_known tokens are new, over consecutive blocks of the cache. Every token's
// row is asked for.
struct PagedBatch {
  std::vector<int32_t> blocks;
  Batch batch;

  PagedBatch(int n_seqs, int n_known, int n_new) {
    const int n_blocks = (n_known + kKvTile - 1) / kKvTile;
    for (int b = 0; b < n_seqs * n_blocks; ++b) blocks.push_back(b);
    batch.query_start.push_back(0);
    for (int s = 0; s < n_seqs; ++s) {
      for (int position = n_known - n_new; position < n_known; ++position) {
        batch.output_tokens.push_back(batch.n_tokens());
        batch.token_ids.push_back(position % 64);
        batch.positions.push_back(position);
      }
      batch.query_start.push_back(batch.n_tokens());
      batch.block_tables.push_back(blocks.data() + s * n_blocks);
    }
  }
};

}  // namespace octavo::bench
