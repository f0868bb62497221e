#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace octavo {
namespace {

constexpr auto kHandoverPoll = std::chrono::milliseconds(50);

NoiseKey noise_of(const SequenceSpec& spec, uint64_t engine_seed) {
  return spec.sampling.seed ? seeded_noise(*spec.sampling.seed, spec.child)
                            : engine_noise(engine_seed, spec.request, spec.child);
}

}  // namespace

Engine::Engine(const EngineConfig& config, Executor& executor)
    : config_(config),
      executor_(executor),
      pool_(executor.n_blocks(), kKvTile, config.enable_prefix_caching),
      scheduler_(config.scheduler, pool_),
      scratch_(static_cast<size_t>(executor.n_threads())),
      fork_handler_([this] { mutex_.lock(); }, [this](bool in_child) { after_fork(in_child); }) {}

// A driver that the fork left behind drives no more here: its step has not been committed, so the next one repeats it.
void Engine::after_fork(bool in_child) {
  if (in_child) {
    // Threads that were waiting are gone too, but the old variable would wait for them.
    static_cast<void>(handover_.release());
    handover_ = std::make_unique<std::condition_variable>();
    if (driver_ != std::this_thread::get_id()) driving_ = false;
  }
  mutex_.unlock();
}

void Engine::set_token_table(TokenTable table) {
  const std::lock_guard lock(mutex_);
  if (!table_) table_ = std::move(table);
}

Engine::Tracked* Engine::find(int64_t id) const {
  const auto found = tracked_.find(id);
  return found == tracked_.end() ? nullptr : found->second.get();
}

int64_t Engine::add(SequenceSpec spec) {
  check_inputs(spec);
  const std::lock_guard lock(mutex_);
  const int64_t id = next_id_++;
  auto tracked = std::make_unique<Tracked>();
  Sequence& seq = tracked->seq;
  seq.id = id;
  seq.priority = spec.priority;
  seq.noise = noise_of(spec, config_.seed);
  seq.n_prompt = static_cast<int>(spec.prompt.size());
  seq.tokens = std::move(spec.prompt);
  seq.cache_salt = std::move(spec.cache_salt);
  seq.sampling = std::move(spec.sampling);
  take_inputs(*tracked, spec);
  tracked->times.queued = now_seconds();
  if (seq.sampling.prompt_logprobs) tracked->prompt_logprobs.resize(seq.tokens.size());
  if (seq.sampling.detokenize && table_ && !tracked->pooling)
    tracked->detokenizer = std::make_unique<Detokenizer>(*table_, seq.sampling, /*continues_text=*/false);
  scheduler_.add(seq);
  tracked_.emplace(id, std::move(tracked));
  mark_failed();
  return id;
}

void Engine::remove(std::span<const int64_t> ids) {
  const std::lock_guard lock(mutex_);
  if (driving_)
    removed_.insert(removed_.end(), ids.begin(), ids.end());
  else
    forget(ids);
}

void Engine::forget(std::span<const int64_t> ids) {
  for (const int64_t id : ids) {
    Tracked* tracked = find(id);
    if (tracked == nullptr) continue;
    if (!tracked->seq.finished()) scheduler_.abort(tracked->seq);
    tracked_.erase(id);
  }
}

bool Engine::has_news(std::span<const int64_t> ids) const {
  return std::any_of(ids.begin(), ids.end(), [&](int64_t id) {
    const Tracked* tracked = find(id);
    return tracked == nullptr || tracked->changed;
  });
}

// Drops finished ones from the end of ids: asked again and again, it looks at each of many ids once.
bool Engine::all_finished(std::vector<int64_t>& ids) const {
  for (; !ids.empty(); ids.pop_back()) {
    const Tracked* tracked = find(ids.back());
    if (tracked != nullptr && !tracked->seq.finished()) return false;
  }
  return true;
}

