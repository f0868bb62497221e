// Linears against double precision over the dequantised weights and the quantised activations, so that only float
// rounding is left; and bitwise equal rows however many tokens come together and however strips are split.
#include <algorithm>
#include <cmath>

#include "base/dtype.h"
#include "kernel_tables.h"
#include "quant/planes.h"
#include "sample_blocks.h"

using namespace octavo;

namespace {

constexpr int kTokens = 64;
constexpr float kCanary = 12345.0f;

// A weight matrix as planes and dequantised, with a bias where n is odd.
struct Weights {
  Format format;
  int n, k, strips;
  int64_t strip_bytes;
  PageEnd<uint8_t> planes;
  std::vector<float> values;  // (n, k)
  PageEnd<float> biases;      // (16 * strips)

  Weights(Format f, int rows, int columns, const std::vector<uint8_t>& native)
      : format(f),
        n(rows),
        k(columns),
        strips(static_cast<int>(n_strips(rows))),
        strip_bytes(plane_layout(f, columns).bytes),
        planes(static_cast<size_t>(strip_bytes * strips)),
        values(static_cast<size_t>(rows) * columns),
        biases(static_cast<size_t>(16 * strips)) {
    repack(planes.data(), native.data(), f, n, k, 0, strips);
    format_row(f).dequantize(values.data(), native.data(), static_cast<int64_t>(values.size()));
    const auto numbers = normal_floats(static_cast<size_t>(16 * strips), 5);
    std::copy(numbers.begin(), numbers.end(), biases.data());
  }

  const float* bias() const { return n % 2 == 0 ? nullptr : biases.data(); }
};

std::vector<uint8_t> native_rows(Format format, int n, int k) {
  return sample_blocks(format_row(format), int64_t{n} * k, static_cast<uint32_t>(n * 1000 + k));
}

// Token rows in a kernel's format, with what they stand for.
struct Activations {
  int64_t stride;
  PageEnd<uint8_t> rows;
  std::vector<float> values;  // (n_tokens, k), as the kernel sees them

  Activations(const KernelTable& kernels, ActFormat format, const std::vector<float>& x, int n_tokens, int k)
      : stride(act_row_bytes(format, k)), rows(static_cast<size_t>(stride * n_tokens)), values(x) {
    for (int t = 0; t < n_tokens; ++t) {
      uint8_t* row = rows.data() + t * stride;
      float* seen = values.data() + int64_t{t} * k;
      kernels.quantize_act[static_cast<size_t>(format)]({row, 0, x.data() + int64_t{t} * k, 0, 1, 0, k, k});
      if (format == ActFormat::kBF16)
        for (int i = 0; i < k; ++i) seen[i] = bf16_to_float(reinterpret_cast<const uint16_t*>(row)[i]);
      if (format == ActFormat::kQ8x32)
        for (int i = 0; i < k; ++i)
          seen[i] = reinterpret_cast<const float*>(row + Q8x32Layout(k).d)[i / 32] *
                    static_cast<float>(reinterpret_cast<const int8_t*>(row)[i]);
      if (format == ActFormat::kQ8x256)
        for (int i = 0; i < k; ++i)
          seen[i] = reinterpret_cast<const float*>(row + Q8x256Layout(k).d)[i / 256] *
                    static_cast<float>(reinterpret_cast<const int8_t*>(row)[i]);
    }
  }
};

// (n_tokens, stride) outputs of strips [first, last); every float that is not theirs must keep the canary.
std::vector<float> run(const LinearKernel& kernel, const Weights& w, const Activations& act, int token, int n_tokens,
                       int first, int last) {
  const int stride = 16 * w.strips + 5;
  std::vector<float> out(static_cast<size_t>(n_tokens) * stride + 16, kCanary);
  kernel.run({out.data() + 16 * first, stride, act.rows.data() + token * act.stride, act.stride,
              w.planes.data() + first * w.strip_bytes, n_tokens, last - first, w.k,
              w.bias() == nullptr ? nullptr : w.bias() + 16 * first, &format_row(w.format)});
  int touched = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t column = i % static_cast<size_t>(stride);
    const bool mine = i / static_cast<size_t>(stride) < static_cast<size_t>(n_tokens) &&
                      column >= static_cast<size_t>(16 * first) && column < static_cast<size_t>(16 * last);
    if (!mine && out[i] != kCanary) ++touched;
  }
  CHECK(touched == 0);
  return out;
}

