// A mixture of experts in the plan. Its calls, in order: the router as an ordinary linear, moe_route, moe_gate_up,
// moe_down, moe_combine. The rows that an expert computes (one for each token that chose it) lie side by side.
#pragma once

#include <vector>

#include "graph/plan.h"

namespace octavo::cpu {

// The parts and buffers of one MoeOp, shared by its calls.
struct MoeCall {
  int top_k;
  bool normalize;
  Activation activation;
  std::vector<LinearPart> gate, up, down;  // by expert
  ValueRows x;                             // (n_tokens, hidden): the op's input
  Rows logits;                             // (n_tokens, n_experts) float
  Rows routes;                             // (n_tokens): int32 expert[top_k] | float share[top_k], best first
  Rows groups;                             // one row: what Groups says
  // n_tokens * top_k rows by expert:
  ValueRows gathered;  // copies of x
  ValueRows hidden;    // gated, in the formats that the down projections read
  Rows product;        // float

  int n_experts() const { return static_cast<int>(gate.size()); }
};

// Bytes of a row of `routes` and of `groups`.
int64_t moe_route_bytes(const MoeOp& op);
int64_t moe_group_bytes(const MoeOp& op, int max_tokens);
int64_t moe_scratch(const MoeCall& moe);

void moe_route(const Step&, const OpCall&, const Worker&);
void moe_gate_up(const Step&, const OpCall&, const Worker&);
void moe_down(const Step&, const OpCall&, const Worker&);
void moe_combine(const Step&, const OpCall&, const Worker&);

}  // namespace octavo::cpu
