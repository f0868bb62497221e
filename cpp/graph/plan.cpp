#include "graph/plan.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/memory.h"
#include "graph/arena_planner.h"
#include "graph/cpu_moe.h"
#include "graph/cpu_ops.h"
#include "graph/fuse.h"
#include "graph/linear_calls.h"
#include "graph/screen.h"
#include "quant/planes.h"

namespace octavo {
namespace {

// A single row of few bytes each waits for its weights anyhow, whether it is refined or not.
constexpr int kRowsToScreen = 2;

constexpr auto kF32 = static_cast<size_t>(ActFormat::kF32);

class Planner {
 public:
  Planner(const Graph& graph, const KernelTable& kernels, KvType kv, int max_rows, int max_context)
      : graph_(graph),
        kernels_(kernels),
        kv_(kv),
        max_context_(max_context),
        ops_(fuse(graph)),
        needs_(static_cast<size_t>(graph.n_values())),
        values_(static_cast<size_t>(graph.n_values())),
        last_use_(static_cast<size_t>(graph.n_values()), -1),
        refined_(static_cast<size_t>(graph.n_values())),
        cached_(static_cast<size_t>(graph.n_values())),
        last_of_all_(last_of_all_tokens(ops_)) {
    plan_.max_rows = max_rows;
    plan_.ropes = graph.ropes();
  }

  Plan run() {
    find_needs();
    for (size_t r = 0; r < plan_.ropes.size(); ++r) {
      OpCall& call = push(cpu::rope_tables);
      call.rope_slot = static_cast<int>(r);
      need_scratch(static_cast<int64_t>(plan_.ropes[r].inv_freq.size()) * 4);
    }
    for (int i = 0; i < static_cast<int>(ops_.size()); ++i) {
      emit(i);
      if (i == last_of_all_) keep_outputs();
    }
    sum_weight_bytes(plan_.calls);
    if (last_of_all_ < 0) plan_.first_output_call = static_cast<int>(plan_.calls.size());
    plan_.output = values_[static_cast<size_t>(graph_.output())][kF32];
    plan_.output_width = graph_.width(graph_.output());
    plan_.arena_bytes = arena_.peak();
    return std::move(plan_);
  }

 private:
  using Needs = std::array<bool, kActFormatCount>;

  void need(ValueId v, ActFormat format, int op) {
    needs_[static_cast<size_t>(v)][static_cast<size_t>(format)] = true;
    last_use_[static_cast<size_t>(v)] = op;
  }

  // Which formats of every value its consumers read, and who reads it last.
  void find_needs() {
    for (const FusedOp& fused : ops_)
      if (attends(fused))
        for (size_t i : {1, 2}) cached_[static_cast<size_t>(fused.in[i])] = true;
    for (const FusedOp& fused : ops_)  // a norm of keys only hands them on
      if (std::holds_alternative<NormOp>(fused.op->params) && cached_[static_cast<size_t>(fused.out[0])])
        cached_[static_cast<size_t>(fused.in[0])] = true;
    for (const FusedOp& fused : ops_)
      for (size_t p = 0; p < fused.out.size(); ++p)
        if (wants_refined(fused, p)) refined_[static_cast<size_t>(fused.in[0])] = true;
    for (size_t i = 0; i < ops_.size(); ++i) {
      const auto index = static_cast<int>(i);
      if (const auto* linear = std::get_if<LinearOp>(&ops_[i].op->params)) {
        for (const auto& part : linear->parts) need(ops_[i].in[0], act_of(part.weight), index);
        if (const Screen* screen = screen_of(ops_[i]))
          need(ops_[i].in[0], octavo::act_of(*screen->weight, kernels_), index);
      } else {
        if (const auto* moe = std::get_if<MoeOp>(&ops_[i].op->params)) need_experts(*moe, ops_[i].in[0], index);
        for (ValueId v : ops_[i].in) need(v, ActFormat::kF32, index);
      }
      if (ops_[i].residual) need(*ops_[i].residual, ActFormat::kF32, index);
    }
    need(graph_.output(), ActFormat::kF32, static_cast<int>(ops_.size()));
  }

  ActFormat act_of(WeightId id) const { return octavo::act_of(graph_.weights().at(id), kernels_); }

  void need_experts(const MoeOp& op, ValueId x, int index) {
    for (const MoeOp::Expert& expert : op.experts) {
      need(x, act_of(expert.gate), index);
      need(x, act_of(expert.up), index);
    }
  }