// The same of all strips, by a panel that the kernel unpacks first.
std::vector<float> run_unpacked(const LinearKernel& kernel, const Weights& w, const Activations& act, int n_tokens) {
  const int stride = 16 * w.strips + 5;
  const PageEnd<uint8_t> panel(static_cast<size_t>(int64_t{w.strips} * w.k / 256 * kernel.unpacked_bytes));
  std::vector<float> out(static_cast<size_t>(n_tokens) * stride);
  LinearTask task{out.data(), stride, act.rows.data(), act.stride,           w.planes.data(), n_tokens,
                  w.strips,   w.k,    w.bias(),        &format_row(w.format)};
  kernel.unpack(panel.data(), task);
  task.weights = panel.data();
  kernel.run_unpacked(task);
  return out;
}

// How many rows of a run differ in their strips from the rows of one token each.
int differing_rows(const std::vector<float>& out, const std::vector<std::vector<float>>& alone, const Weights& w,
                   int token, int n_tokens, int first, int last) {
  int count = 0;
  for (int t = 0; t < n_tokens; ++t) {
    const float* row = out.data() + static_cast<int64_t>(t) * (16 * w.strips + 5) + 16 * first;
    const float* expected = alone[static_cast<size_t>(token + t)].data() + 16 * first;
    count += !same_bits(row, expected, static_cast<size_t>(16 * (last - first)));
  }
  return count;
}

// The largest error of a row in units of its bound: roundings * 2^-24 * sum of |terms|. A quantised group is an exact
// integer and takes at most four roundings with its minimum, a dense column at most two; a term of a format with
// minima is |d q| + |m| <= |w| + 2 max|w|.
double worst_error(const std::vector<float>& out, const float* x, const Weights& w) {
  const bool dense = format_row(w.format).block_size == 1;
  const double roundings = dense ? 2.0 * w.k + 2 : 4.0 * w.k / 32 + 4;
  double worst = 0;
  for (int row = 0; row < 16 * w.strips; ++row) {
    double sum = w.bias() == nullptr ? 0 : w.bias()[row], terms = std::fabs(sum), largest = 0, magnitude = 0;
    for (int i = 0; i < w.k && row < w.n; ++i) {
      const double weight = w.values[static_cast<size_t>(row) * w.k + i];
      sum += weight * x[i];
      terms += std::fabs(weight * x[i]);
      largest = std::fmax(largest, std::fabs(weight));
      magnitude += std::fabs(double{x[i]});
    }
    if (!dense) terms += 2 * largest * magnitude;
    const double error = std::fabs(static_cast<double>(out[static_cast<size_t>(row)]) - sum);
    if (!(error <= roundings * kUnit * terms)) worst = std::fmax(worst, error / (roundings * kUnit * terms));
    if (std::isnan(out[static_cast<size_t>(row)])) worst = INFINITY;
  }
  return worst;
}

