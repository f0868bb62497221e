// Runs a graph without attention over some tokens, outside of any engine.
#pragma once

#include <numeric>
#include <vector>

#include "base/memory.h"
#include "graph/plan.h"
#include "graph/step.h"

namespace octavo::test {

// The output rows of these tokens, computed as one batch.
inline std::vector<float> run_graph(const Graph& graph, const std::vector<int32_t>& ids, const Crew& crew) {
  const Plan plan = make_plan(graph, kernels(), KvType::kF32, static_cast<int>(ids.size()), 1);
  const HugeBuffer arena(static_cast<size_t>(plan.arena_bytes));
  const HugeBuffer scratch(static_cast<size_t>(plan.scratch_bytes * crew.n_threads));
  std::vector<Counter> counters(plan.calls.size() * static_cast<size_t>(counters_per_call(crew.n_threads)));
  Batch batch;
  batch.token_ids = ids;
  batch.output_tokens.resize(ids.size());
  std::iota(batch.output_tokens.begin(), batch.output_tokens.end(), 0);
  Step step{};
  step.kernels = &kernels();
  step.plan = &plan;
  step.batch = &batch;
  step.n_rows = static_cast<int>(ids.size());
  step.arena = arena.data();
  step.scratch = scratch.data();
  step.n_threads = crew.n_threads;
  step.counters = counters.data();
  run_job(crew, [&](const Worker& worker) {
    for (const OpCall& call : plan.calls) {
      call.fn(step, call, worker);
      worker.barrier();
    }
  });
  std::vector<float> out;
  for (int row = 0; row < step.n_rows; ++row) {
    const auto* at = step.row<float>(plan.output, row);
    out.insert(out.end(), at, at + plan.output_width);
  }
  return out;
}

}  // namespace octavo::test
