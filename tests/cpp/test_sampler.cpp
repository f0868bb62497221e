#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "engine/sampler.h"
#include "engine/select.h"
#include "engine/sequence.h"

using namespace octavo;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The two kernels the sampler uses, in plain C++.
KernelTable plain_table() {
  KernelTable table{};
  table.argmax = [](const float* x, int n) {
    int best = 0;
    float value = -kInf;
    for (int i = 0; i < n; ++i) {
      if (x[i] > value) value = x[best = i];
    }
    return best;
  };
  table.exp_sum = [](float* out, const float* x, int n, float max, float scale) {
    float sum = 0;
    for (int i = 0; i < n; ++i) {
      const float e = std::exp((x[i] - max) * scale);
      if (out != nullptr) out[i] = e;
      sum += e;
    }
    return sum;
  };
  return table;
}

const KernelTable kTable = plain_table();

using Row = std::vector<float>;

struct Case {
  Row logits;
  SamplingConfig config;
  std::vector<Token> prompt, output;
  NoiseKey noise = seeded_noise(1, 0);
};

SampledToken sample(const Case& c, SamplerScratch& scratch) {
  SampledToken out;
  Row row = c.logits;
  sample_row(out, row.data(), static_cast<int>(row.size()), c.config, {c.prompt, c.output}, c.noise, kTable, scratch);
  return out;
}

SampledToken sample(const Case& c) {
  SamplerScratch scratch;
  return sample(c, scratch);
}