  // Where 8 bits of activations cost the most: keys and values, which every later token reads, and the logits
  // themselves. Their linears multiply what quantisation left over too.
  bool wants_refined(const FusedOp& fused, size_t p) const {
    const auto* linear = std::get_if<LinearOp>(&fused.op->params);
    if (linear == nullptr || fused.epilogue != Epilogue::kStore) return false;
    const ValueId out = fused.out[p];
    return is_quantized(act_of(linear->parts[p].weight)) &&
           (cached_[static_cast<size_t>(out)] || out == graph_.output());
  }

  // Of the linear that makes the graph's output, or null.
  const Screen* screen_of(const FusedOp& fused) const {
    const auto* linear = std::get_if<LinearOp>(&fused.op->params);
    if (linear == nullptr || fused.epilogue != Epilogue::kStore || fused.out[0] != graph_.output()) return nullptr;
    if (linear->parts.size() > 1 || linear->parts[0].bias) return nullptr;
    const Weight& weight = graph_.weights().at(linear->parts[0].weight);
    return weight.screen ? &*weight.screen : nullptr;
  }

  // Leaves of every value that is alive the rows of output tokens.
  void keep_outputs() {
    plan_.first_output_call = static_cast<int>(plan_.calls.size());
    for (const ValueRows& rows : values_)
      if (std::any_of(rows.begin(), rows.end(), [](const Rows& r) { return r.offset >= 0; }))
        push(cpu::keep_outputs).in = rows;
  }

  OpCall& push(OpFn fn) {
    OpCall call;
    call.fn = fn;
    return push(std::move(call));
  }
  OpCall& push(OpCall made) {
    OpCall& call = plan_.calls.emplace_back(std::move(made));
    call.index = static_cast<int>(plan_.calls.size()) - 1;
    return call;
  }

  Rows place(ActFormat format, int width, bool refined = false, int rows_per_token = 1) {
    // Linears write whole strips of 16 columns.
    const int64_t padded = format == ActFormat::kF32 ? n_strips(width) * kStrip : width;
    const int64_t stride = act_row_bytes(format, padded) * (refined && is_quantized(format) ? 2 : 1);
    return {arena_.take(stride * plan_.max_rows * rows_per_token), stride};
  }

  ValueRows& rows_of(ValueId v) { return values_[static_cast<size_t>(v)]; }
  const Needs& needs_of(ValueId v) const { return needs_[static_cast<size_t>(v)]; }

  void place_needed(ValueId v) {
    for (int f = 0; f < kActFormatCount; ++f)
      if (needs_of(v)[static_cast<size_t>(f)])
        rows_of(v)[static_cast<size_t>(f)] = place(static_cast<ActFormat>(f), graph_.width(v), is_refined(v));
  }
  void place_quantized(ValueId v) {
    for (int f = 1; f < kActFormatCount; ++f)
      if (needs_of(v)[static_cast<size_t>(f)])
        rows_of(v)[static_cast<size_t>(f)] = place(static_cast<ActFormat>(f), graph_.width(v), is_refined(v));
  }
  bool is_refined(ValueId v) const { return refined_[static_cast<size_t>(v)]; }

  // For ops that can only write floats: a quantise call makes the other formats.
  void place_float(ValueId v) { rows_of(v)[kF32] = place(ActFormat::kF32, graph_.width(v)); }
  void quantize_after(ValueId v) {
    const Needs& needs = needs_of(v);
    if (std::none_of(needs.begin() + 1, needs.end(), [](bool n) { return n; })) return;
    OpCall& call = push(cpu::quantize);
    call.width = graph_.width(v);
    call.in = rows_of(v);
    place_quantized(v);
    call.out = rows_of(v);
    call.refined = is_refined(v);
    if (call.refined) need_scratch(cpu::norm_scratch(call.width));
    if (!needs[kF32]) release(rows_of(v)[kF32]);
  }

  void release(Rows& rows) {
    if (rows.offset >= 0) arena_.release(rows.offset);
    rows.offset = -1;
  }

  void release_dead(int op) {
    for (ValueId v = 0; v < graph_.n_values(); ++v)
      if (last_use_[static_cast<size_t>(v)] == op)
        for (Rows& rows : rows_of(v)) release(rows);
  }

  void emit(int index) {
    const FusedOp& fused = ops_[static_cast<size_t>(index)];
    std::visit([&](const auto& op) { lower(op, fused, index); }, fused.op->params);
    release_dead(index);
  }

