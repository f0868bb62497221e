// The whole engine on models of named shapes with random weights: decoding for 1 and 32 requests, prefill, and 32
// requests of 128 tokens in and 128 out.
//
//   bench_engine [--models=smollm2-135m,llama-3.2-1b] [--formats=Q4_0,Q8_0,BF16] [--threads=N] [Google Benchmark's
//   flags]
//
// GB/s counts the weights once per step (decode), GOP/s two operations per weight and token (prefill).
#include <cstdlib>
#include <iostream>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "bench_util.h"
#include "engine/engine.h"
#include "random_model.h"

namespace octavo::bench {
namespace {

constexpr int kMaxTokens = 512;  // of one step
constexpr int kMaxContext = 1024;
constexpr int kMaxSeqs = 64;

// A model, ready to run; its prompts are never the same, so that no prefix is found in the cache.
class Served {
 public:
  Served(const ModelShape& shape, Format format, int n_threads)
      : model(shape, format, n_threads),
        executor_(executor_config(shape, n_threads), model.body(), model.head()),
        engine_(engine_config(), executor_) {}

  const RandomModel model;

  std::vector<int64_t> add(int n_seqs, int n_prompt, int n_output) {
    std::vector<int64_t> ids;
    for (int s = 0; s < n_seqs; ++s) {
      SequenceSpec spec;
      for (int i = 0; i < n_prompt; ++i)
        spec.prompt.push_back(static_cast<Token>(random_() % static_cast<unsigned>(model.shape().vocab)));
      spec.sampling.temperature = 0;
      spec.sampling.max_tokens = n_output;
      spec.sampling.ignore_eos = true;
      ids.push_back(engine_.add(std::move(spec)));
    }
    return ids;
  }

  // Steps until every sequence has its first token.
  void run_prefill(const std::vector<int64_t>& ids) {
    for (size_t n_started = 0; n_started < ids.size();) {
      engine_.run(ids, true, kForever, {}, {});
      for (const SequenceView& view : engine_.updates(ids))
        n_started += view.times.first_token == view.times.last_token;
    }
  }

  void run_to_end(const std::vector<int64_t>& ids) {
    engine_.run(ids, false, kForever, {}, {});
    for (const SequenceView& view : engine_.updates(ids)) OCTAVO_CHECK(view.error.empty(), view.error);
    engine_.remove(ids);
  }

  EngineStats stats() const { return engine_.stats(); }

 private:
  static constexpr double kForever = 1e9;

  static ExecutorConfig executor_config(const ModelShape& shape, int n_threads) {
    const int64_t token_bytes = int64_t{2} * 2 * shape.kv_size() * shape.n_layers;
    return {n_threads, KvType::kBF16, kMaxTokens, kMaxContext, token_bytes * kMaxSeqs * kMaxContext};
  }
  static EngineConfig engine_config() {
    EngineConfig config;
    config.scheduler.max_num_seqs = kMaxSeqs;
    config.scheduler.max_num_batched_tokens = kMaxTokens;
    config.scheduler.max_model_len = kMaxContext;
    config.enable_prefix_caching = false;
    return config;
  }

