// The engine over a small real model: what a sequence gives depends on nothing but itself.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/check.h"
#include "base/dtype.h"
#include "tiny_model.h"

using namespace octavo;
using namespace octavo::test;

namespace {

struct Result {
  std::vector<Token> output;
  std::vector<uint32_t> logprob_bits;
  bool operator==(const Result&) const = default;
};

Result result_of(const SequenceView& view) {
  Result result{view.output, {}};
  for (const TokenLogprobs& row : view.logprobs) result.logprob_bits.push_back(float_to_bits(row.chosen.value));
  return result;
}

Result alone(const std::vector<Token>& prompt, int n, TinyEngine::Options options = {}) {
  TinyEngine tiny(options);
  return result_of(tiny.finish(tiny.add(prompt, n, 0.8f)));
}

std::vector<Result> together(const std::vector<std::vector<Token>>& prompts, int n,
                             const TinyEngine::Options& options) {
  TinyEngine tiny(options);
  std::vector<int64_t> ids;
  for (const auto& prompt : prompts) ids.push_back(tiny.add(prompt, n, 0.8f));
  tiny.engine.run(ids, false, 1e9, nullptr, nullptr);
  tiny.engine.check_integrity();
  std::vector<Result> results;
  for (const SequenceView& view : tiny.engine.updates(ids)) {
    CHECK(view.finish == FinishReason::kLength);
    results.push_back(result_of(view));
  }
  return results;
}

std::vector<std::vector<Token>> some_prompts() {
  std::vector<std::vector<Token>> prompts;
  for (unsigned i = 0; i < 9; ++i) prompts.push_back(random_prompt(1 + 17 * static_cast<int>(i), i));
  prompts.push_back(prompts[8]);  // shares a prefix of whole blocks
  return prompts;
}

constexpr Pooling kPoolings[] = {Pooling::kLast, Pooling::kCls, Pooling::kMean, Pooling::kAll};

std::vector<uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(float_to_bits(value));
  return bits;
}

std::vector<uint32_t> pooled_alone(const std::vector<Token>& prompt, Pooling pooling) {
  TinyEngine tiny({});
  const SequenceView view = tiny.finish(tiny.add_pooling(prompt, pooling));
  CHECK(view.finish == FinishReason::kStop);
  CHECK(view.output.empty());
  return bits_of(view.pooled);
}

// Every way of pooling of every prompt, while other sequences generate.
std::vector<std::vector<uint32_t>> pooled_together(TinyEngine& tiny, const std::vector<std::vector<Token>>& prompts) {
  std::vector<int64_t> ids;
  const std::vector<int64_t> others{tiny.add(random_prompt(30, 50), 60), tiny.add(random_prompt(3, 51), 60)};
  for (const auto& prompt : prompts)
    for (const Pooling pooling : kPoolings) ids.push_back(tiny.add_pooling(prompt, pooling));
  tiny.engine.run(ids, false, 1e9, nullptr, nullptr);
  tiny.engine.check_integrity();
  std::vector<std::vector<uint32_t>> results;
  for (const SequenceView& view : tiny.engine.updates(ids)) results.push_back(bits_of(view.pooled));
  tiny.engine.remove(others);
  return results;
}

// Every second time it is asked, but not for ever: on a slow machine one step asks more than once.
bool interrupts_at(int n_polls) { return n_polls < 100 && n_polls % 2 == 1; }

}  // namespace

TEST_CASE("engine: bits do not depend on batch, chunks, threads, cache or preemption") {
  const auto prompts = some_prompts();
  std::vector<Result> expected;
  for (const auto& prompt : prompts) expected.push_back(alone(prompt, 20));
  for (const int n_threads : {1, 2, 3})
    for (const int chunk : {5, 32, 64})
      for (const bool caching : {false, true}) {
        CAPTURE(n_threads);
        CAPTURE(chunk);
        CAPTURE(caching);
        CHECK(together(prompts, 20, {n_threads, chunk, 64, caching, {}}) == expected);
      }
  TinyEngine::Options tight;
  tight.n_blocks = 9;  // enough for any one sequence, not for all
  CHECK(together(prompts, 20, tight) == expected);
}

TEST_CASE("engine: bits do not depend on ranks") {
  const auto prompts = some_prompts();
  const auto expected = together(prompts, 20, {});
  for (const int n_threads : {2, 3, 5})
    for (const int n_ranks : {2, 3}) {
      CAPTURE(n_threads);
      CAPTURE(n_ranks);
      CHECK(together(prompts, 20, {.n_threads = n_threads, .n_ranks = n_ranks}) == expected);
    }
}

