// Log-probabilities of one row of logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/block_hash.h"
#include "kernels/kernels.h"

namespace octavo {

struct Logprob {
  Token id = -1;
  float value = 0;
};

struct TokenLogprobs {
  Logprob chosen;
  int rank = 0;                // 1 + how many ids are strictly more likely than the chosen one
  std::vector<Logprob> top;    // most likely first, equal ones by id
  std::vector<Logprob> named;  // of the ids asked for by name, in their order
  std::vector<int> named_ranks;
};

// Working memory of logprob_row; grows to the vocabulary once.
struct LogprobScratch {
  std::vector<float> row;
  std::vector<uint32_t> keys;
};

// k: how many of the most likely ids to list, kWholeVocabulary for all. named: ids to list whatever their rank.
// normalise: log-softmax of the row, else its values as they are. NaN counts as -inf, +inf as the largest float.
void logprob_row(TokenLogprobs& out, const float* row, int vocab, Token chosen, int k, std::span<const Token> named,
                 bool normalise, const KernelTable& table, LogprobScratch& scratch);

}  // namespace octavo