// The written semantics, step by step, with sorting and without tricks.
Row reference_processed(const Case& c) {
  Row x = c.logits;
  const SamplingConfig& config = c.config;
  const auto mask = [&](Token id) { x[static_cast<size_t>(id)] = -kInf; };
  if (!config.allowed_token_ids.empty()) {
    const std::set<Token> allowed(config.allowed_token_ids.begin(), config.allowed_token_ids.end());
    for (Token id = 0; id < static_cast<Token>(x.size()); ++id) {
      if (!allowed.contains(id)) mask(id);
    }
  }
  for (const auto& word : config.bad_words) {
    std::vector<Token> recent(c.output.end() - std::min<long>(static_cast<long>(word.size()) - 1, std::ssize(c.output)),
                              c.output.end());
    recent.push_back(word.back());
    if (recent == word) mask(word.back());
  }
  if (std::ssize(c.output) < config.min_tokens) {
    for (const Token id : config.eos_token_ids) mask(id);
    for (const Token id : config.stop_token_ids) mask(id);
  }
  for (const TokenBias& entry : config.logit_bias) x[static_cast<size_t>(entry.id)] += entry.bias;
  std::map<Token, int> counts;
  for (const Token id : c.prompt) counts[id] += 0;
  for (const Token id : c.output) ++counts[id];
  for (const auto& [id, count] : counts) {
    float& logit = x[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / config.repetition_penalty : logit * config.repetition_penalty;
    logit -= config.frequency_penalty * static_cast<float>(count);
    logit -= config.presence_penalty * (count > 0 ? 1.0f : 0.0f);
  }
  return x;
}

// Ids that can be drawn, with their weights.
std::map<Token, double> reference_candidates(const Row& x, const SamplingConfig& config) {
  std::vector<Token> order;
  for (Token id = 0; id < static_cast<Token>(x.size()); ++id) {
    if (x[static_cast<size_t>(id)] > -kInf) order.push_back(id);
  }
  const auto value = [&](Token id) { return x[static_cast<size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) { return value(a) > value(b); });
  const float max = value(order.front());
  const auto weight = [&](Token id) {
    return static_cast<double>(std::exp((value(id) - max) * (1.0f / config.temperature)));
  };
  // Weights below the smallest normal float count as zero.
  const auto least = static_cast<double>(std::max(config.min_p, std::numeric_limits<float>::min()));
  std::erase_if(order, [&](Token id) { return weight(id) < least; });
  if (config.top_k > 0 && config.top_k < std::ssize(order)) {
    const float kth = value(order[static_cast<size_t>(config.top_k) - 1]);
    std::erase_if(order, [&](Token id) { return value(id) < kth; });
  }
  double total = 0;
  for (const Token id : order) total += weight(id);
  std::map<Token, double> kept;
  double above = 0;
  for (const Token id : order) {
    if (config.top_p < 1.0f && !kept.empty() && above >= static_cast<double>(config.top_p) * total) break;
    kept[id] = weight(id);
    above += weight(id);
  }
  return kept;
}

Token reference_race(const std::map<Token, double>& kept, const NoiseKey& noise, size_t position) {
  Token winner = -1;
  double best = std::numeric_limits<double>::infinity();
  for (const auto& [id, weight] : kept) {
    const auto word = static_cast<uint32_t>(id);
    const double u = uniform(noise_words(noise, static_cast<uint32_t>(position), word / 4)[word % 4]);
    if (-std::log1p(-u) / weight < best) {
      best = -std::log1p(-u) / weight;
      winner = id;
    }
  }
  return winner;
}

Row random_row(std::mt19937& random, int vocab, bool with_ties) {
  std::normal_distribution<float> normal(0.0f, 3.0f);
  Row row(static_cast<size_t>(vocab));
  for (float& x : row) x = with_ties ? std::round(normal(random)) / 2 : normal(random);
  return row;
}

template <class T>
T pick(std::mt19937& random, std::initializer_list<T> choices) {
  return *(choices.begin() + random() % choices.size());
}

std::vector<Token> random_ids(std::mt19937& random, int vocab, int n) {
  std::vector<Token> ids(static_cast<size_t>(n));
  for (Token& id : ids) id = static_cast<Token>(random() % static_cast<uint32_t>(vocab));
  return ids;
}

Case random_case(std::mt19937& random) {
  const int vocab = pick(random, {5, 33, 200, 3000});
  Case c;
  c.logits = random_row(random, vocab, random() % 2 == 0);
  for (int i = 0; i < 3; ++i) {
    if (random() % 4 == 0) c.logits[random() % c.logits.size()] = pick(random, {-kInf, kNan, 0.0f, -0.0f});
  }
  SamplingConfig& config = c.config;
  config.temperature = pick(random, {0.0f, 0.01f, 0.7f, 1.0f, 2.0f});
  config.top_k = pick(random, {0, 0, 1, 2, 17, 5000});
  config.top_p = pick(random, {1.0f, 1.0f, 0.95f, 0.5f, 1e-6f});
  config.min_p = pick(random, {0.0f, 0.0f, 0.05f, 1.0f});
  config.repetition_penalty = pick(random, {1.0f, 1.3f, 0.8f});
  config.frequency_penalty = pick(random, {0.0f, 0.4f, -1.5f});
  config.presence_penalty = pick(random, {0.0f, 0.6f, -2.0f});
  config.min_tokens = pick(random, {0, 4});
  config.eos_token_ids = {0};
  config.stop_token_ids = random_ids(random, vocab, 2);
  c.prompt = random_ids(random, vocab, static_cast<int>(random() % 6));
  c.output = random_ids(random, vocab, static_cast<int>(random() % 8));
  if (random() % 4 == 0) config.allowed_token_ids = random_ids(random, vocab, 4);
  if (random() % 4 == 0) config.logit_bias = {{random_ids(random, vocab, 1)[0], 5.0f}, {1, -100.0f}};
  for (int i = 0; i < 3; ++i) config.bad_words.push_back(random_ids(random, vocab, 1 + i % 2));
  if (c.output.size() > 2) config.bad_words.push_back({c.output.end()[-2], c.output.end()[-1], 2});
  c.noise = random() % 2 ? seeded_noise(random(), 0) : engine_noise(0, random(), 1);
  return c;
}

}  // namespace

TEST_CASE("process_logits: under a mask that leaves only ends, min_tokens does not bar them") {
  SamplingConfig config;
  config.eos_token_ids = {1};
  config.stop_token_ids = {2};
  config.min_tokens = 3;
  const auto processed = [&](Row row) {
    SamplerScratch scratch;
    process_logits(row.data(), static_cast<int>(row.size()), config, {}, scratch);
    return row;
  };
  const Row over = {-kInf, 0.5f, -kInf, -kInf}, open = {-kInf, 0.5f, 0.25f, 0.0f}, barred = {-kInf, -kInf, -kInf, 0.0f};
  CHECK(processed(over) == Row(4, -kInf));
  config.host_mask = true;
  CHECK(processed(over) == over);
  CHECK(processed(open) == barred);
}