  OpCall& row_call(OpFn fn, const FusedOp& fused) {
    OpCall& call = push(fn);
    call.width = graph_.width(fused.in.empty() ? fused.out[0] : fused.in[0]);
    if (!fused.in.empty()) call.in = rows_of(fused.in[0]);
    if (fused.in.size() > 1) call.second = rows_of(fused.in[1]);
    return call;
  }

  void float_call(OpFn fn, const FusedOp& fused) {
    float_call(fn, fused, [](OpCall&) {});
  }
  template <class Set>
  void float_call(OpFn fn, const FusedOp& fused, Set set) {
    place_float(fused.out[0]);
    OpCall& call = row_call(fn, fused);
    call.out = rows_of(fused.out[0]);
    set(call);
    quantize_after(fused.out[0]);
  }

  void lower(const EmbedOp& op, const FusedOp& fused, int) {
    const Weight& table = graph_.weights().at(op.table);
    if (op.source == EmbedSource::kPositions)
      OCTAVO_CHECK(max_context_ + op.offset <= table.n, "[embed] ", table.name, " has rows for ", table.n - op.offset,
                   " positions, but sequences of ", max_context_, " tokens are asked for; lower max_model_len.");
    if (op.source == EmbedSource::kTokens) plan_.embedding_width = static_cast<int>(table.k);
    float_call(cpu::embed, fused, [&](OpCall& call) {
      call.weight = &table;
      call.source = op.source;
      call.offset = op.offset;
      call.factor = op.scale;
    });
  }
  void lower(const GatherOp&, const FusedOp& fused, int) { float_call(cpu::gather, fused); }
  void lower(const AddOp&, const FusedOp& fused, int) { float_call(cpu::add, fused); }
  void lower(const MulOp&, const FusedOp& fused, int) {
    const bool broadcast = graph_.width(fused.in[1]) < graph_.width(fused.in[0]);
    float_call(cpu::mul, fused, [&](OpCall& call) { call.broadcast = broadcast; });
  }
  void lower(const ActivationOp& op, const FusedOp& fused, int) {
    float_call(cpu::activation, fused, [&](OpCall& call) { call.activation = op.kind; });
  }
  void lower(const ScaleOp& op, const FusedOp& fused, int) {
    float_call(cpu::scale, fused, [&](OpCall& call) { call.factor = op.factor; });
  }
  void lower(const SoftCapOp& op, const FusedOp& fused, int) {
    float_call(cpu::soft_cap, fused, [&](OpCall& call) { call.factor = op.cap; });
  }

  void lower(const NormOp& op, const FusedOp& fused, int) {
    place_needed(fused.out[0]);
    OpCall& call = row_call(cpu::norm, fused);
    call.out = rows_of(fused.out[0]);
    call.norm = op.kind;
    call.weight = &graph_.weights().at(op.weight);
    if (op.bias) call.bias = graph_.weights().at(*op.bias).floats();
    call.group = op.group > 0 ? op.group : static_cast<int>(call.weight->k);
    call.factor = op.eps;
    call.refined = is_refined(fused.out[0]);
    need_scratch(cpu::norm_scratch(call.width));
  }

  void lower(const LinearOp& op, const FusedOp& fused, int index) {
    const std::shared_ptr<const OpCall> norm = take_norm(fused, index);
    const bool activates = fused.epilogue == Epilogue::kActivate || fused.epilogue == Epilogue::kGate;
    if (fused.residual)
      place_residual(fused, index);
    else if (activates)
      place_needed(fused.out[0]);
    else
      for (ValueId v : fused.out) place_float(v);
    OpCall& call = row_call(cpu::linear, fused);
    call.norm_before = norm;
    call.epilogue = fused.epilogue;
    call.activation = fused.activation;
    if (fused.residual) call.second = rows_of(*fused.residual);
    call.out = rows_of(fused.out[0]);
    for (size_t p = 0; p < op.parts.size(); ++p) {
      LinearPart& part =
          call.parts.emplace_back(part_of(op.parts[p], activates ? Rows{} : rows_of(fused.out[p])[kF32]));
      part.refined = wants_refined(fused, p);
    }
    place_sums(call.parts, plan_.max_rows, arena_);
    need_scratch(cpu::linear_scratch(call));
    if (const Screen* screen = screen_of(fused)) add_screen(call.index, *screen);
    if (fused.residual && rows_of(fused.out[0])[kF32].offset == rows_of(*fused.residual)[kF32].offset)
      rows_of(*fused.residual)[kF32].offset = -1;  // the output lives on in its place
    if (!activates)
      for (ValueId v : fused.out) quantize_after(v);
  }

