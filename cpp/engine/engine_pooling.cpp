// What sequences bring beside their tokens, and the pooling of those that are not sampled.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/engine.h"

namespace octavo {

void Engine::check_inputs(const SequenceSpec& spec) const {
  const size_t n_embeds = spec.prompt.size() * static_cast<size_t>(executor_.embedding_width());
  OCTAVO_CHECK(spec.token_types.empty() || spec.token_types.size() == spec.prompt.size(), "The prompt has ",
               spec.prompt.size(), " tokens but ", spec.token_types.size(), " token types.");
  OCTAVO_CHECK(spec.embeds.empty() || spec.embeds.size() == n_embeds, "The prompt's embeddings have ",
               spec.embeds.size(), " values, expected ", n_embeds, ".");
}

// What a sequence's numbers depend on besides its tokens, and with it who may share its KV.
void Engine::take_inputs(Tracked& tracked, SequenceSpec& spec) {
  Sequence& seq = tracked.seq;
  const int64_t longest = seq.n_prompt + int64_t{spec.pooling ? 0 : seq.sampling.max_tokens};
  tracked.rope_length = static_cast<int>(std::min<int64_t>(longest, config_.scheduler.max_model_len));
  seq.cache_salt = concat(executor_.rope_class(tracked.rope_length), ":", seq.cache_salt);
  seq.bidirectional = config_.bidirectional;
  seq.private_kv = !spec.embeds.empty() || !spec.token_types.empty();
  seq.wants_all_rows = spec.pooling && *spec.pooling != Pooling::kLast;
  tracked.token_types = std::move(spec.token_types);
  tracked.embeds = std::move(spec.embeds);
  tracked.pooling = spec.pooling;
}

// The types and embeddings of prompt tokens; the batch has these arrays only where some sequence brings them.
void Engine::add_inputs(const Tracked& tracked, int first_token) {
  const Sequence& seq = tracked.seq;
  batch_.rope_lengths.push_back(tracked.rope_length);
  const int n_prompt = std::min(batch_.n_tokens() - first_token, seq.n_prompt - seq.n_computed);
  if (n_prompt <= 0) return;
  const auto first = static_cast<size_t>(first_token);
  if (!tracked.token_types.empty()) {
    batch_.token_types.resize(first);
    const auto from = tracked.token_types.begin() + seq.n_computed;
    batch_.token_types.insert(batch_.token_types.end(), from, from + n_prompt);
  }
  if (tracked.embeds.empty()) return;
  batch_.embeds.resize(first);
  for (int64_t i = 0; i < n_prompt; ++i)
    batch_.embeds.push_back(tracked.embeds.data() + (seq.n_computed + i) * executor_.embedding_width());
}

void Engine::add_pooled_rows(const ScheduledTokens& item, Tracked& tracked, int first_token) {
  const int n_computed = tracked.seq.n_computed;
  const int n_pooled = *tracked.pooling == Pooling::kAll ? tracked.seq.n_prompt : 1;
  tracked.pooled.resize(static_cast<size_t>(n_pooled) * static_cast<size_t>(executor_.head_width()));
  const auto want = [&](int row, int index) {
    batch_.gather.push_back(row);
    rows_.push_back({.tracked = &tracked, .pooled_row = index, .sampled = {}, .raw = {}, .mask = nullptr});
  };
  switch (*tracked.pooling) {
    case Pooling::kLast:
      if (item.reaches_end()) want(add_output(first_token + item.n_tokens - 1), 0);
      break;
    case Pooling::kCls:
      if (n_computed == 0) want(add_output(first_token), 0);
      break;
    case Pooling::kMean:
      means_.push_back({&tracked, add_output(first_token), item.n_tokens, item.reaches_end()});
      for (int i = 1; i < item.n_tokens; ++i) add_output(first_token + i);
      if (item.reaches_end()) want(means_.back().first_row, 0);  // the mean takes the place of the first row
      break;
    case Pooling::kAll:
      for (int i = 0; i < item.n_tokens; ++i) want(add_output(first_token + i), n_computed + i);
      break;
  }
}

void Engine::compute_means() {
  const int n = static_cast<int>(means_.size());
  if (n == 0) return;
  Counter counter;
  run_job(std::min(executor_.n_threads(), n), [&](const Worker&) {
    for (int i; (i = counter.take()) < n;) add_to_mean(means_[static_cast<size_t>(i)]);
  });
}

// One sum token by token, whatever the chunks; it takes the place of the chunk's first row.
void Engine::add_to_mean(const MeanTask& task) {
  const auto width = static_cast<size_t>(executor_.hidden_width());
  float* sum = executor_.hidden(task.first_row);
  if (task.tracked->seq.n_computed > 0)
    for (size_t i = 0; i < width; ++i) sum[i] += task.tracked->sum[i];
  for (int token = 1; token < task.n_tokens; ++token) {
    const float* row = executor_.hidden(task.first_row + token);
    for (size_t i = 0; i < width; ++i) sum[i] += row[i];
  }
  const auto n = static_cast<float>(task.tracked->seq.n_tokens());
  if (task.ends)
    for (size_t i = 0; i < width; ++i) sum[i] /= n;
}

// Nobody sees the rows before the sequence has finished, and a repeated step writes the same.
void Engine::store_pooled(const RowTask& row, const float* values) const {
  const int width = executor_.head_width();
  std::copy_n(values, width, row.tracked->pooled.data() + int64_t{row.pooled_row} * width);
}

void Engine::commit_pooled(const ScheduledBatch& scheduled) {
  for (const MeanTask& task : means_) {
    const float* sum = executor_.hidden(task.first_row);
    if (!task.ends) task.tracked->sum.assign(sum, sum + executor_.hidden_width());
  }
  for (const ScheduledTokens& item : scheduled.items) {
    Tracked& tracked = *find(item.seq->id);
    if (tracked.pooling && item.seq->n_remaining() == 0) finish_pooled(tracked);
  }
}

void Engine::finish_pooled(Tracked& tracked) {
  tracked.changed = true;
  tracked.times.first_token = tracked.times.last_token = now_seconds();
  stats_.n_cached_tokens += tracked.seq.n_cached;
  end(tracked, FinishReason::kStop);
}

}  // namespace octavo