  Executor executor_;
  Engine engine_;
  std::mt19937 random_{11};
};

// The model of the row before, where it is the same.
Served& served(const ModelShape& shape, Format format, int n_threads) {
  static std::unique_ptr<Served> current;
  static std::tuple<std::string_view, Format> key;
  if (!current || key != std::tuple(shape.name, format)) {
    current.reset();
    current = std::make_unique<Served>(shape, format, n_threads);
    key = {shape.name, format};
  }
  return *current;
}

struct Row {
  const ModelShape* shape;
  Format format;
  int n_threads;
};

// Output tokens per second after all sequences have begun.
void bench_decode(benchmark::State& state, const Row& row, int n_seqs) {
  Served& server = served(*row.shape, row.format, row.n_threads);
  int64_t n_tokens = 0, n_steps = 0;
  const PassTimes times = time_passes(state, [&] {
    const std::vector<int64_t> ids = server.add(n_seqs, 16, 129);
    server.run_prefill(ids);
    const EngineStats before = server.stats();
    const double start = now();
    server.run_to_end(ids);
    const double seconds = now() - start;
    n_tokens += server.stats().n_output_tokens - before.n_output_tokens;
    n_steps += server.stats().n_steps - before.n_steps;
    return seconds;
  });
  state.counters["tok/s"] = static_cast<double>(n_tokens) / times.seconds;
  state.counters["s/step"] = times.seconds / static_cast<double>(n_steps);
  const double weights = static_cast<double>(server.model.body_weights() + server.model.head_weights());
  count_bytes(state, static_cast<double>(server.model.weight_bytes() * n_steps) / times.seconds, row.n_threads);
  count_operations(state, 2 * weights * static_cast<double>(n_tokens) / times.seconds, server.model.multiply(),
                   row.n_threads);
}

void bench_prefill(benchmark::State& state, const Row& row, int n_prompt) {
  Served& server = served(*row.shape, row.format, row.n_threads);
  const PassTimes times = time_passes(state, [&] {
    const std::vector<int64_t> ids = server.add(1, n_prompt, 1);
    const double start = now();
    server.run_to_end(ids);
    return now() - start;
  });
  state.counters["tok/s"] = n_prompt / times.mean();
  const double weights =
      static_cast<double>(server.model.body_weights()) * n_prompt + static_cast<double>(server.model.head_weights());
  count_operations(state, 2 * weights / times.mean(), server.model.multiply(), row.n_threads);
}

// Output tokens per second of requests that come together, prefill included.
void bench_batch(benchmark::State& state, const Row& row, int n_seqs) {
  constexpr int kLength = 128;
  Served& server = served(*row.shape, row.format, row.n_threads);
  const PassTimes times = time_passes(state, [&] {
    const std::vector<int64_t> ids = server.add(n_seqs, kLength, kLength);
    const double start = now();
    server.run_to_end(ids);
    return now() - start;
  });
  state.counters["tok/s"] = n_seqs * kLength / times.mean();
  const double weights = static_cast<double>(2 * server.model.body_weights() + server.model.head_weights());
  count_operations(state, 2 * weights * n_seqs * kLength / times.mean(), server.model.multiply(), row.n_threads);
}

struct Options {
  std::string models = "smollm2-135m,llama-3.2-1b";
  std::string formats = "Q4_0,Q8_0,BF16";
  int n_threads = usable_cpus();
};

// Takes this program's own flags out of the arguments.
Options take_options(int& argc, char** argv) {
  Options options;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg.rfind("--models=", 0) == 0)
      options.models = arg.substr(9);
    else if (arg.rfind("--formats=", 0) == 0)
      options.formats = arg.substr(10);
    else if (arg.rfind("--threads=", 0) == 0)
      options.n_threads = std::max(1, std::atoi(arg.c_str() + 10));
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  return options;
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

const ModelShape& shape_named(const std::string& name) {
  for (const ModelShape& shape : kShapes)
    if (shape.name == name) return shape;
  fail("There is no model ", name, "; the names are smollm2-135m and llama-3.2-1b.");
}

Format format_named(const std::string& name) {
  const auto format = format_from_name(name);
  OCTAVO_CHECK(format.has_value(), "There is no weight format ", name, "; names are as in GGUF, e.g. Q8_0.");
  return *format;
}

using Bench = void (*)(benchmark::State&, const Row&, int);

void add_row(const Row& row, const char* what, Bench bench, int n) {
  const std::string name = concat("engine/", row.shape->name, "/", format_row(row.format).name, "/", what, ":", n,
                                  "/threads:", row.n_threads);
  benchmark::RegisterBenchmark(name.c_str(), bench, row, n)->UseManualTime()->Unit(benchmark::kMillisecond);
}

void register_rows(const Options& options) {
  for (const std::string& model : split(options.models)) {
    for (const std::string& format : split(options.formats)) {
      const Row row{&shape_named(model), format_named(format), options.n_threads};
      for (const int n_seqs : {1, 32}) add_row(row, "decode_seqs", bench_decode, n_seqs);
      add_row(row, "prefill_tokens", bench_prefill, 512);
      add_row(row, "128_in_128_out_seqs", bench_batch, 32);
    }
  }
}

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  using namespace octavo;
  try {
    bench::register_rows(bench::take_options(argc, argv));
    return bench::run(argc, argv);
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