void Engine::run(std::span<const int64_t> ids, bool any_change, double seconds, const InterruptFn& interrupted,
                 const HostHook& hook) {
  const double deadline = now_seconds() + seconds;
  std::vector<int64_t> unfinished(ids.begin(), ids.end());
  std::unique_lock lock(mutex_);
  while (!(any_change && has_news(ids)) && !all_finished(unfinished) && now_seconds() < deadline) {
    if (driving_) {
      handover_->wait_for(lock, kHandoverPoll);
      if (driving_) {
        lock.unlock();  // the question may have to wait for a thread that is waiting for the lock
        if (interrupted && interrupted()) throw Interrupted();
        lock.lock();
      }
      continue;
    }
    driving_ = true;
    driver_ = std::this_thread::get_id();
    lock.unlock();
    std::exception_ptr error;
    try {
      step(interrupted, hook);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    driving_ = false;
    forget(std::exchange(removed_, {}));
    handover_->notify_all();
    if (error) std::rethrow_exception(error);
  }
}

void Engine::step(const InterruptFn& interrupted, const HostHook& hook) {
  ScheduledBatch scheduled;
  if (!prepare(scheduled)) return;
  executor_.forward(batch_, interrupted);
  compute_means();
  compute_rows(interrupted, hook);
  commit(scheduled);
}

bool Engine::prepare(ScheduledBatch& scheduled) {
  const std::lock_guard lock(mutex_);
  scheduled = scheduler_.schedule();
  mark_failed();
  if (scheduled.items.empty()) return false;
  fill_batch(scheduled);
  return true;
}

// Sequences that the scheduler gave up on are finished with their error; they need no step.
void Engine::mark_failed() {
  for (Sequence* seq : scheduler_.take_failed()) find(seq->id)->changed = true;
}

void Engine::fill_batch(const ScheduledBatch& scheduled) {
  batch_.token_ids.clear();
  batch_.positions.clear();
  batch_.query_start.assign(1, 0);
  batch_.block_tables.clear();
  batch_.output_tokens.clear();
  batch_.gather.clear();
  batch_.token_types.clear();
  batch_.embeds.clear();
  batch_.rope_lengths.clear();
  rows_.clear();
  means_.clear();
  for (const ScheduledTokens& item : scheduled.items) {
    const int first_token = batch_.n_tokens();
    for (int i = 0; i < item.n_tokens; ++i) {
      batch_.token_ids.push_back(item.seq->tokens[static_cast<size_t>(item.seq->n_computed + i)]);
      batch_.positions.push_back(item.seq->n_computed + i);
    }
    batch_.query_start.push_back(batch_.n_tokens());
    batch_.block_tables.push_back(item.seq->blocks.data());
    add_inputs(*find(item.seq->id), first_token);
    add_rows(item, first_token);
  }
  if (!batch_.token_types.empty()) batch_.token_types.resize(batch_.token_ids.size());
  if (!batch_.embeds.empty()) batch_.embeds.resize(batch_.token_ids.size());
}

// Asks for the token's row of the body's output; returns which one it is.
int32_t Engine::add_output(int token) {
  batch_.output_tokens.push_back(token);
  return static_cast<int32_t>(batch_.output_tokens.size()) - 1;
}

// The rows whose logits are wanted: those before a prompt token with logprobs, and the last known token's.
void Engine::add_rows(const ScheduledTokens& item, int first_token) {
  Sequence& seq = *item.seq;
  Tracked* tracked = find(seq.id);
  if (tracked->times.scheduled == 0) tracked->times.scheduled = now_seconds();
  if (config_.poison_blocks) poison_fresh(*tracked);
  if (tracked->pooling) return add_pooled_rows(item, *tracked, first_token);
  const auto want = [&](int position, int prompt_position) {
    batch_.gather.push_back(add_output(first_token + position - seq.n_computed));
    rows_.push_back(
        {.tracked = tracked, .prompt_position = prompt_position, .sampled = {}, .raw = {}, .mask = nullptr});
  };
  if (seq.sampling.prompt_logprobs)
    for (int p = std::max(seq.n_computed, seq.sampling.prompt_logprob_start - 1);
         p < std::min(seq.n_computed + item.n_tokens, seq.n_prompt - 1); ++p)
      want(p, p + 1);
  if (item.reaches_end()) want(seq.n_tokens() - 1, -1);
}

void Engine::poison_fresh(Tracked& tracked) {
  const Sequence& seq = tracked.seq;
  if (std::exchange(tracked.n_preemptions, seq.n_preemptions) != seq.n_preemptions) tracked.n_fresh = 0;
  const auto n_valid = static_cast<size_t>(pool_.blocks_for(seq.n_computed));
  for (size_t b = std::max(tracked.n_fresh, n_valid); b < seq.blocks.size(); ++b) executor_.poison_block(seq.blocks[b]);
  tracked.n_fresh = seq.blocks.size();
}

void Engine::compute_rows(const InterruptFn& interrupted, const HostHook& hook) {
  const int n_rows = static_cast<int>(rows_.size());
  for (int first = 0; first < n_rows; first += executor_.logits_tile()) {
    const int n = std::min(executor_.logits_tile(), n_rows - first);
    const auto tile = std::span(rows_).subspan(static_cast<size_t>(first), static_cast<size_t>(n));
    if (executor_.can_screen(n) && std::all_of(tile.begin(), tile.end(), takes_largest)) {
      const auto largest = executor_.largest(batch_, first, n, interrupted);
      for (size_t i = 0; i < tile.size(); ++i) tile[i].sampled.id = largest[i];
      continue;
    }
    float* logits = executor_.logits(batch_, first, n, interrupted);
    if (hook) run_hook(tile, logits, hook);
    Counter counter;
    run_job(std::min(executor_.n_threads(), n), [&](const Worker& worker) {
      for (int i; (i = counter.take()) < n;)
        finish_row(tile[static_cast<size_t>(i)], logits + i * executor_.logits_stride(),
                   scratch_[static_cast<size_t>(worker.id)]);
    });
  }
}

// Whether the largest logit of a row is all that it is made for.
bool Engine::takes_largest(const RowTask& row) {
  if (row.prompt_position >= 0 || row.pooled_row >= 0) return false;
  const Sequence& seq = row.tracked->seq;
  const SamplingConfig& config = seq.sampling;
  return config.greedy() && !config.logprobs && !config.host_hook && !config.host_mask &&
         !alters_logits(config, static_cast<int>(seq.output().size()));
}

size_t Engine::n_masks(std::span<const RowTask> rows) {
  return static_cast<size_t>(std::count_if(rows.begin(), rows.end(), [](const RowTask& row) {
    return row.prompt_position < 0 && row.tracked->seq.sampling.host_mask;
  }));
}

void Engine::run_hook(std::span<RowTask> rows, float* logits, const HostHook& hook) {
  const auto n_words = static_cast<size_t>(mask_words(executor_.vocab()));
  masks_.assign(n_masks(rows) * n_words, 0);
  uint32_t* mask = masks_.data();
  std::vector<HookRow> wanted;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Sequence& seq = rows[i].tracked->seq;
    const SamplingConfig& config = seq.sampling;
    if (rows[i].prompt_position >= 0 || !(config.host_hook || config.host_mask)) continue;
    float* row = config.host_hook ? logits + static_cast<int64_t>(i) * executor_.logits_stride() : nullptr;
    if (row != nullptr && config.logprobs) rows[i].raw.assign(row, row + executor_.vocab());
    rows[i].mask = config.host_mask ? mask : nullptr;
    wanted.push_back({seq.id, row, config.host_mask ? mask : nullptr, {seq.prompt(), seq.output()}});
    if (config.host_mask) mask += n_words;
  }
  if (!wanted.empty()) hook(wanted);
}

