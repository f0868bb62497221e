// Finding the largest logits without the others.
#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <limits>
#include <random>

#include "kernel_tables.h"
#include "quant/planes.h"
#include "run_graph.h"
#include "sample_blocks.h"

using namespace octavo;
using namespace octavo::test;

namespace {

constexpr int kVocab = 1003, kWidth = 256, kTokens = 70;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Tokens' rows and a head over them. Row 0 is zero, row 1 holds a NaN, row 2 numbers whose products are infinite, and
// the later ones have a few values that are much larger than the others.
class Head {
 public:
  explicit Head(Format format, bool nan_weights = false) : store_(Crew(2)), graph_(store_) {
    const ValueId x = graph_.embed(store_.add_embedding(matrix(token_rows(), kTokens)));
    graph_.set_output(graph_.linear(x, {{head(format_row(format), nan_weights), std::nullopt}})[0]);
  }

  const Graph& graph() const { return graph_; }

 private:
  SourceMatrix matrix(std::vector<float> values, int n) {
    const auto& kept = floats_.emplace_back(std::move(values));
    return {"rows", Format::kF32, n, kWidth, reinterpret_cast<const uint8_t*>(kept.data()), kept.size() * 4};
  }

  std::vector<float> normal(int n) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(n) * kWidth);
    for (float& value : values) value = normal(random_);
    return values;
  }

  std::vector<float> token_rows() {
    std::vector<float> rows = normal(kTokens);
    std::fill_n(rows.begin(), kWidth, 0.0f);
    rows[kWidth + 5] = kNan;
    for (int i = 0; i < kWidth; ++i) rows[2 * kWidth + i] *= 1e37f;
    for (int t = 3; t < kTokens; ++t) rows[t * kWidth + t] *= 30;
    return rows;
  }

  // Some rows are there twice, and larger than the others.
  WeightId head(const FormatRow& format, bool nan_weights) {
    if (format.quantize == nullptr) {
      const auto& blocks = blocks_.emplace_back(sample_blocks(format, int64_t{kVocab} * kWidth, 3));
      return store_.add_head({"head", format.format, kVocab, kWidth, blocks.data(), blocks.size()}, format.format,
                             false);
    }
    std::vector<float> rows = normal(kVocab);
    for (const int n : {37, 500}) {
      for (int i = 0; i < kWidth; ++i) rows[n * kWidth + i] *= 2;
      std::copy_n(rows.begin() + n * kWidth, kWidth, rows.begin() + (n + 301) * kWidth);
    }
    if (nan_weights) rows[11 * kWidth + 3] = kNan;
    return store_.add_head(matrix(std::move(rows), kVocab), format.format, false);
  }

  std::mt19937 random_{5};
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<uint8_t>> blocks_;
  WeightStore store_;
  Graph graph_;
};

std::vector<int32_t> first_largest(const std::vector<float>& logits) {
  std::vector<int32_t> found;
  for (size_t first = 0; first < logits.size(); first += kVocab) {
    const float* row = logits.data() + first;
    const int top = kernels().argmax(row, kVocab);
    found.push_back(row[top] > -kInf ? top : -1);
  }
  return found;
}

void check_largest(const Head& head, const std::vector<int32_t>& ids) {
  const std::vector<int32_t> expected = first_largest(run_graph(head.graph(), ids, 2));
  for (const int n_threads : {1, 3})
    CHECK(GraphRun(head.graph(), ids, n_threads, Logits::kLargest).largest() == expected);
}

void check_largest(const Head& head) {
  std::vector<int32_t> ids(kTokens);
  std::iota(ids.begin(), ids.end(), 0);
  check_largest(head, ids);
  for (const int32_t id : {0, 1, 2, 3, 69}) check_largest(head, {id});
}

}  // namespace

TEST_CASE("screen: the largest logit is the first of the largest among all, in every format that has planes") {
  for (const FormatRow& row : all_formats()) {
    CAPTURE(row.name);
    const Head head(row.format);
    const bool screens = GraphRun(head.graph(), {0}, 1).plan().screens_from > 0;
    CHECK(screens == has_planes(row.format));
    if (screens) check_largest(head);
  }
}

TEST_CASE("screen: weights that are not numbers") {
  for (const Format format : {Format::kF32, Format::kF16, Format::kBF16}) check_largest(Head(format, true));
}

TEST_CASE("kernels: screen") {
  for (const int n_strips : {1, 3, 4, 7, 16}) {
    constexpr int kN = 3;
    const int width = n_strips * 16, stride = 2 * n_strips + 2;
    const PageEnd<float> x(normal_floats(static_cast<size_t>(kN * width), 1));
    const PageEnd<float> norms(normal_floats(static_cast<size_t>(width), 2)),
        errors(normal_floats(static_cast<size_t>(width), 3));
    norms.data()[1] = kNan;
    norms.data()[width - 1] = kInf;
    for (const auto& [name, table] : tested_tables())
      for (const float* of_errors : {static_cast<const float*>(errors.data()), static_cast<const float*>(nullptr)}) {
        INFO(name, " strips=", n_strips);
        const PageEnd<float> rows(std::vector<float>(static_cast<size_t>(kN * stride), 0.5f));
        table.screen({rows.data(), rows.data() + n_strips, rows.data() + 2 * n_strips, stride, x.data(), width,
                      norms.data(), of_errors, kN, n_strips});
        for (int i = 0; i < kN * n_strips; ++i) {
          const int token = i / n_strips, strip = i % n_strips;
          float upper = -kInf, lower = -kInf;
          for (int n = strip * 16; n < strip * 16 + 16; ++n) {
            float bound = norms.data()[n] * 0.5f;
            if (of_errors != nullptr) bound = std::fma(of_errors[n], 0.5f, bound);
            const float value = x.data()[token * width + n];
            upper = std::isnan(bound) ? kInf : std::max(upper, value + bound);
            if (!std::isnan(bound)) lower = std::max(lower, value - bound);
          }
          CHECK(rows.data()[token * stride + strip] == upper);
          CHECK(rows.data()[token * stride + n_strips + strip] == lower);
        }
      }
  }
}
