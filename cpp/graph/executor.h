// Runs a model's plans: the body over a ragged batch, then the head over rows gathered from its output.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/memory.h"
#include "graph/plan.h"
#include "graph/step.h"

namespace octavo {

// Asked between ops, at most every few milliseconds, in the thread that drives the step.
using InterruptFn = std::function<bool()>;

struct ExecutorConfig {
  Crew crew;
  KvType kv_type;
  int max_tokens;    // of one batch
  int max_context;   // tokens of the longest sequence
  int64_t kv_bytes;  // budget of the KV cache; committed as blocks are first used
};

class Executor {
 public:
  // weights must outlive the executor. body: tokens -> hidden; head: gathered hidden -> logits.
  Executor(const ExecutorConfig& config, const Graph& body, const Graph& head);

  // Runs the body over the whole batch, its end for output tokens alone. Throws Interrupted when `interrupted` says so.
  void forward(const Batch& batch, const InterruptFn& interrupted);

  // An output token's row of the last forward, (hidden_width). A pooled row may take its place before logits() reads
  // it.
  float* hidden(int row);

  // The head (logits, or what a pooling model makes of pooled rows) over gathered rows [first, first + n) of the last
  // forward; n <= logits_tile(). Row i begins at i * logits_stride() floats and holds head_width() values that stay
  // valid until the next call.
  float* logits(const Batch& batch, int first, int n, const InterruptFn& interrupted);

  // Whether largest() can be asked for, for so many rows.
  bool can_screen(int n) const { return head_.screens_from > 0 && n >= head_.screens_from; }
  // The first of the largest logits of each of these rows, -1 where none is above -inf; valid until the next call.
  std::span<const int32_t> largest(const Batch& batch, int first, int n, const InterruptFn& interrupted);

  // Sequences that may grow to so many tokens have the same ropes as others of the same class, 0 for short ones.
  int rope_class(int length) const;

  int hidden_width() const { return body_.output_width; }
  int embedding_width() const { return body_.embedding_width; }
  int head_width() const { return head_.output_width; }
  int vocab() const { return head_width(); }
  int logits_tile() const { return head_.max_rows; }
  int64_t logits_stride() const { return head_.output.stride / 4; }
  int n_blocks() const { return n_blocks_; }
  int n_threads() const { return config_.crew.n_threads; }
  int64_t kv_block_bytes() const { return body_.kv_block_bytes; }
  int64_t arena_bytes() const { return static_cast<int64_t>(body_memory_.size() + head_memory_.size()); }

  // Overwrites freed blocks with NaN, so that a test sees any read of what was not written.
  void poison_block(int block);

 private:
  void run(const Plan& plan, Step& step, const InterruptFn& interrupted);
  void run_head(const Batch& batch, int first, int n, Logits wanted, const InterruptFn& interrupted);

  ExecutorConfig config_;
  Plan body_, head_;
  HugeBuffer body_memory_, head_memory_, scratch_, kv_;
  int n_blocks_;
  std::vector<std::vector<float>> rope_tables_;
  std::vector<ThreadUpcoming> upcoming_;
  std::vector<Counter> counters_;  // of the plan being run
  std::vector<int32_t> largest_;   // of the rows of the last head
};

}  // namespace octavo