  // Beside the linear that makes all logits, the calls that find the largest ones alone.
  void add_screen(int index, const Screen& screen) {
    OpCall& all = plan_.calls[static_cast<size_t>(index)];
    all.only = Logits::kAll;
    plan_.screens_from = screens_by_copy(*all.parts[0].weight) ? 1 : kRowsToScreen;
    for (OpCall& call : screen_calls(all, screen, kernels_)) need_scratch(cpu::screen_scratch(push(std::move(call))));
  }

  // The sum may overwrite a residual that nobody reads afterwards.
  void place_residual(const FusedOp& fused, int index) {
    if (last_use_[static_cast<size_t>(*fused.residual)] == index)
      rows_of(fused.out[0])[kF32] = rows_of(*fused.residual)[kF32];
    else
      place_float(fused.out[0]);
  }

  LinearPart part_of(const LinearOp::Part& part, const Rows& out) const {
    const float* bias = part.bias ? graph_.weights().at(*part.bias).floats() : nullptr;
    return make_part(graph_.weights().at(part.weight), bias, out, kernels_);
  }

  void lower(const AttentionOp& op, const FusedOp& fused, int index) {
    add_kv_slot(op);
    const ValueId out = fused.out[0];
    place_float(out);
    const bool emits = emits_by_head(op, out);
    if (emits) place_quantized(out);
    OpCall& attend = row_call(cpu::attention, fused);
    attend.third = rows_of(fused.in[2]);
    attend.attention = op;
    attend.emits = emits;
    attend.last = index == last_of_all_;
    if (op.bias) set_bias(attend, op);
    attend.out = rows_of(out);
    need_scratch(cpu::attention_scratch_bytes(op, max_context_));
    if (!emits)
      quantize_after(out);
    else if (!needs_of(out)[kF32])
      release(rows_of(out)[kF32]);
  }

  // Whether the heads of one key head are whole groups of every format that the consumers read.
  bool emits_by_head(const AttentionOp& op, ValueId out) const {
    const int width = op.n_heads / op.n_kv_heads * op.head_dim;
    const Needs& needs = needs_of(out);
    if (std::none_of(needs.begin() + 1, needs.end(), [](bool n) { return n; })) return false;
    return !is_refined(out) && !(needs[static_cast<size_t>(ActFormat::kQ8x32)] && width % kActGroup != 0) &&
           !(needs[static_cast<size_t>(ActFormat::kQ8x256)] && width % kActSuperGroup != 0);
  }

  void set_bias(OpCall& call, const AttentionOp& op) {
    const Weight& bias = graph_.weights().at(*op.bias);
    call.bias = bias.floats();
    call.bias_length = static_cast<int>(relative_bias_length(bias.k / op.n_heads));
    OCTAVO_CHECK(max_context_ <= call.bias_length, "[attention] ", bias.name, " is for sequences of up to ",
                 call.bias_length, " tokens, but ", max_context_, " are asked for; lower max_model_len.");
  }

  // Layers that see the whole sequence at once need its keys only while they run, so they share one place.
  void add_kv_slot(const AttentionOp& op) {
    OCTAVO_CHECK(op.layer == static_cast<int>(plan_.kv.size()), "[attention] layer ", op.layer, " comes out of order.");
    const KvLayout layout{op.n_kv_heads, op.head_dim, kv_};
    if (!op.causal && !plan_.kv.empty() && plan_.kv[0].layout == layout) {
      plan_.kv.push_back(plan_.kv[0]);
      return;
    }
    plan_.kv.push_back({plan_.kv_block_bytes, layout});
    plan_.kv_block_bytes += static_cast<int64_t>(round_up(static_cast<size_t>(layout.block_bytes()), kCacheLine));
  }

