#include <doctest/doctest.h>

#include <algorithm>

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
  CHECK(plan.calls.size() == static_cast<size_t>(2 + 5 * model.shape().layers));
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
