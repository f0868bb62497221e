#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "engine/scheduler.h"

using namespace octavo;

namespace {

// A stand-in for the model: what KV each slot of each block holds is the running hash of all tokens up to there, so a
// step that would attend to a wrong or missing key is noticed.
struct FakeModel {
  int block_size;
  std::map<std::pair<int32_t, int>, uint64_t> kv;

  static uint64_t mix(uint64_t state, Token token) {
    state = (state ^ static_cast<uint64_t>(token)) * 0x9E3779B97F4A7C15ull;
    return state ^ (state >> 29);
  }

  uint64_t& slot(const Sequence& seq, int position) {
    return kv[{seq.blocks.at(static_cast<size_t>(position / block_size)), position % block_size}];
  }

  // Returns the state after the last computed token.
  uint64_t run(const ScheduledTokens& item) {
    const Sequence& seq = *item.seq;
    uint64_t state = std::hash<std::string>()(seq.cache_salt);
    for (int i = 0; i < seq.n_computed + item.n_tokens; ++i) {
      state = mix(state, seq.tokens[static_cast<size_t>(i)]);
      if (i < seq.n_computed) {
        REQUIRE(slot(seq, i) == state);
      } else {
        slot(seq, i) = state;
      }
    }
    return state;
  }
};

struct Bench {
  SchedulerConfig config;
  BlockPool pool;
  Scheduler scheduler;
  FakeModel model;
  std::vector<std::unique_ptr<Sequence>> sequences;

  Bench(const SchedulerConfig& c, int n_blocks, int block_size, bool caching = true)
      : config(c), pool(n_blocks, block_size, caching), scheduler(config, pool), model{block_size, {}} {}

  Sequence& add(std::vector<Token> prompt, int max_tokens, int priority = 0) {
    sequences.push_back(std::make_unique<Sequence>());
    Sequence& seq = *sequences.back();
    seq.id = static_cast<int64_t>(sequences.size()) - 1;
    seq.tokens = std::move(prompt);
    seq.n_prompt = seq.n_tokens();
    seq.priority = priority;
    seq.sampling.max_tokens = max_tokens;
    scheduler.add(seq);
    return seq;
  }

  void compute(const ScheduledBatch& batch) {
    std::vector<std::pair<Sequence*, Token>> sampled;
    for (const ScheduledTokens& item : batch.items) {
      const uint64_t state = model.run(item);
      if (item.reaches_end()) sampled.emplace_back(item.seq, static_cast<Token>(state % 3));
    }
    scheduler.commit(batch);
    for (const auto& [seq, token] : sampled) {
      append_token(*seq, token, config.max_model_len);
      if (seq->finished()) scheduler.finish(*seq, seq->finish);
    }
  }

  ScheduledBatch step() {
    const ScheduledBatch batch = scheduler.schedule();
    scheduler.check_integrity();
    compute(batch);
    scheduler.check_integrity();
    return batch;
  }

  void run_all(int most_steps = 10000) {
    for (int i = 0; scheduler.has_work(); ++i) {
      REQUIRE(i < most_steps);
      step();
    }
  }
};

// The output a sequence has when it is alone.
std::vector<Token> alone(const Sequence& seq, int max_model_len) {
  Bench bench({.max_num_batched_tokens = 1000, .max_model_len = max_model_len}, 1000, 4, false);
  Sequence& copy = bench.add(std::vector<Token>(seq.prompt().begin(), seq.prompt().end()), 0);
  copy.sampling = seq.sampling;
  copy.cache_salt = seq.cache_salt;
  bench.run_all();
  return copy.tokens;
}

std::vector<Token> counting(int n, Token first = 0) {
  std::vector<Token> tokens(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) tokens[static_cast<size_t>(i)] = first + i;
  return tokens;
}

std::vector<int64_t> ids(const ScheduledBatch& batch) {
  std::vector<int64_t> result;
  for (const ScheduledTokens& item : batch.items) result.push_back(item.seq->id);
  return result;
}

using Ids = std::vector<int64_t>;

}  // namespace