TEST_CASE("select: order keys follow the order of floats") {
  const Row values = {-kInf, -3e38f, -1.0f, -1e-40f, 0.0f, 1e-40f, 1.0f, 3e38f, kInf};
  for (size_t i = 1; i < values.size(); ++i) CHECK(order_key(values[i - 1]) < order_key(values[i]));
  CHECK(order_key(-0.0f) == order_key(0.0f));
  CHECK(order_key(kNan) < order_key(-kInf));
  for (const float x : values) CHECK(from_order_key(order_key(x)) == x);
}

TEST_CASE("select: the cut agrees with sorting") {
  std::mt19937 random(1);
  std::vector<uint32_t> keys;
  for (int round = 0; round < 2000; ++round) {
    Row row = random_row(random, 1 + static_cast<int>(random() % 300), round % 2 == 0);
    const int k = 1 + static_cast<int>(random() % 300);
    Row sorted = row;
    std::sort(sorted.rbegin(), sorted.rend());
    const Cut count = find_cut<Weigh::kByCount>(row, k, keys);
    if (k > std::ssize(row)) {
      CHECK(count.key == 0);
    } else {
      CHECK(count.key == order_key(sorted[static_cast<size_t>(k) - 1]));
    }
    for (float& x : row) x = std::exp(x);
    for (float& x : sorted) x = std::exp(x);
    const double limit = std::accumulate(row.begin(), row.end(), 0.0) * static_cast<double>(random() % 1000) / 1000.0;
    const Cut mass = find_cut<Weigh::kByMass>(row, limit, keys);
    size_t n = 0;
    for (double above = 0; n == 0 || (n < sorted.size() && above < limit); ++n) above += static_cast<double>(sorted[n]);
    CHECK(mass.key == order_key(sorted[n - 1]));
    CHECK(mass.n_equal == std::count(sorted.begin(), sorted.begin() + static_cast<long>(n), sorted[n - 1]));
  }
}

TEST_CASE("sampler: every step agrees with the written semantics") {
  std::mt19937 random(2);
  SamplerScratch scratch;
  int n_drawn = 0;
  for (int round = 0; round < 4000; ++round) {
    Case c = random_case(random);
    c.config.logprobs = kWholeVocabulary;
    c.config.logprobs_mode = LogprobsMode::kProcessedLogits;
    const SampledToken sampled = sample(c, scratch);
    const Row x = reference_processed(c);
    const int vocab = static_cast<int>(x.size());
    const Token top = kTable.argmax(x.data(), vocab);
    if (!(x[static_cast<size_t>(top)] > -kInf)) {
      CHECK(sampled.id == -1);
    } else if (c.config.greedy()) {
      CHECK(sampled.id == top);
    } else {
      ++n_drawn;
      const std::map<Token, double> kept = reference_candidates(x, c.config);
      std::set<Token> ids;
      for (const Logprob& entry : sampled.logprobs.top) {
        if (entry.value > -kInf) ids.insert(entry.id);
      }
      std::set<Token> expected;
      for (const auto& [id, weight] : kept) expected.insert(id);
      CHECK(ids == expected);
      CHECK(sampled.id == reference_race(kept, c.noise, c.output.size()));
    }
  }
  CHECK(n_drawn > 2000);
}

