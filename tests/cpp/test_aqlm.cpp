// AQLM by tables against double precision within the stated bound, and bitwise equal however rows and tokens are cut;
// packing against decoding; what does not fit is refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "base/check.h"
#include "base/dtype.h"
#include "graph/graph.h"
#include "graph/weights.h"
#include "kernel_tables.h"
#include "quant/aqlm.h"
#include "quant/aqlm_slabs.h"
#include "quant/planes.h"
#include "run_graph.h"

using namespace octavo;

namespace {

constexpr int kTokens = 7;

// A random matrix whose codes lie as a checkpoint's and as tables want them.
struct Codes {
  AqlmMatrix matrix{};
  std::vector<uint8_t> codes, slabs;
  std::vector<float> codebooks, scales;
  std::vector<int16_t> books;
  float step = 0;

  Codes(int n, int k, int group, int n_codebooks, int bits = 8) : scales(static_cast<size_t>(n), 1.0f) {
    matrix.name = "random";
    matrix.n = n;
    matrix.k = k;
    matrix.group = group;
    matrix.n_codebooks = n_codebooks;
    matrix.bits = bits;
    codebooks = normal_floats(matrix.codebook_values(), 3);
    codes.resize(static_cast<size_t>(n) * static_cast<size_t>(matrix.row_code_bytes()));
    std::mt19937 random(static_cast<uint32_t>(n + k));
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random());
    matrix.codes = codes.data();
    matrix.code_bytes = codes.size();
    matrix.codebooks = codebooks.data();
    matrix.n_values = codebooks.size();
    matrix.scales = scales.data();
    matrix.n_scales = scales.size();
  }
  void pack() {
    slabs.assign(static_cast<size_t>(aqlm_slabs(matrix) * aqlm_slab_bytes(matrix.n)), 0);
    pack_aqlm_slabs(slabs.data(), matrix, 0, matrix.n);
    books.resize(codebooks.size());
    step = round_codebooks(books.data(), matrix);
  }
  std::vector<float> row(int64_t r) const {
    std::vector<float> weights(static_cast<size_t>(matrix.k));
    decode_aqlm_row(weights.data(), matrix, r);
    return weights;
  }
};

// (n_tokens, stride) of rows [first, first + 16 * strips).
std::vector<float> look_up(const KernelTable& kernels, const Codes& c, const std::vector<float>& x, int token,
                           int n_tokens, int first, int strips) {
  const int stride = 16 * strips + 3;
  std::vector<float> out(static_cast<size_t>(n_tokens) * static_cast<size_t>(stride), -1.0f);
  kernels.aqlm_table({.out = out.data(),
                      .out_stride = stride,
                      .act = reinterpret_cast<const uint8_t*>(x.data() + token * c.matrix.k),
                      .act_stride = c.matrix.k * 4,
                      .codes = c.slabs.data() + first * kAqlmTerms,
                      .slab_bytes = aqlm_slab_bytes(c.matrix.n),
                      .books = c.books.data(),
                      .n_codebooks = c.matrix.n_codebooks,
                      .group = c.matrix.group,
                      .n_tokens = n_tokens,
                      .n_strips = strips,
                      .k = static_cast<int>(c.matrix.k)});
  return out;
}

double longest_of(const float* vectors, int64_t n, int64_t group) {
  double longest = 0;
  for (int64_t v = 0; v < n; ++v)
    longest = std::max(longest, std::sqrt(std::inner_product(vectors + v * group, vectors + (v + 1) * group,
                                                             vectors + v * group, 0.0)));
  return longest;
}

// What every output may be off by (kernels/body/aqlm_table.inl), and the rounding of floats.
double bound_of(const Codes& c, const float* x) {
  const AqlmMatrix& m = c.matrix;
  const int64_t in_slab = kAqlmTerms / m.n_codebooks, n_groups = m.k / m.group;
  const double term = 32768 / double{kAqlmNorm} / kAqlmNorm + std::sqrt(m.group) / kAqlmNorm + 1e-6;
  double norms = 0;
  for (int64_t first = 0; first < n_groups; first += in_slab)
    norms += longest_of(x + first * m.group, std::min(in_slab, n_groups - first), m.group);
  return kAqlmTerms * term * norms * longest_of(c.codebooks.data(), int64_t{m.n_codebooks} << m.bits, m.group);
}

}  // namespace

