// One sequence of tokens from admission to its end. Where it stands is told by counters, never by a mode:
//
//   0 ...... n_computed ...... n_computed + n_scheduled ...... tokens.size()
//   KV exists         computed in this step                    still to do
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/block_hash.h"
#include "engine/sampling_config.h"

namespace octavo {

enum class FinishReason : uint8_t { kNone, kStop, kLength, kAbort, kError, kRepetition };

struct Sequence {
  int64_t id = 0;
  int priority = 0;     // lower runs earlier, under the priority policy
  int64_t arrival = 0;  // set by the scheduler, unique

  std::vector<Token> tokens;  // prompt, then output
  int n_prompt = 0;
  int n_computed = 0;
  int n_scheduled = 0;
  // Attends to later tokens too: computed in one step, and its KV is no one else's.
  bool bidirectional = false;

  std::vector<int32_t> blocks;          // KV blocks in order of position
  std::vector<BlockHash> block_hashes;  // of the full blocks of tokens
  std::string cache_salt;               // all that KV depends on besides the tokens
  bool private_kv = false;              // and on more than that: neither taken from the prefix cache nor entered
  bool wants_all_rows = false;          // so that no token may come from the prefix cache

  SamplingConfig sampling;
  NoiseKey noise;

  FinishReason finish = FinishReason::kNone;
  Token stop_token = -1;  // the stop_token_ids entry that ended it; -1: none, or eos
  int stop_string = -1;   // index into sampling.stop
  std::string error;      // one sentence when finish is kError
  int n_cached = 0;       // prompt tokens taken from the prefix cache at first admission
  int n_preemptions = 0;

  int n_tokens() const { return static_cast<int>(tokens.size()); }
  int n_output() const { return n_tokens() - n_prompt; }
  int n_remaining() const { return n_tokens() - n_computed; }
  bool finished() const { return finish != FinishReason::kNone; }
  bool reads_cache() const { return !wants_all_rows && !sampling.prompt_logprobs && !sampling.skip_prefix_cache; }
  std::span<const Token> prompt() const { return {tokens.data(), static_cast<size_t>(n_prompt)}; }
  std::span<const Token> output() const {
    return std::span<const Token>(tokens).subspan(static_cast<size_t>(n_prompt));
  }
};

// Whether the output ends in one pattern repeated often enough.
inline bool repeats(std::span<const Token> output, const RepetitionDetection& config) {
  for (int size = config.min_pattern_size; size <= config.max_pattern_size; ++size) {
    const size_t n = static_cast<size_t>(size) * static_cast<size_t>(config.min_count);
    if (n > output.size()) return false;
    const std::span<const Token> tail = output.last(n);
    if (std::equal(tail.begin() + size, tail.end(), tail.begin())) return true;
  }
  return false;
}

// Appends a sampled token and decides whether it ends the sequence: eos, then stop ids, then length, then repetition.
// Before min_tokens neither of the first two does, but for an eos under a mask: its grammar left nothing else.
inline void append_token(Sequence& seq, Token token, int max_model_len) {
  const SamplingConfig& config = seq.sampling;
  const auto has = [token](const std::vector<Token>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  seq.tokens.push_back(token);
  const bool enough = seq.n_output() >= config.min_tokens;
  if ((enough || config.host_mask) && !config.ignore_eos && has(config.eos_token_ids)) {
    seq.finish = FinishReason::kStop;
    return;
  }
  if (enough && has(config.stop_token_ids)) {
    seq.finish = FinishReason::kStop;
    seq.stop_token = token;
    return;
  }
  if (seq.n_output() >= config.max_tokens || seq.n_tokens() >= max_model_len)
    seq.finish = FinishReason::kLength;
  else if (repeats(seq.output(), config.repetition))
    seq.finish = FinishReason::kRepetition;
}

// Brings block_hashes up to the full blocks of tokens.
inline void update_block_hashes(Sequence& seq, int block_size) {
  const size_t size = static_cast<size_t>(block_size);
  while ((seq.block_hashes.size() + 1) * size <= seq.tokens.size()) {
    const BlockHash parent = seq.block_hashes.empty() ? root_hash(seq.cache_salt) : seq.block_hashes.back();
    seq.block_hashes.push_back(next_hash(parent, std::span(seq.tokens).subspan(seq.block_hashes.size() * size, size)));
  }
}

}  // namespace octavo
