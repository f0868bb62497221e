// What linears become in a plan: their parts with kernels, and the calls that screen one.
#pragma once

#include <array>
#include <vector>

#include "graph/arena_planner.h"
#include "graph/plan.h"

namespace octavo {

// The format of activations that a weight is multiplied by.
ActFormat act_of(const Weight& weight, const KernelTable& kernels);

// bias: (n), or null.
LinearPart make_part(const Weight& weight, const float* bias, const Rows& out, const KernelTable& kernels);

// Where parts that are looked up in tables have the sums of halves, while their call runs.
void place_sums(std::vector<LinearPart>& parts, int max_rows, ArenaPlanner& arena);

// The calls that find the largest of the products of `all` alone; all.parts is one, with this screen.
std::array<OpCall, 3> screen_calls(const OpCall& all, const Screen& screen, const KernelTable& kernels);

// Sums up, for each attention, what the linears after it read.
void sum_weight_bytes(std::vector<OpCall>& calls);

}  // namespace octavo