TEST_CASE("aqlm: sums of looked-up products stay within the bound, in every ISA") {
  for (const auto& [n, k, group, n_codebooks] : std::vector<std::array<int, 4>>{
           {200, 256, 8, 2}, {64, 72, 8, 1}, {130, 96, 8, 3}, {70, 64, 16, 4}, {65, 128, 32, 8}, {16, 80, 16, 5}}) {
    Codes c(n, k, group, n_codebooks);
    c.pack();
    std::vector<float> x = normal_floats(static_cast<size_t>(kTokens) * k, 5);
    x[3] = 900;                               // an outlier costs its own slab's precision only
    std::fill_n(x.begin() + 2 * k, k, 0.0f);  // a token of zeros
    const int strips = (n + 15) / 16;
    for (const TestedTable& table : tested_tables()) {
      CAPTURE(table.name);
      CAPTURE(n_codebooks);
      const auto out = look_up(table.kernels, c, x, 0, kTokens, 0, strips);
      for (int t = 0; t < kTokens; ++t) {
        const double bound = bound_of(c, x.data() + t * k);
        for (int r = 0; r < n; ++r) {
          const auto weights = c.row(r);
          double expected = 0;
          for (int i = 0; i < k; ++i) expected += double{weights[i]} * x[t * k + i];
          CHECK(std::abs(double{c.step} * out[t * (16 * strips + 3) + r] - expected) <= bound);
        }
      }
    }
  }
}

TEST_CASE("aqlm: the largest sums that there can be fit") {
  for (const int group : {8, 16, 32}) {
    const int n = 16, k = 256;
    Codes c(n, k, group, 2);
    const auto longest = normal_floats(static_cast<size_t>(group), 11);
    std::vector<float> x(static_cast<size_t>(k));
    for (int book = 0; book < 2; ++book)
      for (int j = 0; j < group; ++j)
        c.codebooks[static_cast<size_t>((book * 256 + 7) * group + j)] = 100 * longest[static_cast<size_t>(j)];
    std::fill(c.codes.begin(), c.codes.end(), 7);
    for (const float sign : {1.0f, -1.0f}) {
      for (int i = 0; i < k; ++i) x[static_cast<size_t>(i)] = sign * longest[static_cast<size_t>(i % group)];
      c.pack();
      const auto weights = c.row(0);
      const double expected = std::inner_product(weights.begin(), weights.end(), x.begin(), 0.0);
      for (const TestedTable& table : tested_tables()) {
        CAPTURE(table.name);
        CHECK(c.step * look_up(table.kernels, c, x, 0, 1, 0, 1)[0] == doctest::Approx(expected).epsilon(0.002));
      }
    }
  }
}

TEST_CASE("aqlm: what is no number stays none, in its own token") {
  const int n = 64, k = 128;
  for (const float bad : {std::nanf(""), HUGE_VALF}) {
    Codes c(n, k, 8, 2);
    c.pack();
    auto x = normal_floats(3 * k, 5);
    x[k + 70] = bad;
    Codes broken(n, k, 8, 2);
    broken.codebooks[1000] = bad;
    broken.pack();
    for (const TestedTable& table : tested_tables()) {
      CAPTURE(table.name);
      const auto out = look_up(table.kernels, c, x, 0, 3, 0, n / 16);
      const auto looked_up = look_up(table.kernels, broken, x, 0, 1, 0, n / 16);
      for (int r = 0; r < n; ++r) {
        CHECK(std::isfinite(out[static_cast<size_t>(r)]));
        CHECK(std::isnan(out[static_cast<size_t>(n + 3 + r)]));
        CHECK(std::isfinite(out[static_cast<size_t>(2 * (n + 3) + r)]));
        CHECK(std::isnan(broken.step * looked_up[static_cast<size_t>(r)]));
      }
    }
  }
}

TEST_CASE("aqlm: a looked-up number depends on its own row and token only") {
  const int n = 592, k = 200, strips = n / 16;
  Codes c(n, k, 8, 2);
  c.pack();
  const auto x = normal_floats(static_cast<size_t>(kTokens) * k, 9);
  for (const TestedTable& table : tested_tables()) {
    CAPTURE(table.name);
    const auto all = look_up(table.kernels, c, x, 0, kTokens, 0, strips);
    for (int t = 0; t < kTokens; ++t)
      for (int first = 0; first < n; first += 256) {
        const int count = std::min(16, strips - first / 16);
        const auto part = look_up(table.kernels, c, x, t, 1, first, count);
        CHECK(same_bits(part.data(), all.data() + t * (n + 3) + first, static_cast<size_t>(16 * count)));
        CHECK(part[static_cast<size_t>(16 * count)] == -1.0f);
      }
  }
}

