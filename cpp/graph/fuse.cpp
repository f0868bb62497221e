#include "graph/fuse.h"

#include <algorithm>
#include <utility>

namespace octavo {
namespace {

template <class T>
bool is(const Op& op) {
  return std::holds_alternative<T>(op.params);
}

class Fuser {
 public:
  explicit Fuser(const Graph& graph)
      : graph_(graph),
        uses_(static_cast<size_t>(graph.n_values()), 0),
        producer_(static_cast<size_t>(graph.n_values()), -1) {
    for (size_t i = 0; i < graph.ops().size(); ++i) {
      for (ValueId v : graph.ops()[i].in) ++uses_[static_cast<size_t>(v)];
      for (ValueId v : graph.ops()[i].out) producer_[static_cast<size_t>(v)] = static_cast<int>(i);
    }
    if (graph.output() >= 0) ++uses_[static_cast<size_t>(graph.output())];
  }

  std::vector<FusedOp> run() {
    const auto& ops = graph_.ops();
    fused_.resize(ops.size());
    for (size_t i = 0; i < ops.size(); ++i) fused_[i] = FusedOp{&ops[i], ops[i].in, ops[i].out};
    for (size_t i = 0; i < ops.size(); ++i)
      if (is<MulOp>(ops[i])) try_gate(i);
    for (size_t i = 0; i < ops.size(); ++i) {
      if (fused_[i].op == nullptr) continue;
      if (is<ActivationOp>(ops[i])) try_activate(i);
      if (is<AddOp>(ops[i])) try_residual(i);
    }
    std::erase_if(fused_, [](const FusedOp& f) { return f.op == nullptr; });
    return std::move(fused_);
  }

 private:
  int producer(ValueId v) const { return producer_[static_cast<size_t>(v)]; }
  bool single(ValueId v) const { return uses_[static_cast<size_t>(v)] == 1; }

  // The fused linear that yields v, or null.
  FusedOp* linear_of(ValueId v) {
    if (producer(v) < 0) return nullptr;
    FusedOp& found = fused_[static_cast<size_t>(producer(v))];
    return found.op != nullptr && is<LinearOp>(*found.op) && found.epilogue == Epilogue::kStore ? &found : nullptr;
  }

  void try_gate(size_t i) {
    const Op& mul = graph_.ops()[i];
    const int index = producer(mul.in[0]);
    if (index < 0 || !single(mul.in[0])) return;
    const Op& activation = graph_.ops()[static_cast<size_t>(index)];
    if (!is<ActivationOp>(activation)) return;
    const ValueId gate = activation.in[0], up = mul.in[1];
    FusedOp* linear = linear_of(gate);
    if (linear == nullptr || linear->out != std::vector<ValueId>{gate, up} || !single(gate) || !single(up)) return;
    take_activation(*linear, activation, Epilogue::kGate, mul.out);
    fused_[static_cast<size_t>(index)].op = nullptr;
    fused_[i].op = nullptr;
  }

  void try_activate(size_t i) {
    const Op& activation = graph_.ops()[i];
    const ValueId product = activation.in[0];
    FusedOp* linear = linear_of(product);
    if (linear == nullptr || linear->out.size() != 1 || !single(product)) return;
    take_activation(*linear, activation, Epilogue::kActivate, activation.out);
    fused_[i].op = nullptr;
  }

  static void take_activation(FusedOp& linear, const Op& activation, Epilogue epilogue, std::vector<ValueId> out) {
    linear.epilogue = epilogue;
    linear.activation = std::get<ActivationOp>(activation.params).kind;
    linear.out = std::move(out);
  }

  // The linear takes the add's place, so the residual is already there.
  void try_residual(size_t i) {
    const Op& add = graph_.ops()[i];
    for (int side : {1, 0}) {
      const ValueId product = add.in[static_cast<size_t>(side)];
      FusedOp* linear = linear_of(product);
      if (linear == nullptr || linear->out.size() != 1 || !single(product)) continue;
      fused_[i] = FusedOp{.op = linear->op,
                          .in = linear->in,
                          .out = add.out,
                          .epilogue = Epilogue::kAddResidual,
                          .residual = add.in[static_cast<size_t>(1 - side)]};
      linear->op = nullptr;
      return;
    }
  }

  const Graph& graph_;
  std::vector<int> uses_;
  std::vector<int> producer_;
  std::vector<FusedOp> fused_;
};

}  // namespace

std::vector<FusedOp> fuse(const Graph& graph) { return Fuser(graph).run(); }

bool attends(const FusedOp& fused) { return is<AttentionOp>(*fused.op); }

int last_of_all_tokens(const std::vector<FusedOp>& ops) {
  const auto reads_batch = [](const FusedOp& fused) { return attends(fused) || is<EmbedOp>(*fused.op); };
  return static_cast<int>(ops.rend() - std::find_if(ops.rbegin(), ops.rend(), reads_batch)) - 1;
}

}  // namespace octavo
