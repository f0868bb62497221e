// A small random Llama built straight from graphs, for tests that need something to run.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "graph/graph.h"
#include "sample_blocks.h"

namespace octavo::test {

struct TinyShape {
  int vocab = 96, hidden = 64, ffn = 96, layers = 2, heads = 4, kv_heads = 2, head_dim = 16;
  Format format = Format::kQ8_0;
  bool bare_head = false;  // the head gives the body's rows as they are
  int rope_switch_length = 0;
  bool longrope = false;  // else the ropes of long sequences go by their length
};

class TinyModel {
 public:
  explicit TinyModel(const Crew& crew, const TinyShape& shape = {})
      : shape_(shape), store_(crew), body_(store_), head_(store_) {
    const RopeId rope = body_.add_rope(make_rope(shape));
    ValueId x = body_.embed(embedding());
    for (int layer = 0; layer < shape.layers; ++layer) x = add_layer(x, layer, rope);
    body_.set_output(x);
    if (shape.bare_head) {
      head_.set_output(head_.gather(shape.hidden));
      return;
    }
    const ValueId hidden =
        head_.norm(head_.gather(shape.hidden), {NormOp::Kind::kRms, vector(shape.hidden), std::nullopt, 1e-5f});
    head_.set_output(
        head_.linear(hidden, {{linear(shape.vocab, shape.hidden, /*makes_logits=*/true), std::nullopt}})[0]);
  }

  const Graph& body() const { return body_; }
  const Graph& head() const { return head_; }
  const TinyShape& shape() const { return shape_; }

  // (vocab, hidden)
  const std::vector<float>& embedding_rows() const { return sources_.front(); }

 private:
  static Rope make_rope(const TinyShape& shape) {
    const auto half = static_cast<size_t>(shape.head_dim / 2);
    const std::vector<float> slow = shape.longrope ? std::vector<float>(half, 0.05f) : std::vector<float>{};
    return {std::vector<float>(half, 0.1f), 1.0f, shape.rope_switch_length, slow, 10000.0, 2.0};
  }

  ValueId add_layer(ValueId x, int layer, RopeId rope) {
    const TinyShape& s = shape_;
    const int q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    const ValueId normed = body_.norm(x, {NormOp::Kind::kRms, vector(s.hidden), std::nullopt, 1e-5f});
    const auto qkv = body_.linear(normed, {{linear(q, s.hidden), std::nullopt},
                                           {linear(kv, s.hidden), std::nullopt},
                                           {linear(kv, s.hidden), std::nullopt}});
    const ValueId attended =
        body_.attention(qkv[0], qkv[1], qkv[2], {layer, s.heads, s.kv_heads, s.head_dim, rope, 0, 0.25f, 0});
    x = body_.add(x, body_.linear(attended, {{linear(s.hidden, q), std::nullopt}})[0]);
    const auto gate_up =
        body_.linear(body_.norm(x, {NormOp::Kind::kRms, vector(s.hidden), std::nullopt, 1e-5f}),
                     {{linear(s.ffn, s.hidden), std::nullopt}, {linear(s.ffn, s.hidden), std::nullopt}});
    const ValueId gated = body_.mul(body_.activation(gate_up[0], Activation::kSilu), gate_up[1]);
    return body_.add(x, body_.linear(gated, {{linear(s.hidden, s.ffn), std::nullopt}})[0]);
  }

  SourceMatrix random_matrix(int n, int k) {
    std::normal_distribution<float> normal;
    auto& rows = sources_.emplace_back(static_cast<size_t>(n) * static_cast<size_t>(k));
    for (float& value : rows) value = normal(random_) * 0.3f;
    return {"random", Format::kF32, n, k, reinterpret_cast<const uint8_t*>(rows.data()), rows.size() * 4};
  }
  WeightId linear(int n, int k, bool makes_logits = false) {
    const FormatRow& row = format_row(shape_.format);
    const auto add = [&](const SourceMatrix& source) {
      return makes_logits ? store_.add_head(source, row.format, false) : store_.add_linear(source, row.format, false);
    };
    if (row.quantize != nullptr) return add(random_matrix(n, k));
    const std::vector<uint8_t> blocks = sample_blocks(row, int64_t{n} * k, random_());
    return add({"random", row.format, n, k, blocks.data(), blocks.size()});
  }
  WeightId embedding() { return store_.add_embedding(random_matrix(shape_.vocab, shape_.hidden)); }
  WeightId vector(int n) { return store_.add_vector(random_matrix(1, n)); }

  TinyShape shape_;
  std::mt19937 random_{7};
  std::deque<std::vector<float>> sources_;
  WeightStore store_;
  Graph body_, head_;
};

// An engine over a tiny model.
struct TinyEngine {
  TinyModel model;
  Executor executor;
  Engine engine;

  struct Options {
    int n_threads = 2;
    int max_batched_tokens = 64;
    int n_blocks = 64;
    bool prefix_caching = true;
    TinyShape shape{};
    bool bidirectional = false;
    int n_ranks = 1;
  };

  explicit TinyEngine(const Options& options)
      : model({options.n_threads, options.n_ranks}, options.shape),
        executor({.crew = {options.n_threads, options.n_ranks},
                  .kv_type = KvType::kBF16,
                  .max_tokens = options.bidirectional ? 1024 : options.max_batched_tokens,
                  .max_context = 1024,
                  .kv_bytes = kv_bytes(options)},
                 model.body(), model.head()),
        engine({.scheduler = {.max_num_seqs = 16,
                              .max_num_batched_tokens = options.max_batched_tokens,
                              .max_model_len = 1024,
                              .policy = SchedulingPolicy::kFcfs,
                              .enable_chunked_prefill = true},
                .bidirectional = options.bidirectional,
                .enable_prefix_caching = options.prefix_caching,
                .seed = 1,
                .poison_blocks = true},
               executor) {}

  static int64_t kv_bytes(const Options& options) {
    const TinyShape& s = options.shape;
    return int64_t{options.n_blocks} * s.layers * KvLayout{s.kv_heads, s.head_dim, KvType::kBF16}.block_bytes();
  }

  int64_t add(const std::vector<Token>& prompt, int max_tokens, float temperature = 0) {
    SequenceSpec spec;
    spec.prompt = prompt;
    spec.sampling.temperature = temperature;
    spec.sampling.seed = 11;
    spec.sampling.max_tokens = max_tokens;
    spec.sampling.logprobs = 2;
    return engine.add(std::move(spec));
  }

  int64_t add_pooling(const std::vector<Token>& prompt, Pooling pooling) {
    SequenceSpec spec;
    spec.prompt = prompt;
    spec.pooling = pooling;
    return engine.add(std::move(spec));
  }

  SequenceView finish(int64_t id) {
    const std::vector<int64_t> ids{id};
    engine.run(ids, false, 1e9, nullptr, nullptr);
    const auto views = engine.updates(ids);
    engine.check_integrity();
    return views.at(0);
  }
};

inline std::vector<Token> random_prompt(int n, unsigned seed, int vocab = 96) {
  std::mt19937 random(seed);
  std::vector<Token> prompt(static_cast<size_t>(n));
  for (Token& token : prompt) token = static_cast<Token>(random() % static_cast<unsigned>(vocab));
  return prompt;
}

}  // namespace octavo::test