void Engine::finish_row(RowTask& row, float* logits, SamplerScratch& scratch) const {
  const Sequence& seq = row.tracked->seq;
  if (row.pooled_row >= 0) return store_pooled(row, logits);
  if (row.prompt_position >= 0) {
    const Token target = seq.tokens[static_cast<size_t>(row.prompt_position)];
    prompt_logprob_row(row.sampled.logprobs, logits, executor_.vocab(), target, seq.sampling, kernels(), scratch);
    return;
  }
  sample_row(row.sampled, logits, executor_.vocab(), seq.sampling, {seq.prompt(), seq.output()}, seq.noise, kernels(),
             scratch, {row.raw.empty() ? nullptr : row.raw.data(), row.mask});
}

void Engine::commit(const ScheduledBatch& scheduled) {
  const std::lock_guard lock(mutex_);
  ++stats_.n_steps;
  for (const ScheduledTokens& item : scheduled.items)
    stats_.n_prompt_tokens += std::clamp(item.seq->n_prompt - item.seq->n_computed, 0, item.n_tokens);
  scheduler_.commit(scheduled);
  for (RowTask& row : rows_) {
    if (row.pooled_row >= 0) continue;
    if (row.prompt_position < 0)
      take_token(*row.tracked, row.sampled);
    else
      row.tracked->prompt_logprobs[static_cast<size_t>(row.prompt_position)] = std::move(row.sampled.logprobs);
  }
  commit_pooled(scheduled);
}