TEST_CASE("sampler: equal logits: greedy takes the lowest id, top_k keeps all, top_p the lowest ids") {
  Case c;
  c.logits = {0, 2, 1, 2, 1, 1};
  c.config.temperature = 0;
  CHECK(sample(c).id == 1);
  c.config.temperature = 1;
  c.config.top_k = 3;
  const auto candidates = [](Case copy) {
    copy.config.logprobs = kWholeVocabulary;
    copy.config.logprobs_mode = LogprobsMode::kProcessedLogits;
    std::set<Token> ids;
    for (const Logprob& entry : sample(copy).logprobs.top) {
      if (entry.value > -kInf) ids.insert(entry.id);
    }
    return ids;
  };
  CHECK(candidates(c) == std::set<Token>{1, 2, 3, 4, 5});
  c.config.top_k = 0;
  c.config.top_p = 0.8f;  // 2e^2 is 0.61 of all, e more is 0.72, 2e more 0.84
  CHECK(candidates(c) == std::set<Token>{1, 2, 3, 4});
  c.config.top_p = 1e-6f;
  CHECK(candidates(c) == std::set<Token>{1});
}

TEST_CASE("sampler: -inf and NaN never win") {
  Case c;
  c.logits = {kNan, -kInf, -50.0f, kNan, -kInf};
  for (const float temperature : {0.0f, 0.5f, 2.0f}) {
    for (const int top_k : {0, 3, 5}) {
      c.config.temperature = temperature;
      c.config.top_k = top_k;
      CHECK(sample(c).id == 2);
    }
  }
  c.logits = {1.0f, kInf, 2.0f};
  CHECK(sample(c).id == 1);
  c.logits = {kNan, -kInf};
  CHECK(sample(c).id == -1);
}

TEST_CASE("sampler: draws follow the distribution and are independent") {
  std::mt19937 random(3);
  Case c;
  c.logits = random_row(random, 40, false);
  c.config.temperature = 1.7f;
  c.config.min_p = 0.001f;
  c.config.top_k = 30;
  c.config.top_p = 0.97f;
  const std::map<Token, double> weights = reference_candidates(c.logits, c.config);
  double total = 0;
  for (const auto& [id, weight] : weights) total += weight;
  constexpr int kDraws = 40000;
  const std::vector<Token> output(kDraws, 0);
  for (const NoiseKey& noise : {seeded_noise(0, 0), seeded_noise(0, 1), engine_noise(0, 0, 0), engine_noise(0, 1, 0)}) {
    SamplerScratch scratch;
    std::map<Token, int> counts;
    int n_repeats = 0;
    Token previous = -1;
    for (size_t position = 0; position < kDraws; ++position) {
      Row row = c.logits;
      SampledToken out;
      sample_row(out, row.data(), 40, c.config, {{}, std::span(output).first(position)}, noise, kTable, scratch);
      ++counts[out.id];
      n_repeats += out.id == previous;
      previous = out.id;
    }
    double chi_square = 0, repeat = 0;
    for (const auto& [id, weight] : weights) {
      const double expected = weight / total * kDraws;
      chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
      repeat += weight / total * weight / total;
    }
    const double freedom = static_cast<double>(weights.size()) - 1;
    CHECK(counts.size() <= weights.size());
    CHECK(chi_square < freedom + 4 * std::sqrt(2 * freedom));
    CHECK(std::abs(n_repeats - repeat * kDraws) < 4 * std::sqrt(repeat * kDraws));
  }
}

TEST_CASE("sampler: the winner stays when others are masked, and does not depend on what was sampled before") {
  std::mt19937 random(4);
  SamplerScratch used;
  for (int round = 0; round < 300; ++round) {
    Case c;
    c.logits = random_row(random, 500, false);
    c.noise = seeded_noise(static_cast<uint64_t>(round), 0);
    const Token winner = sample(c).id;
    CHECK(sample(c, used).id == winner);
    for (int i = 0; i < 100; ++i) {
      const size_t id = random() % c.logits.size();
      if (static_cast<Token>(id) != winner) c.logits[id] = -kInf;
    }
    CHECK(sample(c, used).id == winner);
  }
}

