// Paged attention of all layers of real models: prefill of 512 tokens and decode over 512 and 4096 tokens of context.
//
// Every layer has keys and values of its own, so a pass reads what a step of the model reads. GB/s counts the keys and
// values of the context once per sequence and layer, GOP/s the two products of every query head with the keys it may
// see; multiply_% is a share of the multiply-adds that bf16 weights are multiplied with here.
#include <cmath>
#include <string>

#include "base/check.h"
#include "bench_util.h"
#include "graph/cpu_ops.h"
#include "graph/graph.h"
#include "plan_runner.h"
#include "shapes.h"

namespace octavo::bench {
namespace {

struct Case {
  const ModelShape* shape;
  int n_seqs;
  int n_known;  // tokens of context, the new ones included
  int n_new;    // tokens of each sequence that are computed
  int n_threads;

  double kv_bytes() const { return 2.0 * n_seqs * n_known * shape->kv_size() * sizeof(uint16_t) * shape->n_layers; }
  // Query i sees all before the new tokens and i + 1 of them.
  double operations() const {
    const double pairs = static_cast<double>(n_new) * (n_known - n_new) + 0.5 * n_new * (n_new + 1.0);
    return 4.0 * n_seqs * pairs * shape->q_size() * shape->n_layers;
  }
};

// Attention of every layer over the same queries, keys and values.
class AttentionModel {
 public:
  explicit AttentionModel(const ModelShape& shape)
      : shape_(shape),
        store_(1),
        q_(Format::kF32, 64, shape.q_size(), 1.0f),
        kv_(Format::kF32, 64, shape.kv_size(), 1.0f) {
    q_table_ = store_.add_embedding(q_.source());
    kv_table_ = store_.add_embedding(kv_.source());
  }

  Graph graph() const {
    Graph graph(store_);
    const ValueId q = graph.embed(q_table_), k = graph.embed(kv_table_), v = graph.embed(kv_table_);
    ValueId out = q;
    for (int layer = 0; layer < shape_.n_layers; ++layer) {
      const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
      out = graph.attention(q, k, v, {layer, shape_.n_heads, shape_.n_kv_heads, shape_.head_dim, -1, 0, scale, 0});
    }
    graph.set_output(out);
    return graph;
  }

 private:
  ModelShape shape_;
  WeightStore store_;
  RandomMatrix q_, kv_;
  WeightId q_table_, kv_table_;
};

void bench_attention(benchmark::State& state, const Case& c) {
  const AttentionModel model(*c.shape);
  const Graph graph = model.graph();
  const PagedBatch paged(c.n_seqs, c.n_known, c.n_new);
  PlanRunner runner(graph, c.n_threads, paged.batch.n_tokens(), c.n_known, static_cast<int>(paged.blocks.size()));
  runner.run_all(paged.batch);
  const PassTimes times = time_passes(
      state, [&] { return runner.run(paged.batch, [](const OpCall& call) { return call.fn == cpu::attention; }); });
  state.counters["s/layer"] = times.mean() / c.shape->n_layers;
  count_bytes(state, c.kv_bytes() / times.mean(), c.n_threads);
  count_operations(state, c.operations() / times.mean(), multiply_of(Format::kBF16), c.n_threads);
}

void register_case(const std::string& what, const Case& c) {
  const std::string heads = concat(c.shape->n_heads, "/", c.shape->n_kv_heads, "x", c.shape->head_dim);
  const std::string name = concat("attention/", what, "/heads:", heads, "/context:", c.n_known, "/seqs:", c.n_seqs,
                                  "/threads:", c.n_threads);
  benchmark::RegisterBenchmark(name.c_str(), bench_attention, c)->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  using namespace octavo;
  for (const bench::ModelShape& shape : bench::kShapes) {
    for (const int n_threads : bench::thread_counts()) {
      bench::register_case("prefill", {&shape, 1, 512, 512, n_threads});
      for (const int n_known : {512, 4096})
        for (const int n_seqs : {1, 8}) bench::register_case("decode", {&shape, n_seqs, n_known, 1, n_threads});
    }
  }
  return bench::run(argc, argv);
}