TEST_CASE("scheduler: prompts are cut to the token budget, decodes come first") {
  Bench bench({.max_num_batched_tokens = 8}, 100, 4);
  bench.add(counting(5), 4);
  bench.add(counting(20, 100), 4);
  ScheduledBatch batch = bench.step();
  REQUIRE(ids(batch) == Ids{0, 1});
  CHECK(batch.items[0].n_tokens == 5);
  CHECK(batch.items[1].n_tokens == 3);
  batch = bench.step();
  CHECK(batch.items[0].n_tokens == 1);
  CHECK(batch.items[1].n_tokens == 7);
  CHECK(batch.n_tokens == 8);
}

TEST_CASE("scheduler: without chunked prefill a prompt goes in whole, even past the budget") {
  Bench bench({.max_num_batched_tokens = 8, .enable_chunked_prefill = false}, 100, 4);
  bench.add(counting(5), 2);
  bench.add(counting(20, 100), 2);
  CHECK(ids(bench.step()) == Ids{0});
  CHECK(ids(bench.step()) == Ids{0});
  const ScheduledBatch batch = bench.step();
  CHECK(ids(batch) == Ids{1});
  CHECK(batch.n_tokens == 20);
}

TEST_CASE("scheduler: bidirectional sequences go in whole and share nothing") {
  Bench bench({.max_num_batched_tokens = 8}, 100, 4);
  for (int i = 0; i < 3; ++i) bench.add(counting(i == 0 ? 20 : 4), 1).bidirectional = true;
  CHECK(bench.step().n_tokens == 20);
  CHECK(ids(bench.step()) == Ids{1, 2});
  CHECK(bench.pool.n_cached() == 0);
  CHECK(!bench.scheduler.has_work());
}

TEST_CASE("scheduler: a cached prefix is not computed again, the last token always is") {
  Bench bench({.max_num_batched_tokens = 64}, 100, 4);
  bench.add(counting(12), 1);
  bench.run_all();
  CHECK(bench.pool.n_cached() == 3);
  Sequence& same = bench.add(counting(12), 1);
  Sequence& longer = bench.add(counting(14), 1);
  Sequence& salted = bench.add(counting(12), 1);
  salted.cache_salt = "other";
  Sequence& logprobs = bench.add(counting(12), 1);
  logprobs.sampling.prompt_logprobs = 0;
  const ScheduledBatch batch = bench.step();
  CHECK(same.n_cached == 8);
  CHECK(longer.n_cached == 12);
  CHECK(salted.n_cached == 0);
  CHECK(logprobs.n_cached == 0);
  CHECK(batch.n_tokens == 4 + 2 + 12 + 12);
  Sequence& same_salt = bench.add(counting(12), 1);
  same_salt.cache_salt = "other";
  bench.step();
  CHECK(same_salt.n_cached == 8);
}

TEST_CASE("scheduler: a prefix that is being computed is awaited, others pass") {
  Bench bench({.max_num_batched_tokens = 64}, 100, 4);
  bench.add(counting(10), 5);
  Sequence& twin = bench.add(counting(10), 5);
  bench.add(counting(10, 50), 5);
  CHECK(ids(bench.step()) == Ids{0, 2});
  const ScheduledBatch batch = bench.step();
  CHECK(ids(batch) == Ids{0, 2, 1});
  CHECK(twin.n_cached == 8);
  bench.run_all();
}

TEST_CASE("scheduler: a dropped step is scheduled again with the same tokens") {
  Bench bench({.max_num_batched_tokens = 8}, 20, 4);
  for (int i = 0; i < 4; ++i) bench.add(counting(6, 10 * i), 6);
  while (bench.scheduler.has_work()) {
    const ScheduledBatch dropped = bench.scheduler.schedule();
    bench.scheduler.check_integrity();
    const int n_free = bench.pool.n_free();
    const ScheduledBatch batch = bench.scheduler.schedule();
    CHECK(ids(batch) == ids(dropped));
    CHECK(batch.n_tokens == dropped.n_tokens);
    CHECK(bench.pool.n_free() == n_free);
    bench.compute(batch);
  }
  for (const auto& seq : bench.sequences) CHECK(seq->tokens == alone(*seq, bench.config.max_model_len));
}

