#include "engine/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "engine/sampling_config.h"
#include "engine/select.h"

namespace octavo {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The row with NaN and +inf replaced; the row itself when it has neither, as always but for broken models.
const float* clean_row(const float* row, int vocab, std::vector<float>& copy) {
  int n_bad = 0;
  for (int i = 0; i < vocab; ++i) n_bad += !(row[i] < kInfinity);
  if (n_bad == 0) return row;
  copy.assign(row, row + vocab);
  for (float& x : copy) {
    if (std::isnan(x)) x = -kInfinity;
    x = std::min(x, std::numeric_limits<float>::max());
  }
  return copy.data();
}

// The k largest of the row, ordered by value, then id.
void list_top(std::vector<Logprob>& top, const float* row, int vocab, int k, std::vector<uint32_t>& keys) {
  top.clear();
  if (k == 0) return;
  const std::span values(row, static_cast<size_t>(vocab));
  const uint32_t least = k < vocab ? find_cut<Weigh::kByCount>(values, k, keys).key : 0;
  for (int i = 0; i < vocab; ++i) {
    if (order_key(row[i]) >= least) top.push_back({i, row[i]});
  }
  const auto before = [](const Logprob& a, const Logprob& b) {
    return a.value != b.value ? a.value > b.value : a.id < b.id;
  };
  const size_t n = std::min(top.size(), static_cast<size_t>(k));
  std::partial_sort(top.begin(), top.begin() + static_cast<std::ptrdiff_t>(n), top.end(), before);
  top.resize(n);
}

int rank_of(const float* row, int vocab, float value) {
  int n_greater = 0;
  for (int i = 0; i < vocab; ++i) n_greater += row[i] > value;
  return 1 + n_greater;
}

void list_named(TokenLogprobs& out, const float* row, int vocab, std::span<const Token> named) {
  out.named.clear();
  out.named_ranks.clear();
  for (const Token id : named) {
    out.named.push_back({id, row[id]});
    out.named_ranks.push_back(rank_of(row, vocab, row[id]));
  }
}

}  // namespace

void logprob_row(TokenLogprobs& out, const float* row, int vocab, Token chosen, int k, std::span<const Token> named,
                 bool normalise, const KernelTable& table, LogprobScratch& scratch) {
  row = clean_row(row, vocab, scratch.row);
  out.rank = rank_of(row, vocab, row[chosen]);
  list_top(out.top, row, vocab, k == kWholeVocabulary ? vocab : k, scratch.keys);
  list_named(out, row, vocab, named);
  out.chosen = {chosen, row[chosen]};
  if (!normalise) return;
  const float max = row[table.argmax(row, vocab)];
  if (max == -kInfinity) return;
  const float log_sum = std::log(table.exp_sum(nullptr, row, vocab, max, 1.0f));
  const auto normalised = [&](Logprob& entry) { entry.value = (entry.value - max) - log_sum; };
  normalised(out.chosen);
  std::for_each(out.top.begin(), out.top.end(), normalised);
  std::for_each(out.named.begin(), out.named.end(), normalised);
}

}  // namespace octavo
