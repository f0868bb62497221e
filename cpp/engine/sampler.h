// One row of logits to one token. What comes out depends on the row, the config, the history and the noise key, never
// on the rows beside it: one thread does a row, in this order:
//   the host's mask, allowed ids, bad words, min_tokens, logit_bias, penalties -> greedy, or temperature, min_p, top_k,
//   top_p, noise
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/block_hash.h"
#include "engine/logprobs.h"
#include "engine/philox.h"
#include "engine/sampling_config.h"
#include "kernels/kernels.h"

namespace octavo {

struct TokenHistory {
  std::span<const Token> prompt;
  std::span<const Token> output;
};

struct SampledToken {
  Token id = -1;           // -1: no token can be chosen, all are masked or NaN
  TokenLogprobs logprobs;  // when asked for
};

// What the host has made of a row before it is sampled.
struct HostChanges {
  const float* raw = nullptr;      // (vocab), the row before the host altered it; null: it did not
  const uint32_t* mask = nullptr;  // (mask_words(vocab)), bit i: id i may follow; null: all may
};

inline int mask_words(int vocab) { return (vocab + 31) / 32; }

// Working memory of one thread; grows to the vocabulary once.
struct SamplerScratch {
  std::vector<float> raw;       // (vocab), the row before it was processed
  std::vector<int32_t> ids;     // candidates, ascending
  std::vector<float> values;    // their logits
  std::vector<float> probs;     // exp of them, the largest is 1
  std::vector<int32_t> counts;  // (vocab), all zero between rows
  std::vector<uint32_t> keys;
  LogprobScratch logprobs;
};

// logits: (vocab), clobbered; the raw logprobs modes report host.raw or, where that is null, logits as they are on
// entry. The noise is that of output position history.output.size().
void sample_row(SampledToken& out, float* logits, int vocab, const SamplingConfig& config, const TokenHistory& history,
                const NoiseKey& noise, const KernelTable& table, SamplerScratch& scratch, const HostChanges& host = {});

// Logprobs of a prompt's token `target`, from the row of the token before it.
void prompt_logprob_row(TokenLogprobs& out, const float* logits, int vocab, Token target, const SamplingConfig& config,
                        const KernelTable& table, SamplerScratch& scratch);

// Everything before the choice but the host's mask, in place: allowed ids, bad words, min_tokens, logit_bias,
// penalties.
void process_logits(float* logits, int vocab, const SamplingConfig& config, const TokenHistory& history,
                    SamplerScratch& scratch);
// Sets the logits of ids whose bit in mask is 0 to -inf.
void apply_mask(float* logits, int vocab, const uint32_t* mask);
// Whether process_logits would change anything.
bool alters_logits(const SamplingConfig& config, int n_output);

}  // namespace octavo