  void lower(const MoeOp& op, const FusedOp& fused, int) {
    const auto moe = std::make_shared<cpu::MoeCall>();
    moe->top_k = op.top_k;
    moe->normalize = op.normalize;
    moe->activation = op.activation;
    moe->x = rows_of(fused.in[0]);
    place_moe(*moe, op, graph_.width(fused.in[0]));
    for (const MoeOp::Expert& expert : op.experts) {
      moe->gate.push_back(part_of({expert.gate, {}}, {}));
      moe->up.push_back(part_of({expert.up, {}}, {}));
      moe->down.push_back(part_of({expert.down, {}}, {}));
    }
    place_float(fused.out[0]);
    OpCall& router = row_call(cpu::linear, fused);
    router.parts.push_back(part_of({op.router, {}}, moe->logits));
    need_scratch(std::max(cpu::linear_scratch(router), cpu::moe_scratch(*moe)));
    for (OpFn fn : {cpu::moe_route, cpu::moe_gate_up, cpu::moe_down, cpu::moe_combine}) {
      OpCall& call = row_call(fn, fused);
      call.moe = moe;
      call.out = rows_of(fused.out[0]);
    }
    release_moe(*moe);
    quantize_after(fused.out[0]);
  }

  // Buffers for the worst case: every token's experts computed in one step.
  void place_moe(cpu::MoeCall& moe, const MoeOp& op, int width) {
    const auto inner = static_cast<int>(graph_.weights().at(op.experts[0].gate).n);
    const auto place_rows = [&](ValueRows& rows, ActFormat format, int columns) {
      Rows& placed = rows[static_cast<size_t>(format)];
      if (placed.offset < 0) placed = place(format, columns, false, op.top_k);
    };
    for (const MoeOp::Expert& expert : op.experts) {
      place_rows(moe.gathered, act_of(expert.gate), width);
      place_rows(moe.gathered, act_of(expert.up), width);
      place_rows(moe.hidden, act_of(expert.down), inner);
    }
    moe.logits = place(ActFormat::kF32, static_cast<int>(op.experts.size()));
    moe.product = place(ActFormat::kF32, width, false, op.top_k);
    moe.routes.stride = static_cast<int64_t>(round_up(static_cast<size_t>(cpu::moe_route_bytes(op)), kCacheLine));
    moe.routes.offset = arena_.take(moe.routes.stride * plan_.max_rows);
    moe.groups.offset = arena_.take(cpu::moe_group_bytes(op, plan_.max_rows));
  }

  void release_moe(const cpu::MoeCall& moe) {
    for (const ValueRows* rows : {&moe.gathered, &moe.hidden})
      for (Rows placed : *rows) release(placed);
    for (Rows placed : {moe.logits, moe.product, moe.routes, moe.groups}) release(placed);
  }

  // A norm that only this linear reads becomes part of it: with few rows every thread makes them for itself. Its own
  // input must outlive the linear, whose output would otherwise take its place too early.
  std::shared_ptr<const OpCall> take_norm(const FusedOp& fused, int index) {
    if (index == 0 || screen_of(fused) != nullptr) return nullptr;
    const FusedOp& before = ops_[static_cast<size_t>(index) - 1];
    const ValueId rows = fused.in[0];
    if (!std::holds_alternative<NormOp>(before.op->params) || before.out[0] != rows) return nullptr;
    if (last_use_[static_cast<size_t>(rows)] != index || last_use_[static_cast<size_t>(before.in[0])] <= index)
      return nullptr;
    auto norm = std::make_shared<const OpCall>(std::move(plan_.calls.back()));
    plan_.calls.pop_back();
    return norm;
  }

  void need_scratch(int64_t bytes) {
    plan_.scratch_bytes =
        std::max(plan_.scratch_bytes, static_cast<int64_t>(round_up(static_cast<size_t>(bytes), 4096)));
  }

  const Graph& graph_;
  const KernelTable& kernels_;
  KvType kv_;
  int max_context_;
  std::vector<FusedOp> ops_;
  std::vector<Needs> needs_;
  std::vector<ValueRows> values_;
  std::vector<int> last_use_;
  std::vector<bool> refined_;  // by value: quantised twice, the second time what the first left over
  std::vector<bool> cached_;   // by value: keys and values
  int last_of_all_;            // the op that last_of_all_tokens finds
  ArenaPlanner arena_;
  Plan plan_;
};

}  // namespace

Plan make_plan(const Graph& graph, const KernelTable& kernels, KvType kv, int max_rows, int max_context) {
  OCTAVO_CHECK(graph.output() >= 0, "[plan] the graph has no output.");
  OCTAVO_CHECK(max_rows > 0 && max_context > 0, "[plan] needs at least one row and one token of context.");
  return Planner(graph, kernels, kv, max_rows, max_context).run();
}

}  // namespace octavo