TEST_CASE("sampler: raw logprobs are those of the untouched row") {
  std::mt19937 random(5);
  SamplerScratch scratch;
  for (int round = 0; round < 500; ++round) {
    Case c = random_case(random);
    const int vocab = static_cast<int>(c.logits.size());
    for (float& x : c.logits) x = std::isnan(x) ? -kInf : x;
    const int k = pick(random, {0, 1, 5, vocab, kWholeVocabulary});
    c.config.logprobs = k;
    const SampledToken out = sample(c, scratch);
    if (out.id < 0) continue;
    double sum = 0;
    for (const float x : c.logits) sum += std::exp(static_cast<double>(x));
    const auto expected = [&](Token id) {
      return static_cast<double>(c.logits[static_cast<size_t>(id)]) - std::log(sum);
    };
    CHECK(out.logprobs.chosen.id == out.id);
    CHECK(static_cast<double>(out.logprobs.chosen.value) == doctest::Approx(expected(out.id)).epsilon(1e-5));
    const float chosen = c.logits[static_cast<size_t>(out.id)];
    CHECK(out.logprobs.rank == 1 + std::ranges::count_if(c.logits, [&](float x) { return x > chosen; }));
    std::vector<Token> order(static_cast<size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater<>(),
                             [&](Token id) { return c.logits[static_cast<size_t>(id)] + 0.0f; });
    REQUIRE(std::ssize(out.logprobs.top) == (k == kWholeVocabulary ? vocab : std::min(k, vocab)));
    for (size_t i = 0; i < out.logprobs.top.size(); ++i) {
      const Logprob& entry = out.logprobs.top[i];
      REQUIRE(entry.id == order[i]);
      if (c.logits[static_cast<size_t>(entry.id)] == -kInf) {
        CHECK(entry.value == -kInf);
      } else {
        CHECK(static_cast<double>(entry.value) == doctest::Approx(expected(entry.id)).epsilon(1e-5));
      }
    }
  }
}

TEST_CASE("sampler: the four logprobs modes") {
  Case c;
  c.logits = {1.0f, 2.0f, 3.0f, 0.0f};
  c.config.logit_bias = {{0, 4.0f}};
  c.config.temperature = 0.5f;
  c.config.top_k = 2;
  c.config.logprobs = kWholeVocabulary;
  const auto values = [&](LogprobsMode mode) {
    c.config.logprobs_mode = mode;
    std::map<Token, double> result;
    for (const Logprob& entry : sample(c).logprobs.top) result[entry.id] = static_cast<double>(entry.value);
    return result;
  };
  CHECK(values(LogprobsMode::kRawLogits) == std::map<Token, double>{{0, 1}, {1, 2}, {2, 3}, {3, 0}});
  const double minus_inf = -std::numeric_limits<double>::infinity();
  CHECK(values(LogprobsMode::kProcessedLogits) ==
        std::map<Token, double>{{0, 10}, {1, minus_inf}, {2, 6}, {3, minus_inf}});
  const double log_sum = std::log(1 + std::exp(-4.0));
  auto processed = values(LogprobsMode::kProcessedLogprobs);
  CHECK(processed[0] == doctest::Approx(-log_sum));
  CHECK(processed[2] == doctest::Approx(-4 - log_sum));
  CHECK(processed[1] == minus_inf);
  const double raw_log_sum = std::log(1 + std::exp(1.0) + std::exp(2.0) + std::exp(3.0));
  CHECK(values(LogprobsMode::kRawLogprobs)[0] == doctest::Approx(1 - raw_log_sum));

  // A row that the host has altered reports the one before.
  const Row raw = {5.0f, 6.0f, 7.0f, 8.0f};
  Row row = c.logits;
  SampledToken out;
  SamplerScratch scratch;
  c.config.logprobs_mode = LogprobsMode::kRawLogits;
  sample_row(out, row.data(), 4, c.config, {}, c.noise, kTable, scratch, {raw.data(), nullptr});
  CHECK(out.logprobs.chosen.value == raw[static_cast<size_t>(out.id)]);
}

TEST_CASE("sampler: prompt logprobs, and rows of a broken model") {
  SamplingConfig config;
  config.prompt_logprobs = 2;
  TokenLogprobs out;
  SamplerScratch scratch;
  const Row row = {1.0f, 3.0f, 2.0f, 3.0f};
  prompt_logprob_row(out, row.data(), 4, 2, config, kTable, scratch);
  CHECK(out.rank == 3);
  CHECK(out.chosen.id == 2);
  REQUIRE(out.top.size() == 2);
  CHECK(out.top[0].id == 1);
  CHECK(out.top[1].id == 3);
  CHECK(out.top[0].value == out.top[1].value);
  const Row broken = {kNan, kInf, 2.0f, kNan};
  prompt_logprob_row(out, broken.data(), 4, 0, config, kTable, scratch);
  CHECK(out.chosen.value == -kInf);
  CHECK(out.top[0].id == 1);
  CHECK(out.top[0].value == 0.0f);
  const Row nothing = {kNan, kNan};
  prompt_logprob_row(out, nothing.data(), 2, 0, config, kTable, scratch);
  CHECK(out.chosen.value == -kInf);
}

