// Fusion: the graph's ops regrouped into what one call computes.
#pragma once

#include <optional>
#include <vector>

#include "graph/graph.h"
#include "graph/plan.h"

namespace octavo {

struct FusedOp {
  const Op* op;  // the op that decides what is computed
  std::vector<ValueId> in;
  std::vector<ValueId> out;
  Epilogue epilogue = Epilogue::kStore;
  Activation activation{};            // with kActivate and kGate
  std::optional<ValueId> residual{};  // with kAddResidual
};

//   add(x, linear(y))              -> linear with the residual x
//   mul(f(gate), up), both outputs of one linear and of no other use -> gated linear
//   f(linear(y))              -> linear with the activation f
std::vector<FusedOp> fuse(const Graph& graph);

bool attends(const FusedOp& fused);

// The last op that must run over all tokens, since it reads the batch; after it the rows of output tokens are enough.
// -1 in a head, which has no others.
int last_of_all_tokens(const std::vector<FusedOp>& ops);

}  // namespace octavo
