// The CPU implementations of plan calls. Every thread runs each call; work is shared through its counter.
#pragma once

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
void rope_tables(const Step&, const OpCall&, const Worker&);
void write_kv(const Step&, const OpCall&, const Worker&);
void attention(const Step&, const OpCall&, const Worker&);

// Bytes of scratch one thread needs for a linear, and for attention over max_context tokens.
int64_t linear_scratch(const OpCall& call);
int64_t attention_scratch_bytes(const AttentionOp& op, int max_context);

}  // namespace octavo::cpu
