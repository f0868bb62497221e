// Linears of real layers as a plan runs them: every format, 1 to 512 tokens, one thread and all.
//
// GB/s counts the weights as stored, GOP/s two operations per weight and token; read_% and multiply_% are shares of
// the machine's peaks. Few tokens are bound by reading, many by multiplying.
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "bench_util.h"
#include "graph/cpu_ops.h"
#include "graph/graph.h"
#include "plan_runner.h"
#include "quant/planes.h"
#include "shapes.h"

namespace octavo::bench {
namespace {

// How weights are stored: in a format of the table, or as AQLM.
struct Scheme {
  std::string name;
  Format format;
  int n_codebooks = 0, bits = 0;  // AQLM

  bool is_aqlm() const { return n_codebooks > 0; }
  Multiply multiply() const { return is_aqlm() && bits == 8 ? Multiply::kF32 : multiply_of(format); }
};

Scheme scheme_of(const FormatRow& row) { return {row.name, row.format}; }
Scheme aqlm(int n_codebooks, int bits) {
  return {concat("AQLM-", n_codebooks, "x", bits), Format::kBF16, n_codebooks, bits};
}

enum class Kind : uint8_t { kPlain, kGated, kResidual };

// One op: several matrices (n, k) over the same input.
struct Linear {
  std::string name;
  std::vector<int> n;
  int k;
  Kind kind;
  int max_tokens = 512;

  int64_t weights() const {
    int64_t sum = 0;
    for (const int rows : n) sum += int64_t{rows} * k;
    return sum;
  }
};

std::vector<Linear> linears_of(const ModelShape& m) {
  const std::string prefix = std::string(m.name) + ".";
  return {
      {prefix + "qkv", {m.q_size(), m.kv_size(), m.kv_size()}, m.hidden, Kind::kPlain},
      {prefix + "o", {m.hidden}, m.q_size(), Kind::kResidual},
      {prefix + "gate_up", {m.intermediate, m.intermediate}, m.hidden, Kind::kGated},
      {prefix + "down", {m.hidden}, m.intermediate, Kind::kResidual},
      {prefix + "lm_head", {m.vocab}, m.hidden, Kind::kPlain, 64},
  };
}

// Weights that a pass goes through: caches of 32 MiB still answer a part of three times as much.
constexpr int64_t kColdBytes = int64_t{256} << 20;
constexpr double kPassOperations = 4e9;  // about what a pass over many tokens does

// Copies of one op with weights of their own, so that each call finds them as cold as a model's layers are.
class LinearModel {
 public:
  LinearModel(const Linear& linear, const Scheme& scheme)
      : linear_(linear), store_(usable_cpus()), inputs_(Format::kF32, 64, linear.k, 1.0f) {
    for (const int n : linear.n) {
      if (scheme.is_aqlm())
        codes_.emplace_back(n, linear.k, scheme.n_codebooks, scheme.bits);
      else
        matrices_.emplace_back(scheme.format, n, linear.k);
    }
    add_copy();
    for (const WeightId id : copies_[0]) copy_bytes_ += stored_bytes(store_.at(id));
    for (int64_t bytes = copy_bytes_; bytes < kColdBytes; bytes += copy_bytes_) add_copy();
    input_table_ = store_.add_embedding(inputs_.source());
    if (linear.kind == Kind::kResidual) residual_ = std::make_unique<RandomMatrix>(Format::kF32, 64, linear.n[0], 1.0f);
    if (residual_) residual_table_ = store_.add_embedding(residual_->source());
    if (linear.kind == Kind::kGated) add_consumer(scheme.format);
  }

  int64_t copy_bytes() const { return copy_bytes_; }

  // The first n_calls copies; fewer for many tokens, where weights are used often enough to be worth fetching.
  int n_calls(int n_tokens) const {
    const auto all = static_cast<int>(copies_.size());
    if (n_tokens < 64) return all;
    const double operations = 2.0 * static_cast<double>(linear_.weights()) * n_tokens;
    return std::clamp(static_cast<int>(kPassOperations / operations), 1, all);
  }

  Graph graph(int n_calls) const {
    Graph graph(store_);
    const ValueId x = graph.embed(input_table_);
    ValueId out = residual_ ? graph.embed(residual_table_) : x;
    for (int i = 0; i < n_calls; ++i) {
      std::vector<LinearOp::Part> parts;
      for (const WeightId id : copies_[static_cast<size_t>(i)]) parts.push_back({id, std::nullopt});
      const std::vector<ValueId> values = graph.linear(x, std::move(parts));
      if (linear_.kind == Kind::kResidual) out = graph.add(out, values[0]);
      if (linear_.kind == Kind::kGated)
        graph.linear(graph.mul(graph.activation(values[0], Activation::kSilu), values[1]), {{consumer_, std::nullopt}});
    }
    graph.set_output(out);
    return graph;
  }

