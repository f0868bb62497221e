// Activation formats, bit for bit as quant/activation.h defines them, in every table.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/dtype.h"
#include "kernel_tables.h"

using namespace octavo;

namespace {

// 127 / amax; a group whose quotient overflows (amax below 3.8e-37) is all zero.
float inverse_of(float amax) {
  const float inverse = 127.0f / amax;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

float largest(const float* x, int n) {
  float amax = 0;
  for (int i = 0; i < n; ++i) amax = std::max(amax, std::fabs(x[i]));
  return amax;
}

int quantize_group(int8_t* q, const float* x, int n, float inverse) {
  int sum = 0;
  for (int i = 0; i < n; ++i) {
    q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    sum += q[i];
  }
  return sum;
}

template <class T>
void put(std::vector<uint8_t>& row, int64_t offset, int64_t index, T value) {
  std::memcpy(row.data() + offset + index * int64_t{sizeof(T)}, &value, sizeof(T));
}

// The row by definition; bytes that no part owns are left alone.
std::vector<uint8_t> defined_row(std::vector<uint8_t> row, ActFormat format, const std::vector<float>& x) {
  const int n = static_cast<int>(x.size());
  auto* q = reinterpret_cast<int8_t*>(row.data());
  if (format == ActFormat::kF32) std::memcpy(row.data(), x.data(), x.size() * sizeof(float));
  if (format == ActFormat::kBF16)
    for (int i = 0; i < (n + 1) / 2 * 2; ++i)
      put(row, 0, i, i < n ? float_to_bf16(x[static_cast<size_t>(i)]) : uint16_t{0});
  if (format == ActFormat::kQ8x32)
    for (int g = 0; g < n / 32; ++g) {
      const float amax = largest(x.data() + g * 32, 32);
      const int sum = quantize_group(q + g * 32, x.data() + g * 32, 32, inverse_of(amax));
      put(row, Q8x32Layout(n).d, g, amax / 127.0f);
      put(row, Q8x32Layout(n).sum, g, sum);
      put(row, Q8x32Layout(n).s, g, amax / 127.0f * static_cast<float>(sum));
    }
  if (format == ActFormat::kQ8x256)
    for (int g = 0; g < n / 256; ++g) {
      const float amax = largest(x.data() + g * 256, 256);
      put(row, Q8x256Layout(n).d, g, amax / 127.0f);
      for (int i = g * 256; i < (g + 1) * 256; i += 32) {
        const int first = quantize_group(q + i, x.data() + i, 16, inverse_of(amax));
        const int second = quantize_group(q + i + 16, x.data() + i + 16, 16, inverse_of(amax));
        put(row, Q8x256Layout(n).sum, i / 16, static_cast<int16_t>(first));
        put(row, Q8x256Layout(n).sum, i / 16 + 1, static_cast<int16_t>(second));
        put(row, Q8x256Layout(n).sum32, i / 32, static_cast<int16_t>(first + second));
      }
      for (int i = g * 256; i < (g + 1) * 256; ++i) put(row, Q8x256Layout(n).u, i, static_cast<uint8_t>(q[i] + 128));
    }
  return row;
}

// The hardware's conversion to bf16 reads subnormals as zero.
std::vector<float> as_converted(std::vector<float> x, ActFormat format, const KernelTable& kernels) {
  if (format == ActFormat::kBF16 && kernels.isa == Isa::kAvx512Bf16)
    for (float& value : x)
      if (std::fabs(value) < FLT_MIN) value = std::copysign(0.0f, value);
  return x;
}

void check_row(ActFormat format, const std::vector<float>& x) {
  const PageEnd<float> input(x);
  const auto n = static_cast<int>(x.size());
  const auto bytes = static_cast<size_t>(act_row_bytes(format, n));
  const std::vector<uint8_t> blank(bytes + 64, 0xa5);
  const auto f = static_cast<size_t>(format);
  for (const TestedTable& table : tested_tables()) {
    const std::vector<uint8_t> expected = defined_row(blank, format, as_converted(x, format, table.kernels));
    std::vector<uint8_t> row = blank;
    table.kernels.quantize_act[f]({row.data(), 0, input.data(), 0, 1, 0, n, n});
    std::vector<uint8_t> in_parts = blank;
    for (int first = 0; first < n; first += 256)
      table.kernels.quantize_act[f](
          {in_parts.data(), 0, input.data() + first, 0, 1, first, std::min(256, n - first), n});
    CHECK(in_parts == row);
    const auto differs = std::mismatch(row.begin(), row.end(), expected.begin());
    INFO(table.name, " format ", static_cast<int>(format), " n=", x.size(), " byte ", differs.first - row.begin());
    CHECK(differs.first == row.end());
  }
}

// A task of several rows, each the task of one.
void check_rows(ActFormat format, int n_rows, int first, int n, int width) {
  const int64_t x_stride = n + 16, row_stride = act_row_bytes(format, width) + 64;
  const std::vector<float> x = normal_floats(static_cast<size_t>(n_rows * x_stride), 11);
  const auto f = static_cast<size_t>(format);
  for (const TestedTable& table : tested_tables()) {
    std::vector<uint8_t> rows(static_cast<size_t>(n_rows * row_stride), 0xa5), one_by_one = rows;
    table.kernels.quantize_act[f]({rows.data(), row_stride, x.data(), x_stride, n_rows, first, n, width});
    for (int r = 0; r < n_rows; ++r)
      table.kernels.quantize_act[f](
          {one_by_one.data() + r * row_stride, 0, x.data() + r * x_stride, 0, 1, first, n, width});
    INFO(table.name, " format ", static_cast<int>(format), " rows=", n_rows, " n=", n);
    CHECK(rows == one_by_one);
  }
}

void check_row_in_all(const std::vector<float>& x) {
  check_row(ActFormat::kF32, x);
  check_row(ActFormat::kBF16, x);
  if (x.size() % 32 == 0) check_row(ActFormat::kQ8x32, x);
  if (x.size() % 256 == 0) check_row(ActFormat::kQ8x256, x);
}

std::vector<float> scaled(std::vector<float> x, float factor) {
  for (float& value : x) value *= factor;
  return x;
}

}  // namespace

TEST_CASE("kernels: activation rows of every length") {
  for (int n : row_lengths()) check_row_in_all(normal_floats(static_cast<size_t>(n), static_cast<uint32_t>(n)));
  for (size_t n : {96, 256, 512, 768, 2048}) check_row_in_all(normal_floats(n, 3));
}

TEST_CASE("kernels: columns of several activation rows") {
  for (int n_rows : {1, 2, 3, 7, 48})
    for (int n : {32, 64, 192, 512}) {
      check_rows(ActFormat::kF32, n_rows, 256, n, 768);
      check_rows(ActFormat::kBF16, n_rows, 256, n, 768);
      check_rows(ActFormat::kQ8x32, n_rows, 256, n, 768);
      if (n % 256 == 0) check_rows(ActFormat::kQ8x256, n_rows, 256, n, 768);
    }
}

TEST_CASE("kernels: activation rows of zeros, extremes and subnormals") {
  const auto x = normal_floats(512, 5);
  for (float factor : {0.0f, -0.0f, 1e30f, FLT_MAX / 8, 1e-30f, 4e-37f, 1e-37f, FLT_MIN, 1e-40f, 1e-45f})
    check_row_in_all(scaled(x, factor));
  for (float peak : {FLT_MAX, -FLT_MAX, FLT_MIN, -1e-42f, 3.7e-37f, 3.8e-37f}) {
    std::vector<float> one(512, 0.0f), all(512, peak);
    one[300] = peak;
    check_row_in_all(one);
    check_row_in_all(all);
    all[17] = -peak;
    check_row_in_all(all);
  }
}

TEST_CASE("kernels: activations round half to even") {
  std::vector<float> x(256);
  for (int i = 0; i < 256; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i - 128) / 2.0f;
  for (size_t i = 0; i < 256; i += 32) x[i] = 127.0f;  // so that the scale is 1
  check_row_in_all(x);
  for (uint32_t bits :
       {0x3f808000u, 0x3f818000u, 0x3f807fffu, 0x3f808001u, 0x7f7fffffu, 0xff7f8000u, 0x00008000u, 0x7f800000u})
    check_row(ActFormat::kBF16, {bits_to_float(bits)});
}