TEST_CASE("sampler: only ids whose bit the host has set may follow, whatever the size of the vocabulary") {
  std::mt19937 rng(5);
  for (const int vocab : {1, 31, 32, 33, 70, 96}) {
    std::vector<uint32_t> mask(static_cast<size_t>(mask_words(vocab)));
    for (int word = 0; word < mask_words(vocab); ++word) mask[static_cast<size_t>(word)] = word % 2 == 0 ? rng() : 0;
    Row row(static_cast<size_t>(vocab), 1.0f);
    apply_mask(row.data(), vocab, mask.data());
    for (int id = 0; id < vocab; ++id) {
      const bool allowed = mask[static_cast<size_t>(id / 32)] >> (id % 32) & 1;
      CHECK(row[static_cast<size_t>(id)] == (allowed ? 1.0f : -kInf));
    }
  }
}

TEST_CASE("sampler: raw logprobs are those before the host's mask, and nothing is chosen from an empty one") {
  Case c;
  c.config.temperature = 0;
  c.config.logprobs = 4;
  c.config.logprobs_mode = LogprobsMode::kRawLogits;
  const Row logits = {1.0f, 4.0f, 2.0f, 3.0f};
  const uint32_t only_two = 1u << 2;
  const uint32_t none = 0;
  SamplerScratch scratch;
  SampledToken out;
  Row row = logits;
  sample_row(out, row.data(), 4, c.config, {}, c.noise, kTable, scratch, {nullptr, &only_two});
  CHECK(out.id == 2);
  CHECK(out.logprobs.rank == 3);
  for (const Logprob& entry : out.logprobs.top) CHECK(entry.value == logits[static_cast<size_t>(entry.id)]);
  row = logits;
  sample_row(out, row.data(), 4, c.config, {}, c.noise, kTable, scratch, {nullptr, &none});
  CHECK(out.id == -1);
}

TEST_CASE("sampler: logprobs of ids asked for by name, with their ranks") {
  Case c;
  c.config.temperature = 0;
  c.config.logprobs = 1;
  c.config.logprob_token_ids = {3, 0};
  c.logits = {1.0f, 4.0f, 2.0f, 3.0f};
  const SampledToken out = sample(c);
  REQUIRE(out.logprobs.named.size() == 2);
  CHECK(out.logprobs.named_ranks == std::vector<int>{2, 4});
  const float of_chosen = out.logprobs.chosen.value;
  CHECK(out.logprobs.named[0].id == 3);
  CHECK(out.logprobs.named[0].value == doctest::Approx(of_chosen - 1));
  CHECK(out.logprobs.named[1].id == 0);
  CHECK(out.logprobs.named[1].value == doctest::Approx(of_chosen - 3));
}

TEST_CASE("sequence: an output that repeats a pattern often enough ends") {
  const auto ends = [](const std::vector<Token>& output, const RepetitionDetection& config) {
    return repeats(output, config);
  };
  const std::vector<Token> twice = {9, 1, 2, 3, 1, 2, 3};
  CHECK(ends(twice, {3, 1, 2}));
  CHECK(ends(twice, {5, 3, 2}));
  CHECK_FALSE(ends(twice, {2, 1, 2}));
  CHECK_FALSE(ends(twice, {3, 1, 3}));
  CHECK_FALSE(ends(twice, {0, 1, 2}));
  CHECK(ends({4, 4, 4}, {1, 1, 3}));
  CHECK_FALSE(ends({4, 4}, {1, 1, 3}));
  CHECK_FALSE(ends({}, {4, 1, 2}));
}
