// A Llama of a named shape with random weights, built in C++ as the Python models build theirs.
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench_util.h"
#include "graph/graph.h"
#include "shapes.h"

namespace octavo::bench {

class RandomModel {
 public:
  // Formats whose blocks do not fit a matrix's rows fall back to Q8_0, as GGUF files do.
  RandomModel(const ModelShape& shape, Format format, int n_threads)
      : shape_(shape),
        format_(format),
        store_(n_threads),
        body_(store_),
        head_(store_),
        embedding_(fitting(shape.hidden), shape.vocab, shape.hidden) {
    trace_body();
    trace_head();
  }

  const ModelShape& shape() const { return shape_; }
  const Graph& body() const { return body_; }
  const Graph& head() const { return head_; }
  Multiply multiply() const { return multiply_of(format_); }
  // Bytes that a step reads of the weights, whatever the number of its tokens.
  int64_t weight_bytes() const { return static_cast<int64_t>(store_.memory_bytes()); }
  // Weights that every token is multiplied with, and those that every row of logits is.
  int64_t body_weights() const { return body_weights_; }
  int64_t head_weights() const { return int64_t{shape_.vocab} * shape_.hidden; }

 private:
  Format fitting(int64_t k) const { return k % format_row(format_).block_size == 0 ? format_ : Format::kQ8_0; }

  LinearOp::Part linear(int64_t n, int64_t k) {
    const RandomMatrix matrix(fitting(k), n, k);
    body_weights_ += n * k;
    return {store_.add_linear(matrix.source(), matrix.format, false), std::nullopt};
  }

  WeightId ones(int64_t n) {
    const std::vector<float> floats(static_cast<size_t>(n), 1.0f);
    return store_.add_vector(
        {"norm", Format::kF32, 1, n, reinterpret_cast<const uint8_t*>(floats.data()), floats.size() * sizeof(float)});
  }

  Rope rope() const {
    Rope rope;
    for (int i = 0; i < shape_.head_dim; i += 2)
      rope.inv_freq.push_back(
          std::pow(shape_.rope_theta, -static_cast<float>(i) / static_cast<float>(shape_.head_dim)));
    return rope;
  }

  ValueId attention(ValueId x, int layer, RopeId rope) {
    const ModelShape& s = shape_;
    const ValueId normed = body_.norm(x, {NormOp::Kind::kRms, ones(s.hidden), std::nullopt, kEps});
    const std::vector<ValueId> qkv = body_.linear(
        normed, {linear(s.q_size(), s.hidden), linear(s.kv_size(), s.hidden), linear(s.kv_size(), s.hidden)});
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    const ValueId attended =
        body_.attention(qkv[0], qkv[1], qkv[2], {layer, s.n_heads, s.n_kv_heads, s.head_dim, rope, 0, scale, 0});
    return body_.add(x, body_.linear(attended, {linear(s.hidden, s.q_size())})[0]);
  }

  ValueId mlp(ValueId x) {
    const ModelShape& s = shape_;
    const ValueId normed = body_.norm(x, {NormOp::Kind::kRms, ones(s.hidden), std::nullopt, kEps});
    const std::vector<ValueId> gate_up =
        body_.linear(normed, {linear(s.intermediate, s.hidden), linear(s.intermediate, s.hidden)});
    const ValueId gated = body_.mul(body_.activation(gate_up[0], Activation::kSilu), gate_up[1]);
    return body_.add(x, body_.linear(gated, {linear(s.hidden, s.intermediate)})[0]);
  }

  void trace_body() {
    const RopeId rope_id = body_.add_rope(rope());
    ValueId x = body_.embed(store_.add_embedding(embedding_.source()));
    for (int layer = 0; layer < shape_.n_layers; ++layer) x = mlp(attention(x, layer, rope_id));
    body_.set_output(x);
  }

  void trace_head() {
    const WeightId tied = store_.add_linear(embedding_.source(), embedding_.format, false);
    const ValueId x =
        head_.norm(head_.gather(shape_.hidden), {NormOp::Kind::kRms, ones(shape_.hidden), std::nullopt, kEps});
    head_.set_output(head_.linear(x, {{tied, std::nullopt}})[0]);
  }

  static constexpr float kEps = 1e-5f;

  ModelShape shape_;
  Format format_;
  WeightStore store_;
  Graph body_, head_;
  RandomMatrix embedding_;
  int64_t body_weights_ = 0;
};

}  // namespace octavo::bench
