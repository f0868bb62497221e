// What a traced model is: ops at the level of the architecture over values of shape (rows, width).
// infer.cpp is the only validator: a graph that was built is well-formed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "graph/weights.h"
#include "kernels/kernels.h"

namespace octavo {

using ValueId = int32_t;
using RopeId = int32_t;

// Rotary embedding (Su et al. 2021) over the first 2 * inv_freq.size() dimensions of a head, halves paired.
// A sequence that may grow beyond switch_length tokens rotates by other frequencies from its first token on.
struct Rope {
  std::vector<float> inv_freq;
  float scale = 1.0f;                  // multiplies cos and sin (yarn, longrope)
  int switch_length = 0;               // 0: one set of frequencies for all lengths
  std::vector<float> long_inv_freq{};  // beyond switch_length (longrope), or empty:
  double ntk_theta = 0;                // the base that grows with the length (dynamic NTK)
  double ntk_factor = 1;
};

enum class EmbedSource : uint8_t { kTokens, kPositions, kTypes };
struct EmbedOp {
  WeightId table;
  EmbedSource source;
  int offset;       // added to the index
  float scale = 1;  // of the table's rows; given rows are taken as they are
};
struct GatherOp {};  // picks the rows that the batch asks for from the body's output
struct NormOp {
  enum class Kind : uint8_t { kRms, kLayer };
  Kind kind;
  WeightId weight;
  std::optional<WeightId> bias;
  float eps;
  int group = 0;  // values that are normalised together; 0: as many as the weight has
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
  int window;   // 0: none; causal: the last `window` tokens; else half of it to either side
  float scale;
  float soft_cap;                  // 0: none
  bool causal = true;              // else every token of the sequence is seen
  std::optional<WeightId> bias{};  // relative_bias_width() floats a head, added to the scaled scores
};
struct ActivationOp {
  Activation kind;
};
// The sum of the top_k experts that a softmax over router(x) rates highest, each down(f(gate(x)) * up(x)) and
// weighted by its share.
struct MoeOp {
  struct Expert {
    WeightId gate, up, down;
  };
  WeightId router;  // F32
  std::vector<Expert> experts;
  int top_k;
  bool normalize;         // shares are of the chosen experts' sum, not of all experts'
  Activation activation;  // f
};
struct ScaleOp {
  float factor;
};
struct SoftCapOp {
  float cap;
};
struct MulOp {};  // the second operand may have one column
struct AddOp {};

using OpParams = std::variant<EmbedOp, GatherOp, NormOp, LinearOp, AttentionOp, MoeOp, ActivationOp, ScaleOp, SoftCapOp,
                              MulOp, AddOp>;

struct Op {
  OpParams params;
  std::vector<ValueId> in;
  std::vector<ValueId> out;
};

class Graph {
 public:
  explicit Graph(const WeightStore& weights) : weights_(&weights) {}

  ValueId embed(WeightId table, EmbedSource source = EmbedSource::kTokens, int offset = 0, float scale = 1);
  ValueId gather(int width);
  ValueId norm(ValueId x, const NormOp& op);
  std::vector<ValueId> linear(ValueId x, std::vector<LinearOp::Part> parts);
  ValueId attention(ValueId q, ValueId k, ValueId v, const AttentionOp& op);
  ValueId moe(ValueId x, MoeOp op);
  ValueId activation(ValueId x, Activation kind);
  ValueId scale(ValueId x, float factor);
  ValueId soft_cap(ValueId x, float cap);
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
  void check_matrix(const char* op, WeightId id, int64_t n, int64_t k) const;
  const Weight& weight(const char* op, WeightId id, Weight::Kind kind) const;

  const WeightStore* weights_;
  std::vector<Op> ops_;
  std::vector<int> widths_;
  std::vector<Rope> ropes_;
  ValueId output_ = -1;
};

}  // namespace octavo
