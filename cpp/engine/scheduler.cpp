#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace octavo {

Scheduler::Scheduler(const SchedulerConfig& config, BlockPool& pool)
    : config_(config), pool_(pool), order_{config.policy}, waiting_(order_) {
  OCTAVO_CHECK(config.max_num_seqs > 0, "max_num_seqs must be at least 1, got ", config.max_num_seqs);
  OCTAVO_CHECK(config.max_num_batched_tokens > 0, "max_num_batched_tokens must be at least 1, got ",
               config.max_num_batched_tokens);
}

void Scheduler::add(Sequence& seq) {
  seq.arrival = next_arrival_++;
  const int capacity = pool_.n_blocks() * pool_.block_size();
  if (seq.tokens.empty()) {
    fail(seq, "the prompt is empty");
  } else if (seq.n_tokens() > config_.max_model_len) {
    fail(seq, concat("the prompt has ", seq.n_tokens(), " tokens, the model takes ", config_.max_model_len));
  } else if (seq.n_tokens() > capacity) {
    fail(seq, concat("the prompt has ", seq.n_tokens(), " tokens, the KV cache holds ", capacity));
  } else {
    waiting_.insert(&seq);
  }
}

void Scheduler::finish(Sequence& seq, FinishReason reason) {
  remove(seq);
  release_blocks(seq);
  seq.finish = reason;
}

ScheduledBatch Scheduler::schedule() {
  ScheduledBatch batch;
  in_flight_.clear();
  for (Sequence* seq : running_) seq->n_scheduled = 0;
  // After a preemption nobody is admitted: the blocks it freed are for those that run.
  if (continue_running(batch)) admit_waiting(batch);
  return batch;
}

void Scheduler::commit(const ScheduledBatch& batch) {
  for (const ScheduledTokens& item : batch.items) advance(*item.seq, item.n_tokens);
}

std::vector<Sequence*> Scheduler::take_failed() { return std::exchange(failed_, {}); }

// Returns whether it went without a preemption.
bool Scheduler::continue_running(ScheduledBatch& batch) {
  bool preempted = false;
  for (size_t i = 0; i < running_.size();) {
    Sequence& seq = *running_[i];
    const int n_tokens = chunk(seq, seq.n_remaining(), batch);
    if (n_tokens > 0) {
      if (!make_room(seq, preempted)) continue;  // seq has left running_
      schedule_tokens(seq, n_tokens, batch);
    }
    ++i;
  }
  return !preempted;
}

void Scheduler::admit_waiting(ScheduledBatch& batch) {
  int n_passed_over = 0;
  for (auto it = waiting_.begin(); it != waiting_.end() && n_running() < config_.max_num_seqs;) {
    const Admission admission = try_admit(**it, batch);
    if (admission == Admission::kNoRoom) break;
    if (admission == Admission::kDone) {
      it = waiting_.erase(it);
    } else {
      if (++n_passed_over > config_.max_num_seqs) break;
      ++it;
    }
  }
}

Scheduler::Admission Scheduler::try_admit(Sequence& seq, ScheduledBatch& batch) {
  const std::vector<int32_t> prefix = find_prefix(seq);
  // What another sequence computes in this very step is taken from the cache in the next one.
  if (is_in_flight(seq, prefix.size())) return Admission::kLater;
  const int n_cached = static_cast<int>(prefix.size()) * pool_.block_size();
  const int n_tokens = chunk(seq, seq.n_tokens() - n_cached, batch);
  const auto n_revived = std::ranges::count_if(prefix, [&](int32_t block) { return pool_.is_free(block); });
  const int n_new = pool_.blocks_for(seq.n_tokens()) - static_cast<int>(prefix.size());
  if (n_tokens == 0 || n_new + static_cast<int>(n_revived) > pool_.n_free()) return Admission::kNoRoom;

  for (const int32_t block : prefix) pool_.share(block);
  seq.blocks = prefix;
  seq.n_computed = n_cached;
  if (seq.n_preemptions == 0) seq.n_cached = n_cached;
  reserve(seq);
  running_.insert(running_place(seq), &seq);
  schedule_tokens(seq, n_tokens, batch);
  return Admission::kDone;
}

// Tokens of a sequence that this step takes; 0: none. Work that must not be cut exceeds the budget rather than starve.
int Scheduler::chunk(const Sequence& seq, int n_remaining, const ScheduledBatch& batch) const {
  const int budget = std::max(0, config_.max_num_batched_tokens - batch.n_tokens);
  if (n_remaining <= budget) return n_remaining;
  if (config_.enable_chunked_prefill && !seq.bidirectional) return budget;
  return batch.items.empty() ? n_remaining : 0;
}

// Reserves blocks for a running sequence, preempting the last ones while there are too few. Returns whether it still
// runs: it fails when even the whole pool is too small, and waits when it is itself the last.
bool Scheduler::make_room(Sequence& seq, bool& preempted) {
  if (pool_.blocks_for(seq.n_tokens()) > pool_.n_blocks()) {
    remove(seq);
    fail(seq, concat("the sequence has outgrown the KV cache, which holds ", pool_.n_blocks() * pool_.block_size(),
                     " tokens"));
    return false;
  }
  while (!reserve(seq)) {
    const bool is_last = running_.back() == &seq;
    preempt_last();
    preempted = true;
    if (is_last) return false;
  }
  return true;
}