TEST_CASE("engine: every weight format runs, alone and in a batch alike") {
  for (const FormatRow& row : all_formats()) {
    TinyEngine::Options options;
    options.shape.format = row.format;
    if (row.block_size > 32) {
      options.shape.hidden = options.shape.ffn = 256;
      options.shape.head_dim = 64;
    }
    const auto prompt = random_prompt(40, 3);
    CAPTURE(row.name);
    const Result expected = alone(prompt, 8, options);
    options.max_batched_tokens = 16;
    CHECK(together({random_prompt(30, 4), prompt}, 8, options)[1] == expected);
  }
}

TEST_CASE("engine: an interrupted step is repeated and changes nothing") {
  const auto prompt = random_prompt(600, 5);
  const Result expected = alone(prompt, 6);
  TinyEngine tiny({});
  const std::vector<int64_t> ids{tiny.add(prompt, 6, 0.8f)};
  int n_polls = 0;
  for (int tries = 0; tries < 1000; ++tries) {
    try {
      tiny.engine.run(
          ids, false, 1e9, [&] { return interrupts_at(++n_polls); }, nullptr);
      break;
    } catch (const Interrupted&) {
    }
  }
  CHECK(result_of(tiny.engine.updates(ids).at(0)) == expected);
}

TEST_CASE("engine: several threads drive one engine") {
  const auto prompts = some_prompts();
  TinyEngine tiny({});
  std::vector<Result> results(prompts.size());
  std::vector<std::thread> callers;
  for (size_t i = 0; i < prompts.size(); ++i)
    callers.emplace_back([&, i] { results[i] = result_of(tiny.finish(tiny.add(prompts[i], 12, 0.8f))); });
  for (auto& caller : callers) caller.join();
  for (size_t i = 0; i < prompts.size(); ++i) CHECK(results[i] == alone(prompts[i], 12));
}

