// What a traced model is: ops at the level of the architecture over values of shape (rows, width).
// infer.cpp is the only validator: a graph that was built is well-formed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "graph/weights.h"

namespace octavo {

using ValueId = int32_t;
using RopeId = int32_t;

// Rotary embedding (Su et al. 2021) over the first 2 * inv_freq.size() dimensions of a head, halves paired.
struct Rope {
  std::vector<float> inv_freq;
  float scale = 1.0f;  // multiplies cos and sin (yarn, longrope)
};

struct EmbedOp {
  WeightId table;
};
struct GatherOp {};  // picks the rows that the batch asks for from the body's output
struct RmsNormOp {
  WeightId weight;
  float eps;
};
struct LinearOp {
  struct Part {
    WeightId weight;
    std::optional<WeightId> bias;
  };
  std::vector<Part> parts;  // one output each, all from the same input
};
struct AttentionOp {
  int layer;
  int n_heads;
  int n_kv_heads;
  int head_dim;
  RopeId rope;  // -1: none
  int window;   // 0: all earlier tokens
  float scale;
  float soft_cap;  // 0: none
};
struct SiluOp {};
struct MulOp {};
struct AddOp {};

using OpParams = std::variant<EmbedOp, GatherOp, RmsNormOp, LinearOp, AttentionOp, SiluOp, MulOp, AddOp>;

struct Op {
  OpParams params;
  std::vector<ValueId> in;
  std::vector<ValueId> out;
};

class Graph {
 public:
  explicit Graph(const WeightStore& weights) : weights_(&weights) {}

  ValueId embed(WeightId table);
  ValueId gather(int width);
  ValueId rms_norm(ValueId x, WeightId weight, float eps);
  std::vector<ValueId> linear(ValueId x, std::vector<LinearOp::Part> parts);
  ValueId attention(ValueId q, ValueId k, ValueId v, const AttentionOp& op);
  ValueId silu(ValueId x);
  ValueId mul(ValueId a, ValueId b);
  ValueId add(ValueId a, ValueId b);
  RopeId add_rope(Rope rope);
  void set_output(ValueId x);

  const std::vector<Op>& ops() const { return ops_; }
  const std::vector<Rope>& ropes() const { return ropes_; }
  const WeightStore& weights() const { return *weights_; }
  int n_values() const { return static_cast<int>(widths_.size()); }
  int width(ValueId value) const;
  ValueId output() const { return output_; }

 private:
  ValueId new_value(int64_t width);
  ValueId push(OpParams params, std::vector<ValueId> in, int64_t width);
  ValueId elementwise(const char* name, OpParams params, ValueId a, ValueId b);
  const Weight& weight(const char* op, WeightId id, Weight::Kind kind) const;

  const WeightStore* weights_;
  std::vector<Op> ops_;
  std::vector<int> widths_;
  std::vector<Rope> ropes_;
  ValueId output_ = -1;
};

}  // namespace octavo