  bool is_call(const OpCall& call) const {
    return call.fn == cpu::linear && call.parts.size() == linear_.n.size() && call.parts[0].weight->n == linear_.n[0];
  }

 private:
  void add_copy() {
    std::vector<WeightId>& ids = copies_.emplace_back();
    for (const RandomMatrix& matrix : matrices_)
      ids.push_back(store_.add_linear(matrix.source(), matrix.format, false));
    for (const RandomCodes& codes : codes_) ids.push_back(store_.add_aqlm(codes.matrix(), Format::kBF16, false));
  }

  // Somebody must want a gated linear's output, in the format that a model's next linear wants.
  void add_consumer(Format format) {
    const bool fits = linear_.n[0] % format_row(format).block_size == 0;
    consumer_ = store_.add_linear(RandomMatrix(fits ? format : Format::kF32, kStrip, linear_.n[0]).source(),
                                  fits ? format : Format::kF32, false);
  }

  Linear linear_;
  WeightStore store_;
  RandomMatrix inputs_;
  std::unique_ptr<RandomMatrix> residual_;
  std::vector<RandomMatrix> matrices_;
  std::vector<RandomCodes> codes_;
  std::vector<std::vector<WeightId>> copies_;
  int64_t copy_bytes_ = 0;
  WeightId input_table_ = -1, residual_table_ = -1, consumer_ = -1;
};

// The model of the row before, as long as rows differ in tokens and threads only.
const LinearModel& model_for(const Linear& linear, const Scheme& scheme) {
  static std::unique_ptr<LinearModel> model;
  static std::tuple<std::string, std::string> key;
  if (!model || key != std::tuple(linear.name, scheme.name)) {
    model.reset();
    model = std::make_unique<LinearModel>(linear, scheme);
    key = {linear.name, scheme.name};
  }
  return *model;
}

void bench_linear(benchmark::State& state, const Linear& linear, const Scheme& scheme, int n_tokens, int n_threads) {
  const LinearModel& model = model_for(linear, scheme);
  const int n_calls = model.n_calls(n_tokens);
  const Graph graph = model.graph(n_calls);
  PlanRunner runner(graph, n_threads, n_tokens, n_tokens, 0);
  const PagedBatch paged(1, n_tokens, n_tokens);
  const auto is_call = [&](const OpCall& call) { return model.is_call(call); };
  OCTAVO_CHECK(std::count_if(runner.plan().calls.begin(), runner.plan().calls.end(), is_call) == n_calls,
               "[bench_gemm] the plan of ", linear.name, " has another number of linears than its graph.");
  runner.run_all(paged.batch);
  const PassTimes times = time_passes(state, [&] { return runner.run(paged.batch, is_call); });
  const double seconds = times.mean() / n_calls;
  state.counters["s/call"] = seconds;
  count_bytes(state, static_cast<double>(model.copy_bytes()) / seconds, n_threads);
  count_operations(state, 2.0 * static_cast<double>(linear.weights()) * n_tokens / seconds, scheme.multiply(),
                   n_threads);
}

void register_linear(const Linear& linear, const Scheme& scheme) {
  if (linear.k % format_row(scheme.format).block_size != 0) return;
  for (const int n_tokens : {1, 4, 16, 64, 512}) {
    if (n_tokens > linear.max_tokens) continue;
    for (const int n_threads : thread_counts()) {
      const std::string name =
          concat("gemm/", scheme.name, "/", linear.name, "/tokens:", n_tokens, "/threads:", n_threads);
      benchmark::RegisterBenchmark(name.c_str(), bench_linear, linear, scheme, n_tokens, n_threads)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
}

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  using namespace octavo;
  for (const FormatRow& row : all_formats())
    for (const bench::ModelShape& shape : bench::kShapes)
      for (const bench::Linear& linear : bench::linears_of(shape))
        bench::register_linear(linear, bench::scheme_of(row));
  for (const bench::Scheme& scheme :
       {bench::aqlm(2, 8), bench::aqlm(1, 16), bench::scheme_of(format_row(Format::kQ8_0))})
    for (const bench::Linear& linear : bench::linears_of(bench::kLlama2)) bench::register_linear(linear, scheme);
  return bench::run(argc, argv);
}