void check_shape(const TestedTable& table, const Weights& w, const std::vector<float>& x, bool every_count) {
  const LinearKernel& kernel = table.kernels.linear[static_cast<size_t>(w.format)];
  const Activations act(table.kernels, kernel.act, x, kTokens, w.k);
  INFO(table.name, " ", format_row(w.format).name, " n=", w.n, " k=", w.k);
  std::vector<std::vector<float>> alone;
  for (int t = 0; t < kTokens; ++t) {
    alone.push_back(run(kernel, w, act, t, 1, 0, w.strips));
    if (t < 8) CHECK(worst_error(alone.back(), act.values.data() + int64_t{t} * w.k, w) == 0);
  }
  for (int m = 2; m <= kTokens; m += every_count ? 1 : 7 + m / 2) {
    CAPTURE(m);
    const int token = kTokens - m;
    CHECK(differing_rows(run(kernel, w, act, token, m, 0, w.strips), alone, w, token, m, 0, w.strips) == 0);
  }
  for (int m : {1, 2, 5, 7, 47, kTokens})
    if (kernel.unpack != nullptr)
      CHECK(differing_rows(run_unpacked(kernel, w, act, m), alone, w, 0, m, 0, w.strips) == 0);
  for (int m : {1, 2, 7, 16})
    for (int first = 0; first < w.strips; ++first)
      for (int last = first + 1; last <= w.strips; ++last) {
        CAPTURE(m);
        CHECK(differing_rows(run(kernel, w, act, 0, m, first, last), alone, w, 0, m, first, last) == 0);
      }
}

void check_format(Format format, std::initializer_list<int> ks) {
  for (int n : {1, 15, 16, 17, 48, 64})
    for (int k : ks) {
      const Weights w(format, n, k, native_rows(format, n, k));
      const auto x = normal_floats(static_cast<size_t>(kTokens) * k, static_cast<uint32_t>(k));
      for (const TestedTable& table : tested_tables())
        if (table.kernels.linear[static_cast<size_t>(format)].run != nullptr)
          check_shape(table, w, x, (k < 100 || k == 256) && (n == 17 || n == 64));
    }
}

}  // namespace

TEST_CASE("kernels: dense linears") {
  for (Format format : {Format::kF32, Format::kF16, Format::kBF16}) check_format(format, {1, 31, 32, 63, 96, 576});
}

TEST_CASE("kernels: linears with a scale per 32") {
  for (Format format :
       {Format::kQ4_0, Format::kQ4_1, Format::kQ5_0, Format::kQ5_1, Format::kQ8_0, Format::kIQ4_NL, Format::kMXFP4})
    check_format(format, {32, 64, 96, 576});
}

TEST_CASE("kernels: linears with a scale per 256") {
  for (Format format : {Format::kQ2_K, Format::kQ3_K, Format::kQ4_K, Format::kQ5_K, Format::kQ6_K, Format::kIQ4_XS})
    check_format(format, {256, 768});
}

TEST_CASE("kernels: linears over super blocks that a format's own code unpacks") {
  for (const FormatRow& row : all_formats())
    if (row.to_integers != nullptr) check_format(row.format, {256, 768});
}

// Integers are exact and every float chain has one order, so the tables that fuse their multiply-adds cannot differ.
TEST_CASE("kernels: linears fetch what comes up, so many lines for every line of weights") {
  constexpr int kPieces = 40, kLines = 5;
  const std::vector<uint8_t> memory(size_t{kPieces} * kLines * 64);
  std::vector<const uint8_t*> pieces;
  for (int i = 0; i < kPieces; ++i) pieces.push_back(memory.data() + i * kLines * 64);
  for (const auto& [name, kernels] : tested_tables())
    for (const Format format : {Format::kBF16, Format::kQ8_0}) {
      INFO(name, " ", format_row(format).name);
      const Weights w(format, 64, 256, native_rows(format, 64, 256));
      const LinearKernel& kernel = kernels.linear[static_cast<size_t>(format)];
      const Activations act(kernels, kernel.act, normal_floats(size_t{kTokens} * 256, 6), kTokens, 256);
      std::vector<float> out(size_t{kTokens} * 64);
      for (const int rate : {64, 4096}) {
        Upcoming upcoming{pieces.data(), pieces.data() + kPieces, kLines, 0, rate, 0};
        LinearTask task{out.data(), 64,  act.rows.data(), act.stride,         w.planes.data(), kTokens,
                        w.strips,   w.k, nullptr,         &format_row(format)};
        task.upcoming = &upcoming;
        kernel.run(task);
        const auto fetched = (upcoming.next - pieces.data()) * kLines + upcoming.fetched;
        const int64_t due = (w.strip_bytes * w.strips + 63) / 64 * rate / Upcoming::kWeightLines;
        const bool reads_ahead = format == Format::kBF16 || kernels.isa != Isa::kScalar;
        CHECK(fetched <= std::min<int64_t>(due, kPieces * kLines));
        CHECK(fetched >= (reads_ahead ? std::min<int64_t>(due * 3 / 4, kPieces * kLines) : 0));
      }
    }
}

