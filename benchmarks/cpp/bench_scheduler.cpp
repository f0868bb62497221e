// The scheduler and the block pool without a model: sequences arrive together and run to their end, each step's tokens
// being made up. steps/s is what bounds a model that computes in no time.
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "bench_util.h"
#include "engine/scheduler.h"

namespace octavo::bench {
namespace {

struct Load {
  const char* name;
  int n_seqs;
  int n_prompt;
  int n_shared;  // first tokens that all prompts have in common
  int n_output;
  int n_blocks;  // few: sequences preempt each other
};

struct Run {
  int64_t n_steps = 0;
  int64_t n_tokens = 0;
};

std::unique_ptr<Sequence> make_sequence(const Load& load, int number) {
  auto seq = std::make_unique<Sequence>();
  seq->id = number;
  for (int i = 0; i < load.n_prompt; ++i) seq->tokens.push_back(i < load.n_shared ? i : 1000 + number + i * 7919);
  seq->n_prompt = load.n_prompt;
  seq->sampling.max_tokens = load.n_output;
  return seq;
}

void commit(Scheduler& scheduler, const ScheduledBatch& batch, int max_model_len) {
  std::vector<Sequence*> sampled;
  for (const ScheduledTokens& item : batch.items)
    if (item.reaches_end()) sampled.push_back(item.seq);
  scheduler.commit(batch);
  for (Sequence* seq : sampled) {
    append_token(*seq, seq->n_tokens() % 1000, max_model_len);
    if (seq->finished()) scheduler.finish(*seq, seq->finish);
  }
}

Run run_all(Scheduler& scheduler, int max_model_len) {
  Run run;
  while (scheduler.has_work()) {
    const ScheduledBatch batch = scheduler.schedule();
    if (batch.items.empty()) break;  // the rest fits nowhere
    commit(scheduler, batch, max_model_len);
    ++run.n_steps;
    run.n_tokens += batch.n_tokens;
  }
  return run;
}

void bench_load(benchmark::State& state, const Load& load, int max_num_seqs) {
  SchedulerConfig config;
  config.max_num_seqs = max_num_seqs;
  config.max_num_batched_tokens = 2048;
  Run total;
  const PassTimes times = time_passes(state, [&] {
    BlockPool pool(load.n_blocks, kKvTile);
    std::vector<std::unique_ptr<Sequence>> sequences;
    for (int i = 0; i < load.n_seqs; ++i) sequences.push_back(make_sequence(load, i));
    const double start = now();
    Scheduler scheduler(config, pool);
    for (const auto& seq : sequences) scheduler.add(*seq);
    const Run run = run_all(scheduler, config.max_model_len);
    total.n_steps += run.n_steps;
    total.n_tokens += run.n_tokens;
    return now() - start;
  });
  const auto passes = static_cast<double>(std::max<int64_t>(times.passes, 1));
  state.counters["steps/s"] = static_cast<double>(total.n_steps) / times.seconds;
  state.counters["tokens/s"] = static_cast<double>(total.n_tokens) / times.seconds;
  state.counters["sequences/s"] = load.n_seqs * passes / times.seconds;
  state.counters["s/step"] = times.seconds / static_cast<double>(total.n_steps);
}

constexpr Load kLoads[] = {
    {"fresh", 256, 128, 0, 128, 1 << 16},           {"fresh", 4096, 128, 0, 128, 1 << 16},
    {"shared_prefix", 256, 1024, 960, 64, 1 << 16}, {"shared_prefix", 4096, 1024, 960, 64, 1 << 16},
    {"scarce_blocks", 256, 128, 0, 128, 512},
};

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  using namespace octavo;
  for (const bench::Load& load : bench::kLoads) {
    for (const int max_num_seqs : {64, 1024}) {
      const std::string name = concat("scheduler/", load.name, "/seqs:", load.n_seqs, "/max_num_seqs:", max_num_seqs);
      benchmark::RegisterBenchmark(name.c_str(), bench::bench_load, load, max_num_seqs)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  return bench::run(argc, argv);
}