TEST_CASE("scheduler: when blocks run out the last one starts over and still ends right") {
  for (const SchedulingPolicy policy : {SchedulingPolicy::kFcfs, SchedulingPolicy::kPriority}) {
    Bench bench({.max_num_batched_tokens = 64, .policy = policy}, 6, 4);
    Sequence& first = bench.add(counting(8), 12, 1);
    Sequence& second = bench.add(counting(8, 50), 12, 0);
    bench.run_all();
    Sequence& victim = policy == SchedulingPolicy::kFcfs ? second : first;
    CHECK(victim.n_preemptions > 0);
    CHECK((&victim == &first ? second : first).n_preemptions == 0);
    for (const auto& seq : bench.sequences) CHECK(seq->tokens == alone(*seq, bench.config.max_model_len));
  }
}

TEST_CASE("scheduler: priority decides who is admitted") {
  Bench bench({.max_num_seqs = 1, .policy = SchedulingPolicy::kPriority}, 100, 4);
  bench.add(counting(3), 2, 5);
  bench.add(counting(3, 50), 2, 1);
  bench.add(counting(3, 90), 2, 1);
  CHECK(ids(bench.step()) == Ids{1});
  bench.step();
  CHECK(ids(bench.step()) == Ids{2});
  bench.step();
  CHECK(ids(bench.step()) == Ids{0});
}

TEST_CASE("scheduler: what can never fit is an error of that request alone") {
  Bench bench({.max_num_batched_tokens = 16, .max_model_len = 100}, 4, 4);
  Sequence& too_long = bench.add(counting(17), 1);
  Sequence& way_too_long = bench.add(counting(101), 1);
  Sequence& empty = bench.add({}, 1);
  Sequence& outgrows = bench.add(counting(10), 50);
  Sequence& fits = bench.add(counting(10, 50), 7);  // its last token needs no KV
  bench.run_all();
  for (const Sequence* seq : {&too_long, &way_too_long, &empty, &outgrows}) {
    CHECK(seq->finish == FinishReason::kError);
    CHECK(!seq->error.empty());
  }
  CHECK(outgrows.n_tokens() == 17);
  CHECK(fits.finish == FinishReason::kLength);
  CHECK(fits.n_tokens() == 17);
  CHECK(bench.scheduler.take_failed().size() == 4);
  CHECK(bench.scheduler.take_failed().empty());
  CHECK(bench.pool.n_free() == 4);
}

TEST_CASE("scheduler: stop order is eos, stop ids, length; none of the first two before min_tokens") {
  Sequence seq;
  seq.sampling.eos_token_ids = {7};
  seq.sampling.stop_token_ids = {7, 8};
  seq.sampling.max_tokens = 2;
  seq.sampling.min_tokens = 2;
  append_token(seq, 8, 100);
  CHECK(!seq.finished());
  append_token(seq, 8, 100);
  CHECK(seq.finish == FinishReason::kStop);
  CHECK(seq.stop_token == 8);
  Sequence masked = seq;
  masked.tokens = {1};
  masked.sampling.host_mask = true;
  masked.sampling.min_tokens = 9;
  append_token(masked, 7, 100);
  CHECK(masked.finish == FinishReason::kStop);
  Sequence eos = seq;
  eos.tokens = {1};
  eos.stop_token = -1;
  append_token(eos, 7, 2);
  CHECK(eos.finish == FinishReason::kStop);
  CHECK(eos.stop_token == -1);
  Sequence ignoring = seq;
  ignoring.tokens = {1};
  ignoring.sampling.ignore_eos = true;
  append_token(ignoring, 7, 100);
  CHECK(ignoring.stop_token == 7);
  Sequence full;
  full.tokens = {1, 2, 3};
  full.n_prompt = 3;
  append_token(full, 1, 4);
  CHECK(full.finish == FinishReason::kLength);
}