// Gives the sequence blocks for all its known tokens, so that a prefill once begun never lacks one; all or nothing.
bool Scheduler::reserve(Sequence& seq) {
  const int n_missing = pool_.blocks_for(seq.n_tokens()) - static_cast<int>(seq.blocks.size());
  if (n_missing > pool_.n_free()) return false;
  for (int i = 0; i < n_missing; ++i) seq.blocks.push_back(pool_.allocate());
  return true;
}

void Scheduler::schedule_tokens(Sequence& seq, int n_tokens, ScheduledBatch& batch) {
  seq.n_scheduled = n_tokens;
  batch.items.push_back({&seq, n_tokens});
  batch.n_tokens += n_tokens;
  if (!uses_cache(seq)) return;
  update_block_hashes(seq, pool_.block_size());
  const int first = seq.n_computed / pool_.block_size();
  const int last = (seq.n_computed + n_tokens) / pool_.block_size();
  for (int i = first; i < last; ++i) in_flight_.insert(seq.block_hashes[static_cast<size_t>(i)]);
}

// The cached blocks that a sequence begins with; at least one token is left to compute.
std::vector<int32_t> Scheduler::find_prefix(Sequence& seq) const {
  std::vector<int32_t> blocks;
  if (!reads_cache(seq)) return blocks;
  update_block_hashes(seq, pool_.block_size());
  const size_t size = static_cast<size_t>(pool_.block_size());
  const size_t n_most = (seq.tokens.size() - 1) / size;
  BlockHash parent = root_hash(seq.cache_salt);
  for (size_t i = 0; i < n_most; ++i) {
    const int32_t block = pool_.find(seq.block_hashes[i], parent, std::span(seq.tokens).subspan(i * size, size));
    if (block < 0) break;
    blocks.push_back(block);
    parent = seq.block_hashes[i];
  }
  return blocks;
}

// Whether the block after the cached prefix is being computed for another sequence.
bool Scheduler::is_in_flight(const Sequence& seq, size_t n_prefix_blocks) const {
  if (!reads_cache(seq)) return false;
  const size_t n_most = (seq.tokens.size() - 1) / static_cast<size_t>(pool_.block_size());
  return n_prefix_blocks < n_most && in_flight_.contains(seq.block_hashes[n_prefix_blocks]);
}

void Scheduler::advance(Sequence& seq, int n_tokens) {
  const int size = pool_.block_size();
  const size_t first = static_cast<size_t>(seq.n_computed / size);
  seq.n_computed += n_tokens;
  seq.n_scheduled = 0;
  if (!uses_cache(seq)) return;
  const size_t n_full = static_cast<size_t>(seq.n_computed / size);
  for (size_t i = first; i < n_full; ++i) {
    const BlockHash parent = i == 0 ? root_hash(seq.cache_salt) : seq.block_hashes[i - 1];
    const auto tokens = std::span(seq.tokens).subspan(i * static_cast<size_t>(size), static_cast<size_t>(size));
    pool_.cache(seq.blocks[i], seq.block_hashes[i], parent, tokens);
  }
}

// The last running sequence gives its blocks back and starts over, before all that wait behind it.
void Scheduler::preempt_last() {
  Sequence& seq = *running_.back();
  running_.pop_back();
  release_blocks(seq);
  ++seq.n_preemptions;
  waiting_.insert(&seq);
}

void Scheduler::remove(Sequence& seq) {
  if (waiting_.erase(&seq) > 0) return;
  const auto place = running_place(seq);
  OCTAVO_CHECK(place != running_.end() && *place == &seq, "[scheduler] sequence ", seq.id, " neither waits nor runs");
  running_.erase(place);
}

void Scheduler::release_blocks(Sequence& seq) {
  pool_.release(seq.blocks);
  seq.blocks.clear();
  seq.n_computed = seq.n_scheduled = 0;
}

void Scheduler::fail(Sequence& seq, std::string error) {
  release_blocks(seq);
  seq.finish = FinishReason::kError;
  seq.error = std::move(error);
  failed_.push_back(&seq);
}

std::vector<Sequence*>::iterator Scheduler::running_place(Sequence& seq) {
  return std::lower_bound(running_.begin(), running_.end(), &seq, order_);
}

void Scheduler::check_integrity() const {
  std::vector<int> references(static_cast<size_t>(pool_.n_blocks()));
  for (const Sequence* seq : running_) {
    for (const int32_t block : seq->blocks) ++references[static_cast<size_t>(block)];
    const int n_held = static_cast<int>(seq->blocks.size()) * pool_.block_size();
    OCTAVO_CHECK(seq->n_computed + seq->n_scheduled <= std::min(seq->n_tokens(), n_held), "[scheduler] sequence ",
                 seq->id, " has counters past its tokens or blocks");
    OCTAVO_CHECK(!waiting_.contains(const_cast<Sequence*>(seq)), "[scheduler] sequence ", seq->id, " waits and runs");
  }
  for (const Sequence* seq : waiting_) {
    OCTAVO_CHECK(seq->blocks.empty() && seq->n_computed == 0, "[scheduler] sequence ", seq->id,
                 " waits but holds blocks");
  }
  OCTAVO_CHECK(std::is_sorted(running_.begin(), running_.end(), order_), "[scheduler] running is out of order");
  OCTAVO_CHECK(n_running() <= config_.max_num_seqs, "[scheduler] ", n_running(), " sequences run, ",
               config_.max_num_seqs, " may");
  pool_.check_integrity(references);
}

}  // namespace octavo
