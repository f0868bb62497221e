#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "graph/fuse.h"
#include "graph/plan.h"
#include "tiny_model.h"

using namespace octavo;
using namespace octavo::test;

namespace {

int count(const std::vector<FusedOp>& ops, Epilogue epilogue) {
  return static_cast<int>(
      std::count_if(ops.begin(), ops.end(), [&](const FusedOp& op) { return op.epilogue == epilogue; }));
}

}  // namespace

TEST_CASE("fuse: gates and residuals go into their linears") {
  const TinyModel model(1);
  const auto fused = fuse(model.body());
  CHECK(count(fused, Epilogue::kGate) == model.shape().layers);
  CHECK(count(fused, Epilogue::kAddResidual) == 2 * model.shape().layers);
  // embed, and per layer: norm, qkv, attention, o, norm, gate-up, down
  CHECK(fused.size() == static_cast<size_t>(1 + 7 * model.shape().layers));
}

TEST_CASE("fuse: a value that is used twice is not fused away") {
  const TinyModel model(1);
  WeightStore store(1);
  const std::vector<float> rows(64 * 64, 0.5f);
  const SourceMatrix source{"w", Format::kF32, 64, 64, reinterpret_cast<const uint8_t*>(rows.data()), rows.size() * 4};
  const WeightId w = store.add_linear(source, Format::kF32, false);
  Graph graph(store);
  const ValueId x = graph.embed(store.add_embedding(source));
  const ValueId y = graph.linear(x, {{w, std::nullopt}})[0];
  graph.set_output(graph.add(graph.add(x, y), y));
  CHECK(count(fuse(graph), Epilogue::kAddResidual) == 0);
}

TEST_CASE("plan: live buffers never overlap and the residual stream is updated in place") {
  const TinyModel model(1);
  const Plan plan = make_plan(model.body(), kernels(), KvType::kBF16, 32, 64);
  const int64_t floats = 32 * 64 * 4;
  CHECK(plan.arena_bytes < 8 * floats);
  CHECK(plan.kv.size() == 2);
  for (const OpCall& call : plan.calls)
    if (call.epilogue == Epilogue::kAddResidual)
      CHECK(call.parts[0].out.offset == call.second[static_cast<size_t>(ActFormat::kF32)].offset);
}

TEST_CASE("plan: threads meet five times a layer") {
  const TinyModel model(1);
  const Plan plan = make_plan(model.body(), kernels(), KvType::kBF16, 32, 64);
  // rope tables, embed, and per layer: norm + qkv, attention, o, norm + gate-up, down
  const int before_last = 2 + 5 * (model.shape().layers - 1);
  CHECK(plan.first_output_call == before_last + 2);
  // the last attention's rows and the residual's move
  CHECK(plan.calls.size() == static_cast<size_t>(before_last + 5 + 2));
}

TEST_CASE("executor: an output token's row does not depend on which others are asked for") {
  TinyEngine tiny({});
  const std::vector<int32_t> blocks{0, 1, 2}, others{3, 4};
  Batch batch;
  batch.token_ids = random_prompt(60, 1);
  batch.query_start = {0, 41, 60};
  batch.block_tables = {blocks.data(), others.data()};
  for (int i = 0; i < 60; ++i) batch.positions.push_back(i < 41 ? i : i - 41);
  const auto rows_of = [&](std::vector<int32_t> tokens) {
    batch.output_tokens = std::move(tokens);
    tiny.executor.forward(batch, nullptr);
    std::vector<std::vector<float>> rows;
    for (int row = 0; row < static_cast<int>(batch.output_tokens.size()); ++row)
      rows.emplace_back(tiny.executor.hidden(row), tiny.executor.hidden(row) + tiny.executor.hidden_width());
    return rows;
  };
  std::vector<int32_t> all(60);
  std::iota(all.begin(), all.end(), 0);
  const auto expected = rows_of(all);
  for (const std::vector<int32_t>& tokens :
       {std::vector<int32_t>{59}, {0}, {40, 59}, {0, 1, 2, 41}, {3, 31, 32, 33, 45, 58}, {}}) {
    const auto rows = rows_of(tokens);
    for (size_t i = 0; i < tokens.size(); ++i) CHECK(rows[i] == expected[static_cast<size_t>(tokens[i])]);
  }
}

TEST_CASE("graph: ops that do not fit are refused with a sentence that says why") {
  WeightStore store(1);
  const std::vector<float> rows(64 * 32, 0.5f);
  const SourceMatrix source{"w", Format::kF32, 64, 32, reinterpret_cast<const uint8_t*>(rows.data()), rows.size() * 4};
  const WeightId table = store.add_embedding(source);
  const WeightId matrix = store.add_linear(source, Format::kF32, false);
  Graph graph(store);
  const ValueId x = graph.embed(table);
  CHECK_THROWS_WITH_AS(graph.norm(x, {NormOp::Kind::kRms, table, std::nullopt, 1e-5f}),
                       doctest::Contains("another use"), Error);
  const ValueId wide = graph.linear(x, {{matrix, std::nullopt}})[0];
  CHECK_THROWS_WITH_AS(graph.add(x, wide), doctest::Contains("widths 32 and 64"), Error);
  CHECK_THROWS_WITH_AS(graph.linear(wide, {{matrix, std::nullopt}}), doctest::Contains("expected 64"), Error);
  CHECK_THROWS_WITH_AS(graph.attention(x, x, x, {0, 3, 2, 16, -1, 0, 1.0f, 0}), doctest::Contains("evenly"), Error);
  CHECK_THROWS_WITH_AS(make_plan(graph, kernels(), KvType::kF32, 1, 1), doctest::Contains("no output"), Error);
}

TEST_CASE("weights: sizes that lie are refused") {
  WeightStore store(1);
  const std::vector<uint8_t> bytes(100);
  CHECK_THROWS_WITH_AS(store.add_linear({"w", Format::kQ8_0, 4, 40, bytes.data(), 100}, Format::kQ8_0, false),
                       doctest::Contains("no whole number of Q8_0 blocks"), Error);
  CHECK_THROWS_WITH_AS(store.add_linear({"w", Format::kQ8_0, 4, 32, bytes.data(), 100}, Format::kQ8_0, false),
                       doctest::Contains("expected 136"), Error);
}
