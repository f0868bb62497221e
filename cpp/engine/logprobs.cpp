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

}  // namespace

void logprob_row(TokenLogprobs& out, const float* row, int vocab, Token chosen, int k, bool normalise,
                 const KernelTable& table, LogprobScratch& scratch) {
  row = clean_row(row, vocab, scratch.row);
  const float value = row[chosen];
  int n_greater = 0;
  for (int i = 0; i < vocab; ++i) n_greater += row[i] > value;
  out.rank = 1 + n_greater;
  list_top(out.top, row, vocab, k == kWholeVocabulary ? vocab : k, scratch.keys);
  out.chosen = {chosen, value};
  if (!normalise) return;
  const float max = row[table.argmax(row, vocab)];
  if (max == -kInfinity) return;
  const float log_sum = std::log(table.exp_sum(nullptr, row, vocab, max, 1.0f));
  out.chosen.value = (value - max) - log_sum;
  for (Logprob& entry : out.top) entry.value = (entry.value - max) - log_sum;
}

}  // namespace octavo