TEST_CASE("engine: a child that is forked in the middle of a step goes on with the engine") {
  const auto prompt = random_prompt(50, 8);
  const Result expected = alone(prompt, 10);
  TinyEngine tiny({});
  std::atomic<bool> stop = false;
  std::vector<std::thread> drivers;  // one computes, the other waits for its turn
  for (unsigned i = 0; i < 2; ++i)
    drivers.emplace_back([&, i] {
      while (!stop) tiny.finish(tiny.add(random_prompt(200, i), 50));
    });
  for (int i = 0; i < 20; ++i) {
    usleep(static_cast<useconds_t>(137 * i));
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // a child that hangs ends by a signal
      _exit(result_of(tiny.finish(tiny.add(prompt, 10, 0.8f))) == expected ? 0 : 1);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  stop = true;
  for (auto& driver : drivers) driver.join();
  CHECK(result_of(tiny.finish(tiny.add(prompt, 10, 0.8f))) == expected);
}

TEST_CASE("engine: a removed sequence frees its blocks and leaves the others alone") {
  TinyEngine tiny({});
  const auto prompt = random_prompt(50, 8);
  const std::vector<int64_t> ids{tiny.add(random_prompt(100, 9), 500), tiny.add(prompt, 10, 0.8f)};
  tiny.engine.run(ids, true, 1e9, nullptr, nullptr);
  tiny.engine.remove(std::span(ids).first(1));
  CHECK(result_of(tiny.finish(ids[1])) == alone(prompt, 10));
  const EngineStats stats = tiny.engine.stats();
  CHECK(stats.n_running == 0);
  CHECK(stats.n_free_blocks == stats.n_blocks);
}

TEST_CASE("engine: a sequence that outgrows the pool ends with an error of its own") {
  TinyEngine::Options options;
  options.n_blocks = 3;
  TinyEngine tiny(options);
  const std::vector<int64_t> ids{tiny.add(random_prompt(60, 1), 200), tiny.add(random_prompt(20, 2), 10)};
  tiny.engine.run(ids, false, 1e9, nullptr, nullptr);
  const auto views = tiny.engine.updates(ids);
  CHECK(views.at(0).finish == FinishReason::kError);
  CHECK(views.at(0).error.find("KV cache") != std::string::npos);
  CHECK(views.at(1).finish == FinishReason::kLength);
}

TEST_CASE("engine: the host hook changes rows, and masked rows end their request") {
  TinyEngine tiny({});
  SequenceSpec spec;
  spec.prompt = random_prompt(5, 1);
  spec.sampling.temperature = 0;
  spec.sampling.max_tokens = 4;
  spec.sampling.host_hook = true;
  const std::vector<int64_t> ids{tiny.engine.add(spec), tiny.engine.add(spec)};
  const HostHook hook = [&](std::span<const HookRow> rows) {
    for (const HookRow& row : rows)
      for (int id = 0; id < 96; ++id)
        if (row.id == ids[1] || id != 42) row.logits[id] = -INFINITY;
  };
  tiny.engine.run(ids, false, 1e9, nullptr, hook);
  const auto views = tiny.engine.updates(ids);
  CHECK(views.at(0).output == std::vector<Token>{42, 42, 42, 42});
  CHECK(views.at(1).finish == FinishReason::kError);
}

TEST_CASE("engine: updates bring what is new, and together all of it") {
  const auto prompt = random_prompt(50, 8);
  TinyEngine tiny({.max_batched_tokens = 16});
  TokenTable table;
  for (int id = 0; id < 96; ++id) table.add(std::string(1, static_cast<char>(' ' + id % 90)), 0);
  tiny.engine.set_token_table(table);
  const std::vector<int64_t> ids{tiny.add(prompt, 20, 0.8f)};
  SequenceView all;
  while (all.finish == FinishReason::kNone) {
    tiny.engine.run(ids, true, 1e9, nullptr, nullptr);
    const SequenceView view = tiny.engine.updates(ids).at(0);
    CHECK(view.output.size() == 1);
    CHECK(view.logprobs.size() == 1);
    CHECK(view.text.size() <= 1);
    all.output.insert(all.output.end(), view.output.begin(), view.output.end());
    all.logprobs.insert(all.logprobs.end(), view.logprobs.begin(), view.logprobs.end());
    all.text += view.text;
    all.finish = view.finish;
  }
  CHECK(result_of(all) == alone(prompt, 20));
  CHECK(all.text.size() == 20);
  CHECK(tiny.engine.updates(ids).empty());
}

TEST_CASE("engine: pooled bits do not depend on batch, chunks, threads, cache or preemption") {
  const auto prompts = some_prompts();
  std::vector<std::vector<uint32_t>> expected;
  for (const auto& prompt : prompts)
    for (const Pooling pooling : kPoolings) expected.push_back(pooled_alone(prompt, pooling));
  for (const int n_threads : {1, 2, 3})
    for (const int chunk : {5, 32, 64})
      for (const bool bidirectional : {false, true}) {
        CAPTURE(n_threads);
        CAPTURE(chunk);
        CAPTURE(bidirectional);
        TinyEngine tiny({n_threads, chunk, 64, true, {}, bidirectional});
        CHECK(pooled_together(tiny, prompts) == expected);
      }
  TinyEngine tight({.max_batched_tokens = 8, .n_blocks = 6});
  CHECK(pooled_together(tight, prompts) == expected);
}

TEST_CASE("engine: a pooling sequence that loses its blocks starts over") {
  const auto prompt = random_prompt(130, 3);
  for (const Pooling pooling : kPoolings) {
    TinyEngine tiny({.max_batched_tokens = 8, .n_blocks = 6});
    tiny.add(random_prompt(30, 50), 10);  // takes a block of the other in its third step
    const SequenceView view = tiny.finish(tiny.add_pooling(prompt, pooling));
    CHECK(tiny.engine.stats().n_preemptions == 1);
    CHECK(bits_of(view.pooled) == pooled_alone(prompt, pooling));
  }
}

TEST_CASE("engine: last, cls and mean are what the rows of all say") {
  // A head without a norm or a matrix, so that pooled rows are the body's rows themselves.
  const auto prompt = random_prompt(75, 4);
  TinyEngine tiny({.max_batched_tokens = 16, .shape = {.bare_head = true}});
  const auto pooled = [&](Pooling pooling) { return tiny.finish(tiny.add_pooling(prompt, pooling)).pooled; };
  const std::vector<float> all = pooled(Pooling::kAll);
  const size_t width = 64;
  REQUIRE(all.size() == prompt.size() * width);
  std::vector<float> mean(all.begin(), all.begin() + width);
  for (size_t i = width; i < all.size(); ++i) mean[i % width] += all[i];
  for (float& value : mean) value /= 75.0f;
  CHECK(bits_of(pooled(Pooling::kMean)) == bits_of(mean));
  CHECK(bits_of(pooled(Pooling::kCls)) == bits_of({all.begin(), all.begin() + width}));
  CHECK(bits_of(pooled(Pooling::kLast)) == bits_of({all.end() - width, all.end()}));
}

TEST_CASE("engine: only pooling the last row reads the prefix cache") {
  const auto prompt = random_prompt(70, 6);
  TinyEngine tiny({});
  for (const Pooling pooling : kPoolings) {
    tiny.finish(tiny.add_pooling(prompt, pooling));
    const SequenceView view = tiny.finish(tiny.add_pooling(prompt, pooling));
    CHECK(view.n_cached == (pooling == Pooling::kLast ? 64 : 0));
    CHECK(bits_of(view.pooled) == pooled_alone(prompt, pooling));
  }
}

TEST_CASE("engine: an interrupted mean is repeated and counts no row twice") {
  const auto prompt = random_prompt(600, 5);
  TinyEngine tiny({.max_batched_tokens = 512});
  const std::vector<int64_t> ids{tiny.add_pooling(prompt, Pooling::kMean)};
  int n_polls = 0;
  for (bool done = false; !done && n_polls < 1000;) {
    try {
      tiny.engine.run(
          ids, false, 1e9, [&] { return interrupts_at(++n_polls); }, nullptr);
      done = true;
    } catch (const Interrupted&) {
    }
  }
  CHECK(bits_of(tiny.engine.updates(ids).at(0).pooled) == pooled_alone(prompt, Pooling::kMean));
}

TEST_CASE("engine: sequences with other ropes share no prefix") {
  const auto prompt = random_prompt(70, 6);
  for (const bool longrope : {false, true}) {
    TinyEngine tiny({.shape = {.rope_switch_length = 90, .longrope = longrope}});
    const auto run = [&](int max_tokens) { return tiny.finish(tiny.add(prompt, max_tokens, 0.8f)); };
    const SequenceView near = run(20), far = run(21);
    CHECK(near.n_cached == 0);
    CHECK(far.n_cached == 0);
    CHECK(!(result_of(far).logprob_bits[0] == result_of(near).logprob_bits[0]));
    const SequenceView near_again = run(20), far_again = run(21);
    CHECK(near_again.n_cached == 64);
    CHECK(far_again.n_cached == 64);
    CHECK(result_of(near_again) == result_of(near));
    CHECK(result_of(far_again) == result_of(far));
    CHECK(run(22).n_cached == (longrope ? 64 : 0));
  }
}

TEST_CASE("engine: given embeddings take the place of the tokens' own") {
  const auto prompt = random_prompt(130, 4);
  const Result expected = alone(prompt, 20);
  for (const int n_threads : {1, 3})
    for (const int chunk : {7, 64}) {
      TinyEngine tiny({.n_threads = n_threads, .max_batched_tokens = chunk, .n_blocks = 6});
      SequenceSpec spec;
      spec.prompt.assign(prompt.size(), 0);
      spec.sampling.temperature = 0.8f;
      spec.sampling.seed = 11;
      spec.sampling.max_tokens = 20;
      spec.sampling.logprobs = 2;
      for (const Token token : prompt) {
        const auto row = tiny.model.embedding_rows().begin() + token * 64;
        spec.embeds.insert(spec.embeds.end(), row, row + 64);
      }
      const int64_t first = tiny.add(random_prompt(30, 50), 40);  // takes blocks of the other
      const SequenceView view = tiny.finish(tiny.engine.add(spec));
      CHECK(result_of(view) == expected);
      CHECK(tiny.engine.stats().n_preemptions == 1);
      CHECK(tiny.finish(first).finish == FinishReason::kLength);
      CHECK(result_of(tiny.finish(tiny.add(spec.prompt, 20, 0.8f))) == alone(spec.prompt, 20));
      CHECK(result_of(tiny.finish(tiny.engine.add(spec))) == expected);
    }
}

TEST_CASE("engine: token types and embeddings must be as many as the prompt's tokens") {
  TinyEngine tiny({});
  SequenceSpec spec;
  spec.prompt = random_prompt(5, 1);
  spec.token_types = {0, 1};
  CHECK_THROWS_WITH_AS(tiny.engine.add(spec), doctest::Contains("2 token types"), Error);
  spec.token_types.clear();
  spec.embeds.resize(7);
  CHECK_THROWS_WITH_AS(tiny.engine.add(spec), doctest::Contains("expected 320"), Error);
}

TEST_CASE("engine: the masks of a step's rows come in one call, one after the other") {
  TinyEngine tiny({});
  SequenceSpec spec;
  spec.prompt = random_prompt(5, 1);
  spec.sampling.temperature = 0;
  spec.sampling.max_tokens = 3;
  spec.sampling.host_mask = true;
  const std::vector<int64_t> ids{tiny.engine.add(spec), tiny.engine.add(spec), tiny.add(random_prompt(9, 2), 3)};
  int n_calls = 0;
  const HostHook hook = [&](std::span<const HookRow> rows) {
    ++n_calls;
    REQUIRE(rows.size() == 2);
    CHECK(rows[1].mask == rows[0].mask + mask_words(96));
    for (const HookRow& row : rows) {
      CHECK(row.logits == nullptr);
      CHECK(std::all_of(row.mask, row.mask + mask_words(96), [](uint32_t word) { return word == 0; }));
      const int id = row.id == ids[0] ? 40 : 41;
      row.mask[id / 32] = 1u << (id % 32);
    }
  };
  tiny.engine.run(ids, false, 1e9, nullptr, hook);
  const auto views = tiny.engine.updates(ids);
  CHECK(views.at(0).output == std::vector<Token>{40, 40, 40});
  CHECK(views.at(1).output == std::vector<Token>{41, 41, 41});
  CHECK(views.at(2).finish == FinishReason::kLength);
  CHECK(n_calls == 3);
}
