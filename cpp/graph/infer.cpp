#include <utility>

#include "base/check.h"
#include "graph/graph.h"

namespace octavo {

int Graph::width(ValueId value) const {
  OCTAVO_CHECK(value >= 0 && value < n_values(), "[graph] value ", value, " does not exist.");
  return widths_[static_cast<size_t>(value)];
}

ValueId Graph::new_value(int64_t width) {
  OCTAVO_CHECK(width > 0 && width < (int64_t{1} << 30), "[graph] a value has width ", width, ".");
  widths_.push_back(static_cast<int>(width));
  return n_values() - 1;
}

ValueId Graph::push(OpParams params, std::vector<ValueId> in, int64_t width) {
  const ValueId out = new_value(width);
  ops_.push_back({std::move(params), std::move(in), {out}});
  return out;
}

const Weight& Graph::weight(const char* op, WeightId id, Weight::Kind kind) const {
  const Weight& found = weights_->at(id);
  OCTAVO_CHECK(found.kind == kind, "[", op, "] weight ", found.name, " was loaded for another use.");
  return found;
}

ValueId Graph::embed(WeightId table, EmbedSource source, int offset, float scale) {
  const Weight& rows = weight("embed", table, Weight::Kind::kEmbedding);
  OCTAVO_CHECK(offset >= 0 && offset < rows.n, "[embed] the offset ", offset, " leaves none of the ", rows.n,
               " rows of ", rows.name, ".");
  return push(EmbedOp{table, source, offset, scale}, {}, rows.k);
}

ValueId Graph::gather(int width) { return push(GatherOp{}, {}, width); }

ValueId Graph::norm(ValueId x, const NormOp& op) {
  const Weight& gain = weight("norm", op.weight, Weight::Kind::kVector);
  OCTAVO_CHECK(gain.k > 0 && width(x) % gain.k == 0, "[norm] weight ", gain.name, " has ", gain.k,
               " elements, expected ", width(x), " or a divisor of it.");
  OCTAVO_CHECK(op.group >= 0 && (op.group == 0 || gain.k % op.group == 0), "[norm] weight ", gain.name, " has ", gain.k,
               " elements, expected a multiple of ", op.group, ".");
  if (op.bias) {
    const Weight& bias = weight("norm", *op.bias, Weight::Kind::kVector);
    OCTAVO_CHECK(op.kind == NormOp::Kind::kLayer && bias.k == gain.k, "[norm] bias ", bias.name, " has ", bias.k,
                 " elements, expected ", gain.k, " of a layer norm.");
  }
  return push(op, {x}, width(x));
}

std::vector<ValueId> Graph::linear(ValueId x, std::vector<LinearOp::Part> parts) {
  OCTAVO_CHECK(!parts.empty(), "[linear] needs at least one weight.");
  std::vector<ValueId> outs;
  for (const auto& part : parts) {
    const Weight& matrix = weight("linear", part.weight, Weight::Kind::kLinear);
    OCTAVO_CHECK(matrix.k == width(x), "[linear] weight ", matrix.name, " has ", matrix.k, " columns, expected ",
                 width(x), ".");
    if (part.bias) {
      const Weight& bias = weight("linear", *part.bias, Weight::Kind::kVector);
      OCTAVO_CHECK(bias.k == matrix.n, "[linear] bias ", bias.name, " has ", bias.k, " elements, expected ", matrix.n,
                   ".");
    }
    outs.push_back(new_value(matrix.n));
  }
  ops_.push_back({LinearOp{std::move(parts)}, {x}, outs});
  return outs;
}

ValueId Graph::attention(ValueId q, ValueId k, ValueId v, const AttentionOp& op) {
  OCTAVO_CHECK(op.n_heads > 0 && op.n_kv_heads > 0 && op.n_heads % op.n_kv_heads == 0, "[attention] ", op.n_heads,
               " query heads cannot share ", op.n_kv_heads, " key heads evenly.");
  OCTAVO_CHECK(op.head_dim > 0 && op.head_dim % 2 == 0, "[attention] head_dim is ", op.head_dim,
               ", expected an even number.");
  OCTAVO_CHECK(width(q) == op.n_heads * op.head_dim, "[attention] q has width ", width(q), ", expected ",
               op.n_heads * op.head_dim, ".");
  OCTAVO_CHECK(width(k) == op.n_kv_heads * op.head_dim && width(v) == width(k), "[attention] k and v have widths ",
               width(k), " and ", width(v), ", expected ", op.n_kv_heads * op.head_dim, ".");
  OCTAVO_CHECK(op.rope < static_cast<RopeId>(ropes_.size()), "[attention] rope ", op.rope, " does not exist.");
  if (op.rope >= 0)
    OCTAVO_CHECK(2 * ropes_[static_cast<size_t>(op.rope)].inv_freq.size() <= static_cast<size_t>(op.head_dim),
                 "[attention] the rope rotates more than the head's ", op.head_dim, " dimensions.");
  if (op.bias) {
    const Weight& bias = weight("attention", *op.bias, Weight::Kind::kVector);
    OCTAVO_CHECK(bias.k % op.n_heads == 0 && relative_bias_length(bias.k / op.n_heads) > 0, "[attention] bias ",
                 bias.name, " has ", bias.k, " elements, which is no table of relative positions for ", op.n_heads,
                 " heads.");
  }
  return push(op, {q, k, v}, width(q));
}

void Graph::check_matrix(const char* op, WeightId id, int64_t n, int64_t k) const {
  const Weight& matrix = weight(op, id, Weight::Kind::kLinear);
  OCTAVO_CHECK(matrix.n == n && matrix.k == k, "[", op, "] weight ", matrix.name, " has shape (", matrix.n, ", ",
               matrix.k, "), expected (", n, ", ", k, ").");
}

ValueId Graph::moe(ValueId x, MoeOp op) {
  const auto n_experts = static_cast<int>(op.experts.size());
  OCTAVO_CHECK(op.top_k > 0 && op.top_k <= n_experts, "[moe] a token cannot go to ", op.top_k, " of ", n_experts,
               " experts.");
  check_matrix("moe", op.router, n_experts, width(x));
  OCTAVO_CHECK(weights_->at(op.router).format == Format::kF32, "[moe] the router must be stored as F32.");
  const int64_t inner = weight("moe", op.experts[0].gate, Weight::Kind::kLinear).n;
  for (const MoeOp::Expert& expert : op.experts) {
    check_matrix("moe", expert.gate, inner, width(x));
    check_matrix("moe", expert.up, inner, width(x));
    check_matrix("moe", expert.down, width(x), inner);
  }
  return push(std::move(op), {x}, width(x));
}

ValueId Graph::activation(ValueId x, Activation kind) { return push(ActivationOp{kind}, {x}, width(x)); }
ValueId Graph::scale(ValueId x, float factor) { return push(ScaleOp{factor}, {x}, width(x)); }

ValueId Graph::soft_cap(ValueId x, float cap) {
  OCTAVO_CHECK(cap > 0, "[soft_cap] the cap is ", cap, ", expected a positive number.");
  return push(SoftCapOp{cap}, {x}, width(x));
}

ValueId Graph::mul(ValueId a, ValueId b) {
  OCTAVO_CHECK(width(b) == width(a) || width(b) == 1, "[mul] operands have widths ", width(a), " and ", width(b), ".");
  return push(MulOp{}, {a, b}, width(a));
}

ValueId Graph::add(ValueId a, ValueId b) {
  OCTAVO_CHECK(width(a) == width(b), "[add] operands have widths ", width(a), " and ", width(b), ".");
  return push(AddOp{}, {a, b}, width(a));
}

RopeId Graph::add_rope(Rope rope) {
  OCTAVO_CHECK(!rope.inv_freq.empty(), "[rope] needs at least one frequency.");
  OCTAVO_CHECK(rope.long_inv_freq.empty() || rope.long_inv_freq.size() == rope.inv_freq.size(), "[rope] has ",
               rope.inv_freq.size(), " frequencies for short and ", rope.long_inv_freq.size(), " for long sequences.");
  ropes_.push_back(std::move(rope));
  return static_cast<RopeId>(ropes_.size() - 1);
}

void Graph::set_output(ValueId x) {
  width(x);
  output_ = x;
}

}  // namespace octavo
