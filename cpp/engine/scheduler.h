// Decides which tokens are computed in the next step. A step is schedule() -> run -> commit(); a step that is
// dropped before commit() is simply scheduled again.
//
// Sequences have one order: arrival (fcfs) or (priority, arrival). Both lists are kept in it, so the one to preempt
// is always the last running one, and the first sequence always gets on.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <unordered_set>
#include <vector>

#include "engine/block_pool.h"
#include "engine/sequence.h"

namespace octavo {

enum class SchedulingPolicy : uint8_t { kFcfs, kPriority };

struct SchedulerConfig {
  int max_num_seqs = 256;
  int max_num_batched_tokens = 512;
  int max_model_len = 2048;
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  bool enable_chunked_prefill = true;  // false: what a sequence still has to compute is scheduled whole
};

// Tokens [n_computed, n_computed + n_tokens) of one sequence.
struct ScheduledTokens {
  Sequence* seq;
  int n_tokens;
  // Whether the last known token is among them, so that a next one can be sampled.
  bool reaches_end() const { return seq->n_computed + n_tokens == seq->n_tokens(); }
};

struct ScheduledBatch {
  std::vector<ScheduledTokens> items;
  int n_tokens = 0;
};

// Does not own the sequences; each must stay where it is from add() until it is finished.
class Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, BlockPool& pool);

  // A sequence that cannot run at all ends in take_failed() instead.
  void add(Sequence& seq);
  // Ends a sequence that waits or runs, between steps. Its tokens stay.
  void finish(Sequence& seq, FinishReason reason);
  void abort(Sequence& seq) { finish(seq, FinishReason::kAbort); }

  // Running sequences first, then waiting ones while there is room. Preempts when blocks run out.
  ScheduledBatch schedule();
  // The batch has been computed: moves the counters and enters newly full blocks into the prefix cache.
  // Comes before append_token().
  void commit(const ScheduledBatch& batch);
  // Sequences that turned out to fit nowhere, each with finish and error set. Taken once.
  std::vector<Sequence*> take_failed();

  int n_waiting() const { return static_cast<int>(waiting_.size()); }
  int n_running() const { return static_cast<int>(running_.size()); }
  bool has_work() const { return !waiting_.empty() || !running_.empty(); }
  std::span<Sequence* const> running() const { return running_; }

  // Throws Error naming the broken invariant. For a pool that serves this scheduler alone.
  void check_integrity() const;

 private:
  struct Order {
    SchedulingPolicy policy;
    bool operator()(const Sequence* a, const Sequence* b) const {
      if (policy == SchedulingPolicy::kPriority && a->priority != b->priority) return a->priority < b->priority;
      return a->arrival < b->arrival;
    }
  };
  using BlockHashSet = std::unordered_set<BlockHash, BlockHashHasher>;

  enum class Admission : uint8_t { kDone, kLater, kNoRoom };

  bool uses_cache(const Sequence& seq) const { return pool_.caching() && !seq.bidirectional && !seq.private_kv; }
  bool reads_cache(const Sequence& seq) const { return uses_cache(seq) && seq.reads_cache(); }
  bool continue_running(ScheduledBatch& batch);
  void admit_waiting(ScheduledBatch& batch);
  Admission try_admit(Sequence& seq, ScheduledBatch& batch);
  int chunk(const Sequence& seq, int n_remaining, const ScheduledBatch& batch) const;
  bool make_room(Sequence& seq, bool& preempted);
  bool reserve(Sequence& seq);
  void schedule_tokens(Sequence& seq, int n_tokens, ScheduledBatch& batch);
  std::vector<int32_t> find_prefix(Sequence& seq) const;
  bool is_in_flight(const Sequence& seq, size_t n_prefix_blocks) const;
  void advance(Sequence& seq, int n_tokens);
  void preempt_last();
  void remove(Sequence& seq);
  void release_blocks(Sequence& seq);
  void fail(Sequence& seq, std::string error);
  std::vector<Sequence*>::iterator running_place(Sequence& seq);

  SchedulerConfig config_;
  BlockPool& pool_;
  Order order_;
  int64_t next_arrival_ = 0;
  std::set<Sequence*, Order> waiting_;
  std::vector<Sequence*> running_;
  std::vector<Sequence*> failed_;
  BlockHashSet in_flight_;  // blocks that become full in the step being scheduled
};

}  // namespace octavo
