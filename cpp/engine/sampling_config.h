// What one sequence asks of sampling and stopping. Plain values, validated and resolved before they arrive here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace octavo {

inline constexpr int kWholeVocabulary = -1;  // as a number of logprobs
inline constexpr float kGreedyTemperature = 1e-5f;

// What "logprobs" are made of: the row as the model gave it or as it was sampled from, normalised or not.
enum class LogprobsMode : uint8_t { kRawLogprobs, kRawLogits, kProcessedLogprobs, kProcessedLogits };

struct TokenBias {
  int32_t id;
  float bias;
};

// Ends an output whose last tokens are one pattern, min_count times in a row.
struct RepetitionDetection {
  int max_pattern_size = 0;  // 0: off
  int min_pattern_size = 1;
  int min_count = 2;
};

struct SamplingConfig {
  float temperature = 1.0f;  // below kGreedyTemperature: greedy
  float top_p = 1.0f;        // (0, 1], 1: off
  int top_k = 0;             // 0: off
  float min_p = 0.0f;        // [0, 1], 0: off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  std::optional<uint64_t> seed;

  int max_tokens = 16;
  int min_tokens = 0;
  std::vector<int32_t> eos_token_ids;   // stop without a stop reason, unless ignore_eos
  std::vector<int32_t> stop_token_ids;  // stop with the id as reason
  bool ignore_eos = false;
  std::vector<std::string> stop;  // UTF-8, none empty
  bool include_stop_str_in_output = false;
  RepetitionDetection repetition;
  bool detokenize = true;
  bool skip_special_tokens = true;

  std::optional<int> logprobs;                    // entries beside the sampled token, or kWholeVocabulary
  std::optional<int> prompt_logprobs;             // likewise for every prompt token but the first
  std::vector<int32_t> logprob_token_ids;         // reported beside those, where logprobs are
  std::vector<int32_t> prompt_logprob_token_ids;  // likewise for the prompt
  int prompt_logprob_start = 0;                   // first prompt position whose logprobs are wanted
  LogprobsMode logprobs_mode = LogprobsMode::kRawLogprobs;
  bool skip_prefix_cache = false;  // computes the whole prompt

  std::vector<TokenBias> logit_bias;
  std::vector<int32_t> allowed_token_ids;       // empty: all
  std::vector<std::vector<int32_t>> bad_words;  // no token sequence of these is completed in the output
  bool host_hook = false;                       // the row visits the host before it is sampled
  bool host_mask = false;                       // the host says which ids may follow

  bool greedy() const { return temperature < kGreedyTemperature; }
};

}  // namespace octavo
