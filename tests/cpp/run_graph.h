// Runs a graph without attention over some tokens, outside of any engine.
#pragma once

#include <numeric>
#include <vector>

#include "base/memory.h"
#include "graph/plan.h"
#include "graph/step.h"

namespace octavo::test {

// These tokens, computed as one batch.
class GraphRun {
 public:
  GraphRun(const Graph& graph, const std::vector<int32_t>& ids, const Crew& crew, Logits wanted = Logits::kAll)
      : plan_(make_plan(graph, kernels(), KvType::kF32, static_cast<int>(ids.size()), 1)),
        arena_(static_cast<size_t>(plan_.arena_bytes)),
        scratch_(static_cast<size_t>(plan_.scratch_bytes * crew.n_threads)),
        counters_(plan_.calls.size() * static_cast<size_t>(counters_per_call(crew.n_threads))),
        largest_(ids.size(), -2) {
    batch_.token_ids = ids;
    batch_.output_tokens.resize(ids.size());
    std::iota(batch_.output_tokens.begin(), batch_.output_tokens.end(), 0);
    step_.kernels = &kernels();
    step_.plan = &plan_;
    step_.batch = &batch_;
    step_.n_rows = static_cast<int>(ids.size());
    step_.arena = arena_.data();
    step_.scratch = scratch_.data();
    step_.n_threads = crew.n_threads;
    step_.counters = counters_.data();
    step_.logits = wanted;
    step_.largest = largest_.data();
    run_job(crew, [&](const Worker& worker) {
      for (const OpCall& call : plan_.calls) {
        if (call.only && *call.only != wanted) continue;
        call.fn(step_, call, worker);
        worker.barrier();
      }
    });
  }

  const Plan& plan() const { return plan_; }

  // The output's rows, one after the other.
  std::vector<float> rows() const {
    std::vector<float> out;
    for (int row = 0; row < step_.n_rows; ++row) {
      const auto* at = step_.row<float>(plan_.output, row);
      out.insert(out.end(), at, at + plan_.output_width);
    }
    return out;
  }

  // With Logits::kLargest.
  const std::vector<int32_t>& largest() const { return largest_; }

 private:
  Plan plan_;
  HugeBuffer arena_, scratch_;
  std::vector<Counter> counters_;
  std::vector<int32_t> largest_;
  Batch batch_;
  Step step_{};
};

inline std::vector<float> run_graph(const Graph& graph, const std::vector<int32_t>& ids, const Crew& crew) {
  return GraphRun(graph, ids, crew).rows();
}

}  // namespace octavo::test
