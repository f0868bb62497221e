// Sampling one token from one row of logits by one thread. GB/s counts the row once: each further pass over the
// vocabulary that a method needs shows as a smaller share of the bandwidth (above 1: the row stays in the cache).
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "bench_util.h"
#include "engine/sampler.h"

namespace octavo::bench {
namespace {

struct Method {
  const char* name;
  SamplingConfig config;
};

std::vector<Method> methods() {
  const auto with = [](auto change) {
    SamplingConfig config;
    change(config);
    return config;
  };
  return {
      {"greedy", with([](auto& c) { c.temperature = 0; })},
      {"temperature", with([](auto& c) { c.temperature = 0.8f; })},
      {"top_k", with([](auto& c) { c.temperature = 0.8f, c.top_k = 50; })},
      {"top_p", with([](auto& c) { c.temperature = 0.8f, c.top_p = 0.9f; })},
      {"min_p", with([](auto& c) { c.temperature = 0.8f, c.min_p = 0.05f; })},
      {"top_k_top_p", with([](auto& c) { c.temperature = 0.8f, c.top_k = 50, c.top_p = 0.9f; })},
      {"penalties", with([](auto& c) { c.temperature = 0, c.repetition_penalty = 1.1f, c.frequency_penalty = 0.1f; })},
      {"greedy_logprobs_5", with([](auto& c) { c.temperature = 0, c.logprobs = 5; })},
      {"temperature_logprobs_20", with([](auto& c) { c.temperature = 0.8f, c.logprobs = 20; })},
  };
}

// Like a model's: most of the mass on few tokens.
std::vector<float> random_logits(int vocab) {
  std::mt19937 random(3);
  std::normal_distribution<float> logit(0.0f, 3.0f);
  std::vector<float> row(static_cast<size_t>(vocab));
  std::generate(row.begin(), row.end(), [&] { return logit(random); });
  return row;
}

std::vector<Token> random_tokens(int n, int vocab) {
  std::mt19937 random(5);
  std::vector<Token> tokens(static_cast<size_t>(n));
  std::generate(tokens.begin(), tokens.end(),
                [&] { return static_cast<Token>(random() % static_cast<unsigned>(vocab)); });
  return tokens;
}

void bench_sample(benchmark::State& state, const SamplingConfig& config, int vocab) {
  const std::vector<float> logits = random_logits(vocab);
  const std::vector<Token> prompt = random_tokens(512, vocab);
  std::vector<Token> output = random_tokens(128, vocab);
  std::vector<float> row;
  SamplerScratch scratch;
  SampledToken sampled;
  uint64_t seed = 0;
  const PassTimes times = time_passes(state, [&] {
    row = logits;  // sampling clobbers it
    const double start = now();
    sample_row(sampled, row.data(), vocab, config, {prompt, output}, seeded_noise(++seed, 0), kernels(), scratch);
    return now() - start;
  });
  state.counters["rows/s"] = 1 / times.mean();
  count_bytes(state, 4.0 * vocab / times.mean(), 1);
}

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  using namespace octavo;
  for (const bench::Method& method : bench::methods()) {
    for (const int vocab : {49152, 128256, 262144}) {
      const std::string name = concat("sampler/", method.name, "/vocab:", vocab);
      benchmark::RegisterBenchmark(name.c_str(), bench::bench_sample, method.config, vocab)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  return bench::run(argc, argv);
}