TEST_CASE("scheduler: random requests on tiny pools all end as if alone") {
  int n_preempted = 0, n_hits = 0, n_steps = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(random); };
    const SchedulerConfig config = {.max_num_seqs = pick(1, 6),
                                    .max_num_batched_tokens = pick(1, 24),
                                    .max_model_len = 40,
                                    .policy = pick(0, 1) ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs,
                                    .enable_chunked_prefill = pick(0, 3) > 0};
    Bench bench(config, pick(4, 14), pick(1, 5), pick(0, 4) > 0);
    int n_to_add = 40;
    for (int step = 0; n_to_add > 0 || bench.scheduler.has_work(); ++step, ++n_steps) {
      REQUIRE(step < 20000);
      while (n_to_add > 0 && pick(0, 2) == 0) {
        // Few distinct tokens and common beginnings make the prefix cache hit.
        std::vector<Token> prompt(static_cast<size_t>(pick(1, 25)));
        for (Token& token : prompt) token = pick(0, 8) == 0 ? 1 : 0;
        Sequence& seq = bench.add(prompt, pick(1, 12), pick(0, 2));
        if (pick(0, 5) == 0) seq.cache_salt = "salt";
        if (pick(0, 5) == 0) seq.sampling.prompt_logprobs = 1;
        --n_to_add;
      }
      if (pick(0, 15) == 0 && !bench.sequences.empty()) {
        Sequence& seq = *bench.sequences[random() % bench.sequences.size()];
        if (!seq.finished()) bench.scheduler.abort(seq);
        bench.scheduler.check_integrity();
      }
      if (pick(0, 9) == 0) {
        bench.scheduler.schedule();  // a step that is dropped
        bench.scheduler.check_integrity();
      }
      const ScheduledBatch batch = bench.step();
      // No empty step while there is work, unless a sequence has just failed.
      if (bench.scheduler.has_work() && batch.items.empty()) REQUIRE(!bench.scheduler.take_failed().empty());
      REQUIRE(bench.scheduler.n_running() <= config.max_num_seqs);
      if (config.enable_chunked_prefill) REQUIRE(batch.n_tokens <= config.max_num_batched_tokens);
    }
    CHECK(bench.pool.n_free() == bench.pool.n_blocks());
    for (const auto& seq : bench.sequences) {
      REQUIRE(seq->finished());
      n_preempted += seq->n_preemptions > 0;
      n_hits += seq->n_cached > 0;
      if (seq->finish == FinishReason::kError) {
        CHECK(bench.pool.blocks_for(seq->n_tokens()) > bench.pool.n_blocks());
      } else {
        const std::vector<Token> expected = alone(*seq, config.max_model_len);
        REQUIRE(seq->n_tokens() <= static_cast<int>(expected.size()));
        CHECK(std::equal(seq->tokens.begin(), seq->tokens.end(), expected.begin()));
        if (seq->finish != FinishReason::kAbort) CHECK(seq->tokens.size() == expected.size());
      }
    }
  }
  CHECK(n_preempted > 50);
  CHECK(n_hits > 50);
  CHECK(n_steps > 2000);
}

TEST_CASE("scheduler: fcfs never lets a later sequence run while an earlier one is out of room") {
  std::mt19937 random(7);
  Bench bench({.max_num_seqs = 4, .max_num_batched_tokens = 16, .max_model_len = 60}, 10, 4, false);
  for (int i = 0; i < 60; ++i) bench.add(counting(1 + static_cast<int>(random() % 20), 100 * i), 8);
  int64_t first_unfinished = 0;
  while (bench.scheduler.has_work()) {
    const ScheduledBatch batch = bench.step();
    // The batch is a run of arrivals without a gap: all running ones precede all waiting ones.
    for (size_t i = 1; i < batch.items.size(); ++i) {
      CHECK(batch.items[i].seq->arrival > batch.items[i - 1].seq->arrival);
    }
    while (first_unfinished < 60 && bench.sequences[static_cast<size_t>(first_unfinished)]->finished()) {
      ++first_unfinished;
    }
    const auto running = bench.scheduler.running();
    if (!running.empty()) CHECK(running.front()->id == first_unfinished);
  }
}
