// The mixture of experts against plain loops in double, and against itself in other batches and on other threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "base/check.h"
#include "run_graph.h"

using namespace octavo;

namespace {

using Floats = std::vector<float>;

struct Shape {
  Format format;
  int hidden, inner, n_experts, top_k;
  bool normalize;
};

struct Matrix {
  int n, k;
  Floats values;  // as the format holds them
  WeightId id;
};

class TinyMoe {
 public:
  static constexpr int kTokens = 70;

  explicit TinyMoe(const Shape& shape) : shape_(shape), store_(2), graph_(store_) {
    router_ = matrix(shape.n_experts, shape.hidden, Format::kF32);
    std::vector<MoeOp::Expert> ids;
    for (int e = 0; e < shape.n_experts; ++e) {
      for (int part = 0; part < 2; ++part) experts_.push_back(matrix(shape.inner, shape.hidden, shape.format));
      experts_.push_back(matrix(shape.hidden, shape.inner, shape.format));
      const size_t at = experts_.size();
      ids.push_back({experts_[at - 3].id, experts_[at - 2].id, experts_[at - 1].id});
    }
    tokens_ = random(kTokens, shape.hidden, 1.0f);
    const ValueId x = graph_.embed(store_.add_embedding(source(tokens_, kTokens, shape.hidden)));
    graph_.set_output(graph_.moe(x, {router_.id, ids, shape.top_k, shape.normalize, Activation::kSilu}));
  }

  Floats run(const std::vector<int32_t>& ids, const Crew& crew) const { return test::run_graph(graph_, ids, crew); }

  std::vector<double> reference(int token) const {
    const std::vector<double> x(tokens_.begin() + token * shape_.hidden, tokens_.begin() + (token + 1) * shape_.hidden);
    std::vector<double> shares = product(router_, x);
    for (double& share : shares) share = std::exp(share);
    std::vector<int> order(shares.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return shares[size(a)] > shares[size(b)]; });
    double total = 0;
    for (int slot = 0; slot < (shape_.normalize ? shape_.top_k : shape_.n_experts); ++slot)
      total += shares[size(order[size(slot)])];
    std::vector<double> out(size(shape_.hidden));
    for (int slot = 0; slot < shape_.top_k; ++slot) {
      const int expert = order[size(slot)];
      std::vector<double> gated = product(experts_[size(3 * expert)], x);
      const std::vector<double> up = product(experts_[size(3 * expert + 1)], x);
      for (size_t i = 0; i < gated.size(); ++i) gated[i] *= up[i] / (1 + std::exp(-gated[i]));
      const std::vector<double> down = product(experts_[size(3 * expert + 2)], gated);
      for (size_t i = 0; i < out.size(); ++i) out[i] += shares[size(expert)] / total * down[i];
    }
    return out;
  }

 private:
  static size_t size(int i) { return static_cast<size_t>(i); }

  static std::vector<double> product(const Matrix& m, const std::vector<double>& x) {
    std::vector<double> out(size(m.n));
    for (int r = 0; r < m.n; ++r)
      for (int c = 0; c < m.k; ++c) out[size(r)] += double{m.values[size(r * m.k + c)]} * x[size(c)];
    return out;
  }

  Floats random(int n, int k, float scale) {
    std::normal_distribution<float> normal;
    Floats values(size(n * k));
    for (float& value : values) value = normal(random_) * scale;
    return values;
  }

  static SourceMatrix source(const Floats& values, int n, int k) {
    return {"random", Format::kF32, n, k, reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4};
  }

  Matrix matrix(int n, int k, Format format) {
    Floats values = random(n, k, 1 / std::sqrt(static_cast<float>(k)));
    const WeightId id = store_.add_linear(source(values, n, k), format, false);
    std::vector<uint8_t> stored(row_bytes(format, k) * size(n));
    format_row(format).quantize(stored.data(), values.data(), int64_t{n} * k);
    format_row(format).dequantize(values.data(), stored.data(), int64_t{n} * k);
    return {n, k, std::move(values), id};
  }

  Shape shape_;
  std::mt19937 random_{3};
  WeightStore store_;
  Graph graph_;
  Matrix router_;
  std::vector<Matrix> experts_;  // gate, up, down of each
  Floats tokens_;
};

