// The engine: add / abort / run. Any thread may add, and any thread may drive; a driver takes steps until its own
// requests are done and then hands over. A step commits only at its end, so one that was interrupted is repeated.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/fork.h"
#include "engine/block_pool.h"
#include "engine/detokenizer.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/stats.h"
#include "graph/executor.h"

namespace octavo {

// Which row of a pooling sequence's tokens the head turns into the result: the last, the first, the mean of all, or
// each by itself.
enum class Pooling : uint8_t { kLast, kCls, kMean, kAll };

struct EngineConfig {
  SchedulerConfig scheduler;
  bool bidirectional = false;  // the model's tokens attend to later ones too
  bool enable_prefix_caching = true;
  uint64_t seed = 0;
  bool poison_blocks = false;  // for tests: fill every block with NaN when it is handed out
};

// One sample of one request.
struct SequenceSpec {
  std::vector<Token> prompt;
  SamplingConfig sampling{};
  int priority = 0;
  std::string cache_salt{};
  uint64_t request = 0;                // number of the request in this engine, for noise without a seed
  uint32_t child = 0;                  // number of the sample in its request
  std::vector<int32_t> token_types{};  // (n_prompt), or empty: all 0
  std::vector<float> embeds{};         // (n_prompt, hidden width) instead of the prompt's embeddings, or empty
  std::optional<Pooling> pooling{};    // then nothing is sampled: it stops when its last token has been computed
};

// A row that the host may change before it is sampled.
struct HookRow {
  int64_t id;
  float* logits;   // (vocab), null where only a mask is wanted
  uint32_t* mask;  // (mask_words(vocab)), all zero, for the host to fill; null where none is wanted
  TokenHistory history;
};
// Called once for the rows of a tile. The masks of its rows lie one after the other.
using HostHook = std::function<void(std::span<const HookRow>)>;

// What a caller sees of a sequence, taken out under the lock. Output comes piece by piece: each view has what is new
// since the one before it.
struct SequenceView {
  int64_t id = 0;
  std::vector<Token> output{};
  std::string text{};  // whole characters that later tokens will not take back
  std::vector<TokenLogprobs> logprobs{};
  std::vector<TokenLogprobs> prompt_logprobs{};  // (n_prompt), the first is empty; at the end
  std::vector<float> pooled{};                   // (1 or n_prompt, head width), of a pooling sequence at its end
  int pooled_width = 0;
  FinishReason finish = FinishReason::kNone;
  Token stop_token = -1;
  int stop_string = -1;
  std::string error{};
  int n_cached = 0;
  SequenceTimes times{};
};

class Engine {
 public:
  Engine(const EngineConfig& config, Executor& executor);

  // The vocabulary's bytes, for text in the core. Before the first add() that wants text; once.
  void set_token_table(TokenTable table);

  int64_t add(SequenceSpec spec);
  // Ends sequences and forgets them, at the end of the step that is under way; unknown ids are ignored.
  void remove(std::span<const int64_t> ids);

  // Takes steps until all of ids are finished, or, with `any_change`, until one of them has news, or until
  // `seconds` have passed. Throws Interrupted when `interrupted` says so.
  void run(std::span<const int64_t> ids, bool any_change, double seconds, const InterruptFn& interrupted,
           const HostHook& hook);

  // What is new of those of ids that changed since they were last asked for here.
  std::vector<SequenceView> updates(std::span<const int64_t> ids);

  EngineStats stats() const;
  void reset_prefix_cache();
  void check_integrity() const;

 private:
  struct Tracked {
    Sequence seq;
    std::unique_ptr<Detokenizer> detokenizer;
    std::vector<TokenLogprobs> logprobs;  // that no view has had yet
    std::vector<TokenLogprobs> prompt_logprobs;
    size_t n_viewed_tokens = 0;
    size_t n_viewed_bytes = 0;  // of the text
    std::vector<int32_t> token_types;
    std::vector<float> embeds;
    std::optional<Pooling> pooling;
    std::vector<float> sum;     // (hidden width), of the rows computed so far, under kMean
    std::vector<float> pooled;  // whole once the sequence has finished
    int rope_length = 0;
    SequenceTimes times;
    bool changed = false;
    size_t n_fresh = 0;     // with poison_blocks: blocks already poisoned
    int n_preemptions = 0;  // and how often the sequence had lost its blocks by then
  };
  // One row of the head in a step: logits for the next token of a sequence or the logprob of a prompt token, or a
  // pooled row.
  struct RowTask {
    Tracked* tracked;
    int prompt_position = -1;  // >= 0: of this prompt token
    int pooled_row = -1;       // >= 0: this row of the result
    SampledToken sampled;
    std::vector<float> raw;  // the row before the hook changed it, where logprobs want that
    const uint32_t* mask = nullptr;
  };
  // Tokens of a step whose rows go into their sequence's mean.
  struct MeanTask {
    Tracked* tracked;
    int first_row;
    int n_tokens;
    bool ends;
  };

  void check_inputs(const SequenceSpec& spec) const;
  void take_inputs(Tracked& tracked, SequenceSpec& spec);
  void after_fork(bool in_child);
  bool has_news(std::span<const int64_t> ids) const;
  bool all_finished(std::vector<int64_t>& ids) const;
  void step(const InterruptFn& interrupted, const HostHook& hook);
  bool prepare(ScheduledBatch& scheduled);
  void fill_batch(const ScheduledBatch& scheduled);
  void add_inputs(const Tracked& tracked, int first_token);
  void add_rows(const ScheduledTokens& item, int first_token);
  int32_t add_output(int token);
  void add_pooled_rows(const ScheduledTokens& item, Tracked& tracked, int first_token);
  void poison_fresh(Tracked& tracked);
  void compute_means();
  void add_to_mean(const MeanTask& task);
  void compute_rows(const InterruptFn& interrupted, const HostHook& hook);
  static bool takes_largest(const RowTask& row);
  static size_t n_masks(std::span<const RowTask> rows);
  void run_hook(std::span<RowTask> rows, float* logits, const HostHook& hook);
  void finish_row(RowTask& row, float* logits, SamplerScratch& scratch) const;
  void commit(const ScheduledBatch& scheduled);
  void store_pooled(const RowTask& row, const float* values) const;
  void commit_pooled(const ScheduledBatch& scheduled);
  void finish_pooled(Tracked& tracked);
  void take_token(Tracked& tracked, SampledToken& sampled);
  void end(Tracked& tracked, FinishReason reason);
  void mark_failed();
  void forget(std::span<const int64_t> ids);
  Tracked* find(int64_t id) const;
  SequenceView take_view(Tracked& tracked) const;

  EngineConfig config_;
  Executor& executor_;
  BlockPool pool_;
  Scheduler scheduler_;
  std::optional<TokenTable> table_;
  std::unordered_map<int64_t, std::unique_ptr<Tracked>> tracked_;
  std::vector<int64_t> removed_;  // to forget after the step under way
  int64_t next_id_ = 0;
  EngineStats stats_;

  mutable std::mutex mutex_;  // everything above but executor_; held between computations
  std::unique_ptr<std::condition_variable> handover_ = std::make_unique<std::condition_variable>();
  bool driving_ = false;
  std::thread::id driver_;  // while driving_

  // Of the step being computed, owned by the driver.
  Batch batch_;
  std::vector<RowTask> rows_;
  std::vector<MeanTask> means_;
  std::vector<uint32_t> masks_;  // (rows with a mask, mask_words(vocab))
  std::vector<SamplerScratch> scratch_;

  ForkHandler fork_handler_;
};

}  // namespace octavo