TEST_CASE("aqlm: rows do not depend on how many tokens, threads and ranks share the tables") {
  constexpr int kWidth = 328, kInner = 600;
  std::deque<Codes> codes;
  WeightStore store(1);
  const auto linear = [&](int n, int k) -> LinearOp::Part {
    return {store.add_aqlm(codes.emplace_back(n, k, 8, 2).matrix, Format::kBF16, false), std::nullopt};
  };
  const std::vector<float> floats = normal_floats(70 * kWidth, 4);
  const auto matrix = [&](int n) {
    return SourceMatrix{"random",
                        Format::kF32,
                        n,
                        kWidth,
                        reinterpret_cast<const uint8_t*>(floats.data()),
                        static_cast<size_t>(n) * kWidth * 4};
  };
  const NormOp rms{NormOp::Kind::kRms, store.add_vector(matrix(1)), std::nullopt, 1e-5f};
  Graph graph(store);
  ValueId x = graph.embed(store.add_embedding(matrix(70)));
  const auto parts = graph.linear(graph.norm(x, rms), {linear(304, kWidth), linear(256, kWidth), linear(520, kWidth)});
  for (const ValueId part : parts) x = graph.add(x, graph.linear(part, {linear(kWidth, graph.width(part))})[0]);
  const auto gated = graph.linear(graph.norm(x, rms), {linear(kInner, kWidth), linear(kInner, kWidth)});
  const ValueId inner = graph.mul(graph.activation(gated[0], Activation::kSilu), gated[1]);
  graph.set_output(graph.add(x, graph.linear(inner, {linear(kWidth, kInner)})[0]));

  std::vector<int32_t> ids(70);
  std::iota(ids.begin(), ids.end(), 0);
  const std::vector<float> all = test::run_graph(graph, ids, 1);
  CHECK(std::all_of(all.begin(), all.end(), [](float value) { return std::isfinite(value); }));
  for (const int n_tokens : {1, 2, 3, 31, 32, 33, 70})
    for (const Crew crew : {Crew(1), Crew(2), Crew(3), Crew(5), Crew(3, 2)}) {
      CAPTURE(n_tokens);
      CAPTURE(crew.n_threads);
      const auto rows = test::run_graph(graph, {ids.end() - n_tokens, ids.end()}, crew);
      CHECK(same_bits(rows.data(), all.data() + all.size() - rows.size(), rows.size()));
    }
}

