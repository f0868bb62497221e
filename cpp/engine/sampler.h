// One row of logits to one token. What comes out depends on the row, the config, the history and the noise key, never
// on the rows beside it: one thread does a row, in this order:
//   allowed ids, bad words, min_tokens, logit_bias, penalties -> greedy, or temperature, min_p, top_k, top_p, noise
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

// logits: (vocab), clobbered. raw: what the raw logprobs modes report, where the row was altered before; null: logits
// as they are on entry. The noise is that of output position history.output.size().
void sample_row(SampledToken& out, float* logits, int vocab, const SamplingConfig& config, const TokenHistory& history,
                const NoiseKey& noise, const KernelTable& table, SamplerScratch& scratch, const float* raw = nullptr);

// Logprobs of a prompt's token `target`, from the row of the token before it.
void prompt_logprob_row(TokenLogprobs& out, const float* logits, int vocab, Token target, const SamplingConfig& config,
                        const KernelTable& table, SamplerScratch& scratch);

// Everything before the choice, in place: allowed ids, bad words, min_tokens, logit_bias, penalties.
void process_logits(float* logits, int vocab, const SamplingConfig& config, const TokenHistory& history,
                    SamplerScratch& scratch);
// Whether process_logits would change anything.
bool alters_logits(const SamplingConfig& config, int n_output);

}  // namespace octavo