TEST_CASE("kernels: quantised linears agree bit for bit between the vector tables") {
  const int n = 40, k = 512;
  for (const FormatRow& row : all_formats()) {
    if (row.block_size == 1 || !has_planes(row.format)) continue;
    INFO(row.name);
    const Weights w(row.format, n, k, native_rows(row.format, n, k));
    const auto x = normal_floats(static_cast<size_t>(kTokens) * k, 9);
    std::vector<std::vector<float>> results;
    for (const TestedTable& table : tested_tables()) {
      if (table.kernels.isa == Isa::kScalar) continue;
      const LinearKernel& kernel = table.kernels.linear[static_cast<size_t>(row.format)];
      const Activations act(table.kernels, kernel.act, x, kTokens, k);
      results.push_back(run(kernel, w, act, 0, 23, 0, w.strips));
      CHECK(same_bits(results.back().data(), results.front().data(), results.front().size()));
    }
  }
}

namespace {

// The same scale and minimum in every block, and in Q6_K the same sub-scales.
void set_scales(uint8_t* block, Format format, int sub_scale) {
  const uint16_t scales[2] = {float_to_half(0.75f), float_to_half(-1.5f)};
  const bool has_min = format != Format::kQ4_0 && format != Format::kQ5_0 && format != Format::kQ8_0;
  if (format != Format::kQ6_K)
    std::memcpy(block, scales, has_min ? 4 : 2);
  else
    std::memcpy(block + 208, scales, 2);
  if (format == Format::kQ6_K && sub_scale >= 0) std::memset(block + 192, sub_scale, 16);
}

void check_limits(Format format, int fill, int sub_scale) {
  const int n = 32, k = 2 * format_row(format).block_size;
  std::mt19937 random(7);
  std::vector<uint8_t> rows(row_bytes(format, k) * n);
  for (uint8_t& byte : rows) byte = static_cast<uint8_t>(fill < 0 ? random() : static_cast<unsigned>(fill));
  for (size_t block = 0; block < rows.size(); block += static_cast<size_t>(format_row(format).block_bytes))
    set_scales(rows.data() + block, format, sub_scale);
  const Weights w(format, n, k, rows);
  std::vector<float> x(static_cast<size_t>(kTokens) * k);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t token = i / static_cast<size_t>(k), column = i % static_cast<size_t>(k);
    x[i] = token == 0     ? 1.0f
           : token == 1   ? -1.0f
           : token == 2   ? (column % 2 ? -1.0f : 1.0f)
           : random() % 2 ? 1.0f
                          : -1.0f;
  }
  CAPTURE(fill);
  CAPTURE(sub_scale);
  for (const TestedTable& table : tested_tables()) check_shape(table, w, x, false);
}

}  // namespace

// Quants and activations at their limits: partial sums must neither saturate nor wrap.
TEST_CASE("kernels: linears at the limits of their integers") {
  for (const FormatRow& row : all_formats()) {
    if (row.block_size == 1 || row.quantize == nullptr) continue;
    for (int fill : {0x00, 0x7f, 0x80, 0xff, -1}) check_limits(row.format, fill, -1);
    if (row.format != Format::kQ6_K) continue;
    for (int fill : {0x00, 0xff, -1})
      for (int sub_scale : {0x7f, 0x80}) check_limits(row.format, fill, sub_scale);
  }
}