TEST_CASE("aqlm: codes become the planes of their rows in bfloat16") {
  for (const auto& [n, k, group, codebooks, bits] : std::vector<std::array<int, 5>>{{40, 72, 8, 1, 16},
                                                                                    {16, 96, 16, 1, 11},
                                                                                    {35, 64, 32, 1, 8},
                                                                                    {7, 32, 8, 1, 3},
                                                                                    {40, 64, 16, 2, 12},
                                                                                    {9, 64, 8, 4, 8}}) {
    const Codes c(n, k, group, codebooks, bits);
    std::vector<uint16_t> vectors(c.codebooks.size());
    for (size_t i = 0; i < vectors.size(); ++i) vectors[i] = float_to_bf16(c.codebooks[i]);
    const int64_t strip_bytes = plane_layout(Format::kBF16, k).bytes;
    const int strips = static_cast<int>(n_strips(n));
    const int64_t row_codes = c.matrix.row_code_bytes(), unit = c.matrix.group_code_bytes();
    const AqlmVectors in_file{.codes = c.codes.data(),
                              .vectors = vectors.data(),
                              .summed = c.codebooks.data(),
                              .strip_bytes = 16 * row_codes,
                              .row_step = row_codes,
                              .group_step = unit,
                              .n_rows = n,
                              .n_codebooks = codebooks,
                              .bits = bits,
                              .group = group,
                              .k = k};
    std::vector<uint8_t> packed(static_cast<size_t>(16 * strips * row_codes));
    pack_aqlm_strips(packed.data(), c.matrix, 0, strips);
    AqlmVectors by_strips = in_file;
    by_strips.codes = packed.data();
    by_strips.row_step = unit;
    by_strips.group_step = 16 * unit;
    by_strips.n_rows = 16 * strips;
    const std::array layouts{in_file, by_strips};
    std::vector<uint16_t> native(static_cast<size_t>(16 * strips) * k);
    for (int r = 0; r < 16 * strips; ++r) {
      const auto weights = c.row(std::min(r, n - 1));
      for (int i = 0; i < k; ++i) native[static_cast<size_t>(r * k + i)] = float_to_bf16(weights[i]);
    }
    std::vector<uint8_t> expected(static_cast<size_t>(strip_bytes * strips));
    repack(expected.data(), reinterpret_cast<const uint8_t*>(native.data()), Format::kBF16, 16 * strips, k, 0, strips);
    for (const TestedTable& table : tested_tables()) {
      CAPTURE(table.name);
      std::vector<uint8_t> planes(expected.size());
      for (const AqlmVectors& rows : layouts) {
        std::fill(planes.begin(), planes.end(), uint8_t{0});
        table.kernels.aqlm_decode(planes.data(), rows, strips);
        CHECK(planes == expected);
      }
      const LinearKernel& linear = table.kernels.linear[static_cast<size_t>(Format::kBF16)];
      const int64_t act_bytes = act_row_bytes(linear.act, k);
      std::vector<uint8_t> x(static_cast<size_t>(kAqlmDotTokens * act_bytes));
      const auto floats = normal_floats(static_cast<size_t>(kAqlmDotTokens * k), 4);
      table.kernels.quantize_act[static_cast<size_t>(linear.act)](
          {x.data(), act_bytes, floats.data(), k, kAqlmDotTokens, 0, k, k});
      for (int tokens = 1; tokens <= kAqlmDotTokens; ++tokens) {
        std::vector<float> decoded(static_cast<size_t>(tokens * strips * 16)), direct(decoded.size());
        LinearTask task{decoded.data(), strips * 16, x.data(), act_bytes, planes.data(), tokens, strips, k};
        linear.run(task);
        task.out = direct.data();
        for (const AqlmVectors& rows : layouts) {
          std::fill(direct.begin(), direct.end(), 0.0f);
          table.kernels.aqlm_dot(task, rows);
          CHECK(same_bits(decoded.data(), direct.data(), decoded.size()));
        }
      }
    }
  }
}

TEST_CASE("aqlm: sizes that do not fit are refused") {
  const Codes good(48, 64, 8, 2);
  CHECK_NOTHROW(check_aqlm(good.matrix));
  const auto refused = [&](const char* why, auto change) {
    AqlmMatrix matrix = good.matrix;
    change(matrix);
    CHECK_THROWS_WITH_AS(check_aqlm(matrix), doctest::Contains(why), Error);
  };
  refused("bytes of codes", [](AqlmMatrix& m) { --m.code_bytes; });
  refused("values in its codebooks", [](AqlmMatrix& m) { ++m.n_values; });
  refused("scales", [](AqlmMatrix& m) { m.n_scales = 1; });
  refused("a multiple of 8", [](AqlmMatrix& m) { m.k = 65; });
  refused("groups of 4", [](AqlmMatrix& m) { m.group = 4; });
  refused("codes of 17 bits", [](AqlmMatrix& m) { m.bits = 17; });
  refused("0 codebooks", [](AqlmMatrix& m) { m.n_codebooks = 0; });
  refused("must be positive", [](AqlmMatrix& m) { m.n = 0; });
  WeightStore store(1);
  CHECK_THROWS_WITH_AS(store.add_aqlm(good.matrix, Format::kF16, false), doctest::Contains("only as F32 or BF16"),
                       Error);
}

TEST_CASE("aqlm: the shape decides who is looked up") {
  CHECK(multiplied_by_table(Codes(256, 64, 8, 2).matrix));
  CHECK(!multiplied_by_table(Codes(255, 64, 8, 2).matrix));
  CHECK(!multiplied_by_table(Codes(256, 64, 8, 1, 9).matrix));
  CHECK(!multiplied_by_table(Codes(256, 64, 8, 1, 7).matrix));
}