const Shape kShapes[] = {
    {Format::kF32, 64, 104, 6, 2, true},    {Format::kF32, 40, 24, 3, 3, false}, {Format::kBF16, 64, 96, 9, 4, false},
    {Format::kQ8_0, 64, 96, 8, 2, true},    {Format::kQ4_1, 96, 64, 5, 1, true}, {Format::kQ4_K, 256, 512, 4, 2, true},
    {Format::kQ6_K, 256, 256, 4, 3, false},
};

// Root mean square error that the format's activations allow, as a share of the output's size.
double tolerance(Format format) { return format == Format::kF32 ? 1e-5 : 0.02; }

}  // namespace

TEST_CASE("moe: as plain loops over the chosen experts") {
  for (const Shape& shape : kShapes) {
    CAPTURE(format_row(shape.format).name);
    const TinyMoe moe(shape);
    std::vector<int32_t> ids(TinyMoe::kTokens);
    std::iota(ids.begin(), ids.end(), 0);
    const Floats out = moe.run(ids, 2);
    double error = 0, total = 0;
    for (int token = 0; token < TinyMoe::kTokens; ++token) {
      const std::vector<double> expected = moe.reference(token);
      for (int i = 0; i < shape.hidden; ++i) {
        const double value = expected[static_cast<size_t>(i)];
        error += std::pow(double{out[static_cast<size_t>(token * shape.hidden + i)]} - value, 2);
        total += value * value;
      }
    }
    CHECK(std::sqrt(error / total) < tolerance(shape.format));
  }
}

TEST_CASE("moe: a token's bits depend on nothing else in the batch, nor on threads") {
  for (const Shape& shape : kShapes) {
    CAPTURE(format_row(shape.format).name);
    const TinyMoe moe(shape);
    std::vector<int32_t> ids(TinyMoe::kTokens);
    std::iota(ids.begin(), ids.end(), 0);
    const Floats all = moe.run(ids, 1);
    const auto same = [&](const std::vector<int32_t>& some, const Crew& crew) {
      const Floats out = moe.run(some, crew);
      for (size_t i = 0; i < some.size(); ++i)
        if (std::memcmp(&out[i * static_cast<size_t>(shape.hidden)], &all[static_cast<size_t>(some[i] * shape.hidden)],
                        static_cast<size_t>(shape.hidden) * 4) != 0)
          return false;
      return true;
    };
    for (const Crew& crew : {Crew(1), Crew(2), Crew(3), Crew(2, 2), Crew(3, 2), Crew(3, 3)}) {
      CHECK(same(ids, crew));
      CHECK(same({69, 0, 33, 7, 7, 41, 12, 68, 5}, crew));
      CHECK(same({11, 50}, crew));
      for (int32_t token = 0; token < 8; ++token) CHECK(same({token}, crew));
      CHECK(same(std::vector<int32_t>(40, 17), crew));  // all to the same experts
    }
  }
}

TEST_CASE("moe: experts that do not fit are refused") {
  WeightStore store(1);
  const Floats values(64 * 32, 0.5f);
  const auto add = [&](int n, int k, Format format) {
    return store.add_linear({"w", Format::kF32, n, k, reinterpret_cast<const uint8_t*>(values.data()),
                             static_cast<size_t>(n) * static_cast<size_t>(k) * 4},
                            format, false);
  };
  const WeightId router = add(2, 32, Format::kF32), wide = add(64, 32, Format::kF32), tall = add(32, 64, Format::kF32);
  Graph graph(store);
  const ValueId x = graph.embed(
      store.add_embedding({"t", Format::kF32, 64, 32, reinterpret_cast<const uint8_t*>(values.data()), 64 * 32 * 4}));
  const MoeOp::Expert good{wide, wide, tall};
  CHECK(graph.width(graph.moe(x, {router, {good, good}, 2, true, Activation::kSilu})) == 32);
  CHECK_THROWS_WITH_AS(graph.moe(x, {router, {good, good}, 3, true, Activation::kSilu}),
                       doctest::Contains("3 of 2 experts"), Error);
  CHECK_THROWS_WITH_AS(graph.moe(x, {router, {good}, 1, true, Activation::kSilu}),
                       doctest::Contains("expected (1, 32)"), Error);
  CHECK_THROWS_WITH_AS(graph.moe(x, {router, {good, {wide, wide, wide}}, 1, true, Activation::kSilu}),
                       doctest::Contains("expected (32, 64)"), Error);
  CHECK_THROWS_WITH_AS(graph.moe(x, {add(2, 32, Format::kBF16), {good, good}, 1, true, Activation::kSilu}),
                       doctest::Contains("F32"), Error);
}