void Engine::take_token(Tracked& tracked, SampledToken& sampled) {
  Sequence& seq = tracked.seq;
  tracked.changed = true;
  if (sampled.id < 0) {
    seq.error = "No token can be sampled: every logit is masked or not a number.";
    return end(tracked, FinishReason::kError);
  }
  tracked.times.last_token = now_seconds();
  if (seq.n_output() == 0) {
    tracked.times.first_token = tracked.times.last_token;
    stats_.n_cached_tokens += seq.n_cached;
  }
  ++stats_.n_output_tokens;
  append_token(seq, sampled.id, config_.scheduler.max_model_len);
  if (seq.sampling.logprobs) tracked.logprobs.push_back(std::move(sampled.logprobs));
  const bool silent = seq.finish == FinishReason::kStop && !seq.sampling.include_stop_str_in_output;
  if (tracked.detokenizer && !silent && tracked.detokenizer->push(sampled.id)) {
    seq.stop_string = tracked.detokenizer->stop_index();
    return end(tracked, FinishReason::kStop);
  }
  if (seq.finished()) end(tracked, seq.finish);
}

void Engine::end(Tracked& tracked, FinishReason reason) {
  if (tracked.detokenizer) tracked.detokenizer->flush();
  stats_.n_preemptions += tracked.seq.n_preemptions;
  scheduler_.finish(tracked.seq, reason);
}

std::vector<SequenceView> Engine::updates(std::span<const int64_t> ids) {
  const std::lock_guard lock(mutex_);
  std::vector<SequenceView> views;
  for (const int64_t id : ids) {
    Tracked* tracked = find(id);
    if (tracked == nullptr || !std::exchange(tracked->changed, false)) continue;
    views.push_back(take_view(*tracked));
  }
  return views;
}

SequenceView Engine::take_view(Tracked& tracked) const {
  const Sequence& seq = tracked.seq;
  SequenceView view{.id = seq.id};
  const auto output = seq.output();
  view.output.assign(output.begin() + static_cast<std::ptrdiff_t>(tracked.n_viewed_tokens), output.end());
  tracked.n_viewed_tokens = output.size();
  if (tracked.detokenizer) {
    const size_t n_ready = tracked.detokenizer->n_ready();
    view.text = tracked.detokenizer->text().substr(tracked.n_viewed_bytes, n_ready - tracked.n_viewed_bytes);
    tracked.n_viewed_bytes = n_ready;
  }
  view.logprobs = std::exchange(tracked.logprobs, {});
  if (seq.finished()) view.prompt_logprobs = std::move(tracked.prompt_logprobs);
  if (seq.finished()) view.pooled = std::move(tracked.pooled);
  view.pooled_width = executor_.head_width();
  view.finish = seq.finish;
  view.stop_token = seq.stop_token;
  view.stop_string = seq.stop_string;
  view.error = seq.error;
  view.n_cached = seq.n_cached;
  view.times = tracked.times;
  return view;
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.n_running = scheduler_.n_running();
  stats.n_waiting = scheduler_.n_waiting();
  stats.n_blocks = pool_.n_blocks();
  stats.n_free_blocks = pool_.n_free();
  return stats;
}

void Engine::reset_prefix_cache() {
  const std::lock_guard lock(mutex_);
  pool_.clear_cache();
}

void Engine::check_integrity() const {
  const std::lock_guard lock(mutex_);
  scheduler_.check_integrity();
}

}  // namespace octavo
