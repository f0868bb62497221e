// The processors that change logits before a token is chosen.
#include <algorithm>
#include <limits>

#include "engine/sampler.h"

namespace octavo {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

bool in_vocab(Token id, int vocab) { return id >= 0 && id < vocab; }

void mask(float* logits, int vocab, std::span<const Token> ids) {
  for (const Token id : ids) {
    if (in_vocab(id, vocab)) logits[id] = kMasked;
  }
}

void keep_allowed(float* logits, int vocab, std::span<const Token> allowed, std::vector<float>& kept) {
  kept.clear();
  for (const Token id : allowed) kept.push_back(in_vocab(id, vocab) ? logits[id] : kMasked);
  std::fill_n(logits, vocab, kMasked);
  for (size_t i = 0; i < allowed.size(); ++i) {
    if (in_vocab(allowed[i], vocab)) logits[allowed[i]] = kept[i];
  }
}

// Masks the last token of each sequence whose other tokens end the output.
void mask_bad_words(float* logits, int vocab, const std::vector<std::vector<Token>>& words,
                    std::span<const Token> output) {
  for (const std::vector<Token>& word : words) {
    const size_t n_before = word.size() - 1;
    if (n_before > output.size()) continue;
    if (std::equal(word.begin(), word.end() - 1, output.end() - static_cast<std::ptrdiff_t>(n_before))) {
      mask(logits, vocab, std::span(word).last(1));
    }
  }
}

void penalise(float& logit, int n_in_output, const SamplingConfig& config) {
  const float repetition = config.repetition_penalty;
  if (repetition != 1.0f) logit = logit > 0 ? logit / repetition : logit * repetition;
  if (n_in_output == 0) return;
  logit -= config.frequency_penalty * static_cast<float>(n_in_output);
  logit -= config.presence_penalty;
}

// Each id of the history is penalised once. counts is all zero on entry and on return.
void apply_penalties(float* logits, int vocab, const SamplingConfig& config, const TokenHistory& history,
                     std::vector<int32_t>& counts) {
  if (counts.size() < static_cast<size_t>(vocab)) counts.resize(static_cast<size_t>(vocab));
  constexpr int32_t kDone = -1;
  for (const Token id : history.output) {
    if (in_vocab(id, vocab)) ++counts[static_cast<size_t>(id)];
  }
  const auto visit = [&](std::span<const Token> ids, auto&& action) {
    for (const Token id : ids) {
      if (in_vocab(id, vocab)) action(id, counts[static_cast<size_t>(id)]);
    }
  };
  const auto penalise_once = [&](Token id, int32_t& count) {
    if (count != kDone) penalise(logits[id], count, config);
    count = kDone;
  };
  const auto reset = [](Token, int32_t& count) { count = 0; };
  visit(history.output, penalise_once);
  if (config.repetition_penalty != 1.0f) visit(history.prompt, penalise_once);
  visit(history.output, reset);
  visit(history.prompt, reset);
}

bool has_penalties(const SamplingConfig& config) {
  return config.repetition_penalty != 1.0f || config.frequency_penalty != 0.0f || config.presence_penalty != 0.0f;
}

// Whether the host's mask leaves nothing but what ends an output: its grammar is over, and wins over min_tokens.
bool only_ends_left(const float* logits, int vocab, const SamplingConfig& config) {
  const auto in = [](const std::vector<Token>& ids, Token id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  for (Token id = 0; id < vocab; ++id) {
    if (logits[id] > kMasked && !in(config.eos_token_ids, id) && !in(config.stop_token_ids, id)) return false;
  }
  return config.host_mask;
}

}  // namespace

void apply_mask(float* logits, int vocab, const uint32_t* mask) {
  for (int first = 0; first < vocab; first += 32) {
    const uint32_t word = mask[first / 32];
    if (word == 0) {
      std::fill_n(logits + first, std::min(32, vocab - first), kMasked);
      continue;
    }
    for (int id = first; id < std::min(first + 32, vocab); ++id) {
      if ((word >> (id - first) & 1) == 0) logits[id] = kMasked;
    }
  }
}

bool alters_logits(const SamplingConfig& config, int n_output) {
  return !config.allowed_token_ids.empty() || !config.bad_words.empty() || !config.logit_bias.empty() ||
         n_output < config.min_tokens || has_penalties(config);
}

void process_logits(float* logits, int vocab, const SamplingConfig& config, const TokenHistory& history,
                    SamplerScratch& scratch) {
  if (!config.allowed_token_ids.empty()) keep_allowed(logits, vocab, config.allowed_token_ids, scratch.values);
  mask_bad_words(logits, vocab, config.bad_words, history.output);
  if (history.output.size() < static_cast<size_t>(config.min_tokens) && !only_ends_left(logits, vocab, config)) {
    mask(logits, vocab, config.eos_token_ids);
    mask(logits, vocab, config.stop_token_ids);
  }
  for (const TokenBias& entry : config.logit_bias) {
    if (in_vocab(entry.id, vocab)) logits[entry.id] += entry.bias;
  }
  if (has_penalties(config)) apply_penalties(logits, vocab, config, history, scratch.counts);
}

}  // namespace octavo
