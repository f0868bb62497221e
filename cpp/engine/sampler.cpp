#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/select.h"

namespace octavo {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The candidates after top_k: ids ascending and their logits.
void list_candidates(const float* logits, int vocab, int top_k, SamplerScratch& scratch) {
  float least = -kInfinity;
  if (top_k > 0 && top_k < vocab) {
    const std::span values(logits, static_cast<size_t>(vocab));
    const Cut cut = find_cut<Weigh::kByCount>(values, top_k, scratch.keys);
    if (cut.key != 0) least = from_order_key(cut.key);
  }
  scratch.ids.resize(static_cast<size_t>(vocab));
  scratch.values.resize(static_cast<size_t>(vocab));
  size_t n = 0;
  for (int id = 0; id < vocab; ++id) {
    scratch.ids[n] = id;
    scratch.values[n] = logits[id];
    n += logits[id] >= least && logits[id] > -kInfinity;
  }
  scratch.ids.resize(n);
  scratch.values.resize(n);
}

// Keeps the candidates for which keep(i) holds.
template <class Keep>
void filter_candidates(SamplerScratch& scratch, Keep&& keep) {
  size_t n = 0;
  for (size_t i = 0; i < scratch.ids.size(); ++i) {
    if (!keep(i)) continue;
    scratch.ids[n] = scratch.ids[i];
    scratch.values[n] = scratch.values[i];
    scratch.probs[n] = scratch.probs[i];
    ++n;
  }
  scratch.ids.resize(n);
  scratch.values.resize(n);
  scratch.probs.resize(n);
}

// Of equally likely candidates at the edge, those with the lower ids stay.
void keep_top_p(float top_p, SamplerScratch& scratch) {
  const double total = std::accumulate(scratch.probs.begin(), scratch.probs.end(), 0.0);
  const Cut cut = find_cut<Weigh::kByMass>(scratch.probs, double{top_p} * total, scratch.keys);
  int n_equal = 0;
  filter_candidates(scratch, [&](size_t i) {
    const uint32_t key = order_key(scratch.probs[i]);
    return key > cut.key || (key == cut.key && n_equal++ < cut.n_equal);
  });
}

// What can still be sampled, with exp((logit - max) / temperature).
void narrow_candidates(const float* logits, int vocab, float max, const SamplingConfig& config,
                       const KernelTable& table, SamplerScratch& scratch) {
  list_candidates(logits, vocab, config.top_k, scratch);
  const int n = static_cast<int>(scratch.ids.size());
  scratch.probs.resize(scratch.ids.size());
  table.exp_sum(scratch.probs.data(), scratch.values.data(), n, max, 1.0f / config.temperature);
  const float least = std::max(config.min_p, std::numeric_limits<float>::min());
  filter_candidates(scratch, [&](size_t i) { return scratch.probs[i] >= least; });
  if (config.top_p < 1.0f) keep_top_p(config.top_p, scratch);
}

// The exponential race: the candidate with the smallest -log(1 - u) / p wins, which is a draw from p. Since
// -log(1 - u) >= u, most candidates lose without a logarithm.
Token race(const SamplerScratch& scratch, const NoiseKey& noise, uint32_t position) {
  Token winner = scratch.ids.front();
  double best = std::numeric_limits<double>::infinity();
  PhiloxCounter words{};
  uint32_t group = std::numeric_limits<uint32_t>::max();
  for (size_t i = 0; i < scratch.ids.size(); ++i) {
    const auto id = static_cast<uint32_t>(scratch.ids[i]);
    if (id / 4 != group) {
      group = id / 4;
      words = noise_words(noise, position, group);
    }
    const double u = uniform(words[id % 4]);
    const double p = scratch.probs[i];
    if (u > best * p) continue;
    const double time = -std::log1p(-u) / p;
    if (time < best) {
      best = time;
      winner = scratch.ids[i];
    }
  }
  return winner;
}

// Leaves the candidates in scratch.
Token choose(const float* logits, int vocab, const SamplingConfig& config, const NoiseKey& noise, uint32_t position,
             const KernelTable& table, SamplerScratch& scratch) {
  const Token top = table.argmax(logits, vocab);
  const float max = logits[top];
  if (!(max > -kInfinity)) return -1;
  if (config.greedy()) return top;
  if (max == kInfinity) {
    scratch.ids.assign(1, top);
    scratch.values.assign(1, max);
    return top;
  }
  narrow_candidates(logits, vocab, max, config, table, scratch);
  return race(scratch, noise, position);
}

bool is_raw(LogprobsMode mode) { return mode == LogprobsMode::kRawLogprobs || mode == LogprobsMode::kRawLogits; }

bool is_normalised(LogprobsMode mode) {
  return mode == LogprobsMode::kRawLogprobs || mode == LogprobsMode::kProcessedLogprobs;
}

// The row as it was sampled from: candidates over temperature, all else -inf.
void write_processed(float* logits, int vocab, const SamplingConfig& config, const SamplerScratch& scratch) {
  if (config.greedy()) return;
  std::fill_n(logits, vocab, -kInfinity);
  for (size_t i = 0; i < scratch.ids.size(); ++i) {
    logits[scratch.ids[i]] = scratch.values[i] * (1.0f / config.temperature);
  }
}

}  // namespace

void sample_row(SampledToken& out, float* logits, int vocab, const SamplingConfig& config, const TokenHistory& history,
                const NoiseKey& noise, const KernelTable& table, SamplerScratch& scratch, const HostChanges& host) {
  const int position = static_cast<int>(history.output.size());
  const float* raw = host.raw != nullptr ? host.raw : logits;
  const bool report_raw = config.logprobs && is_raw(config.logprobs_mode);
  if (report_raw && raw == logits && (host.mask != nullptr || alters_logits(config, position))) {
    scratch.raw.assign(logits, logits + vocab);
    raw = scratch.raw.data();
  }
  if (host.mask != nullptr) apply_mask(logits, vocab, host.mask);
  process_logits(logits, vocab, config, history, scratch);
  out.id = choose(logits, vocab, config, noise, static_cast<uint32_t>(position), table, scratch);
  if (!config.logprobs || out.id < 0) return;
  if (!report_raw) write_processed(logits, vocab, config, scratch);
  logprob_row(out.logprobs, report_raw ? raw : logits, vocab, out.id, *config.logprobs, config.logprob_token_ids,
              is_normalised(config.logprobs_mode), table, scratch.logprobs);
}

void prompt_logprob_row(TokenLogprobs& out, const float* logits, int vocab, Token target, const SamplingConfig& config,
                        const KernelTable& table, SamplerScratch& scratch) {
  logprob_row(out, logits, vocab, target, *config.prompt_logprobs, config.prompt_logprob_token_ids,
              is_normalised(config.logprobs_mode), table, scratch.logprobs);
}

}  // namespace octavo
