// Linears that stay in the file: the same bits as repacked ones, and no memory of their own.
#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "base/check.h"
#include "run_graph.h"
#include "sample_blocks.h"

using namespace octavo;

namespace {

constexpr int kHidden = 256, kInner = 512, kRows = 40;  // of K-quants: whole super blocks

struct Case {
  Format source, target;
};

// A gated block with a residual, and a head whose last strip is not full: every way a linear is used.
class Block {
 public:
  Block(const Case& formats, bool in_file) : formats_(formats), in_file_(in_file), store_(2), graph_(store_) {
    const ValueId x = graph_.embed(store_.add_embedding(matrix(kRows, kHidden, Format::kF32)));
    const auto gate_up = graph_.linear(x, {{linear(kInner, kHidden), {}}, {linear(kInner, kHidden), {}}});
    const ValueId gated = graph_.mul(graph_.activation(gate_up[0], Activation::kSilu), gate_up[1]);
    const ValueId sum = graph_.add(x, graph_.linear(gated, {{linear(kHidden, kInner), {}}})[0]);
    graph_.set_output(graph_.linear(sum, {{linear(kHidden - 9, kHidden), {}}})[0]);
  }

  std::vector<float> run(int n_tokens) const {
    std::vector<int32_t> ids(static_cast<size_t>(n_tokens));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
    return test::run_graph(graph_, ids, 2);
  }
  size_t memory_bytes() const { return store_.memory_bytes(); }

 private:
  SourceMatrix matrix(int n, int k, Format format) {
    auto& rows = sources_.emplace_back(sample_blocks(format_row(format), int64_t{n} * k, ++seed_));
    return {"random", format, n, k, rows.data(), rows.size()};
  }
  WeightId linear(int n, int k) {
    const SourceMatrix source = matrix(n, k, formats_.source);
    return in_file_ ? store_.leave_linear(source, formats_.target) : store_.add_linear(source, formats_.target, false);
  }

  Case formats_;
  bool in_file_;
  uint32_t seed_ = 5;
  std::deque<std::vector<uint8_t>> sources_;
  WeightStore store_;
  Graph graph_;
};

}  // namespace

TEST_CASE("offload: linears left in the file give the same bits and take no memory") {
  std::vector<Case> cases;
  for (const FormatRow& row : all_formats()) cases.push_back({row.format, row.format});
  cases.push_back({Format::kF32, Format::kBF16});
  cases.push_back({Format::kBF16, Format::kF32});
  cases.push_back({Format::kQ4_K, Format::kF32});
  for (const Case& formats : cases) {
    CAPTURE(format_row(formats.source).name);
    CAPTURE(format_row(formats.target).name);
    const Block packed(formats, false), left(formats, true);
    for (int n_tokens : {1, 7, kRows}) CHECK(packed.run(n_tokens) == left.run(n_tokens));
    CHECK(packed.memory_bytes() > 0);
    CHECK(left.memory_bytes() == 0);
  }
}

TEST_CASE("offload: what cannot be converted is refused, as when it is repacked") {
  WeightStore store(1);
  const std::vector<uint8_t> rows(4 * 40 * 4);
  CHECK_THROWS_WITH_AS(store.leave_linear({"w", Format::kF32, 4, 40, rows.data(), rows.size()}, Format::kQ8_0),
                       doctest::Contains("cannot be stored as Q8_0"), Error);
}
