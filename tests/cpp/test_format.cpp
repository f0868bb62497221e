// The table of weight formats and its scalar references, on what needs no second implementation: sizes, round
// trips and edges. tests/python/test_formats.py judges the same functions against the gguf package.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "quant/format.h"
#include "sample_blocks.h"

using namespace octavo;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> normal_values(size_t n, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<uint8_t> quantize(const FormatRow& row, const std::vector<float>& in) {
  std::vector<uint8_t> blocks(row_bytes(row.format, static_cast<int64_t>(in.size())));
  row.quantize(blocks.data(), in.data(), static_cast<int64_t>(in.size()));
  return blocks;
}

std::vector<float> dequantize(const FormatRow& row, const std::vector<uint8_t>& blocks) {
  const size_t n = blocks.size() / static_cast<size_t>(row.block_bytes) * static_cast<size_t>(row.block_size);
  std::vector<float> out(n);
  row.dequantize(out.data(), blocks.data(), static_cast<int64_t>(n));
  return out;
}

std::vector<float> round_trip(const FormatRow& row, const std::vector<float>& in) {
  return dequantize(row, quantize(row, in));
}

// Root mean square of the difference, relative to that of `in`.
double relative_error(const std::vector<float>& in, const std::vector<float>& out) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    error += std::pow(double{in[i]} - double{out[i]}, 2);
    norm += std::pow(double{in[i]}, 2);
  }
  return std::sqrt(error / norm);
}

// What a format may lose on normal values: half a unit of a float, 3 * 2^-bits for quantised weights.
double error_bound(const FormatRow& row) {
  if (row.format == Format::kF32) return 0;
  if (row.format == Format::kF16) return 0x1p-12;
  if (row.format == Format::kBF16) return 0x1p-9;
  return 3.0 * std::exp2(-8.0 * row.block_bytes / row.block_size);
}

}  // namespace

TEST_CASE("format: rows stand in enum order and are found by name and by gguf number") {
  REQUIRE(all_formats().size() == kFormatCount);
  std::set<std::string> names;
  for (const FormatRow& row : all_formats()) {
    CAPTURE(std::string(row.name));
    CHECK(&row == &format_row(row.format));
    CHECK(format_from_gguf(row.gguf_id) == row.format);
    CHECK(format_from_name(row.name) == row.format);
    CHECK(names.insert(row.name).second);
    CHECK(row_bytes(row.format, 512) == static_cast<size_t>(512 / row.block_size * row.block_bytes));
  }
  CHECK(!format_from_gguf(-1));
  CHECK(!format_from_name("Q9_9"));
  CHECK(!format_from_name(""));
}

TEST_CASE("format: the round trip of normal values stays within the format's error") {
  for (const FormatRow& row : all_formats()) {
    if (row.quantize == nullptr) continue;
    for (const float scale : {0.02f, 1.0f, 300.0f}) {
      CAPTURE(std::string(row.name));
      CAPTURE(scale);
      const std::vector<float> in = normal_values(64 * 256, scale, 7);
      CHECK(relative_error(in, round_trip(row, in)) <= error_bound(row));
    }
  }
}

TEST_CASE("format: shifted values cost formats with a minimum no more than centred ones") {
  for (const Format format : {Format::kQ4_1, Format::kQ5_1, Format::kQ4_K, Format::kQ5_K}) {
    const FormatRow& row = format_row(format);
    CAPTURE(std::string(row.name));
    std::vector<float> in = normal_values(16 * 256, 1.0f, 8);
    const double centred = relative_error(in, round_trip(row, in));
    for (float& x : in) x -= 3.0f;
    CHECK(relative_error(in, round_trip(row, in)) < centred);
  }
}

TEST_CASE("format: zeros and one repeated value survive the round trip") {
  for (const FormatRow& row : all_formats()) {
    if (row.quantize == nullptr) continue;
    CAPTURE(std::string(row.name));
    for (const float x : round_trip(row, std::vector<float>(512, 0.0f))) REQUIRE(x == 0.0f);
    for (const float x : round_trip(row, std::vector<float>(512, 0.5f))) REQUIRE(std::fabs(x - 0.5f) < 0.01f);
    for (const float x : round_trip(row, std::vector<float>(512, -0.5f))) REQUIRE(std::fabs(x + 0.5f) < 0.01f);
  }
}

TEST_CASE("format: tiny, huge and non-finite input is quantised without harm") {
  for (const FormatRow& row : all_formats()) {
    if (row.quantize == nullptr) continue;
    CAPTURE(std::string(row.name));
    for (const float x : {1e-45f, 1e-38f, 1e-8f, 6e4f, 3e38f, kInf, -kInf, std::nanf("")}) {
      std::vector<float> in = normal_values(512, 1.0f, 9);
      in[5] = in[300] = x;
      CHECK(quantize(row, in).size() == row_bytes(row.format, 512));
      CHECK(quantize(row, std::vector<float>(512, x)).size() == row_bytes(row.format, 512));
    }
    const std::vector<float> tiny = normal_values(512, 1e-9f, 10);
    for (const float x : round_trip(row, tiny)) REQUIRE(std::fabs(x) < 1e-6f);
  }
}

TEST_CASE("format: a row equals its blocks taken one by one, at any alignment") {
  for (const FormatRow& row : all_formats()) {
    CAPTURE(std::string(row.name));
    const std::vector<uint8_t> blocks = sample_blocks(row, 1024, 11);
    const std::vector<float> whole = dequantize(row, blocks);
    const auto size = static_cast<size_t>(row.block_size), bytes = static_cast<size_t>(row.block_bytes);
    for (size_t i = 0; i < whole.size() / size; ++i) {
      std::vector<uint8_t> odd(bytes + 1);
      std::memcpy(odd.data() + 1, blocks.data() + i * bytes, bytes);
      std::vector<float> part(size);
      row.dequantize(part.data(), odd.data() + 1, row.block_size);
      REQUIRE(std::memcmp(part.data(), whole.data() + i * size, 4 * size) == 0);
    }
  }
}

TEST_CASE("format: quantising starts at any alignment") {
  for (const FormatRow& row : all_formats()) {
    if (row.quantize == nullptr) continue;
    CAPTURE(std::string(row.name));
    const std::vector<float> in = normal_values(512, 1.0f, 12);
    const std::vector<uint8_t> blocks = quantize(row, in);
    std::vector<uint8_t> odd(blocks.size() + 1);
    row.quantize(odd.data() + 1, in.data(), 512);
    CHECK(std::memcmp(odd.data() + 1, blocks.data(), blocks.size()) == 0);
  }
}

TEST_CASE("dtype: every half survives the way through float") {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = half_to_float(static_cast<uint16_t>(half));
    const bool nan = (half & 0x7fff) > 0x7c00;
    REQUIRE(std::isnan(value) == nan);
    REQUIRE(float_to_half(value) == (nan ? half | 0x200 : half));
  }
  CHECK(half_to_float(0x0001) == 0x1p-24f);
  CHECK(half_to_float(0x7bff) == 65504.0f);
  CHECK(half_to_float(0xfc00) == -kInf);
}

TEST_CASE("dtype: float to half rounds to nearest, ties to even") {
  for (uint16_t half = 0; half < 0x7bff; ++half) {
    const uint16_t next = static_cast<uint16_t>(half + 1);
    const float middle = (half_to_float(half) + half_to_float(next)) / 2;  // exact
    const uint16_t even = half % 2 == 0 ? half : next;
    REQUIRE(float_to_half(middle) == even);
    REQUIRE(float_to_half(-middle) == (even | 0x8000));
    REQUIRE(float_to_half(std::nextafter(middle, 0.0f)) == half);
    REQUIRE(float_to_half(std::nextafter(middle, kInf)) == next);
  }
  CHECK(float_to_half(65519.996f) == 0x7bff);
  CHECK(float_to_half(65520.0f) == 0x7c00);
  CHECK(float_to_half(kInf) == 0x7c00);
  CHECK(float_to_half(-3e38f) == 0xfc00);
  CHECK(float_to_half(1e-45f) == 0);
}

TEST_CASE("dtype: float to bfloat16 rounds to nearest, ties to even") {
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const auto even = static_cast<uint16_t>(bits + bits % 2);
    REQUIRE(float_to_bf16(bits_to_float(bits << 16)) == bits);
    REQUIRE(float_to_bf16(bits_to_float(bits << 16 | 0x7fff)) == bits);
    REQUIRE(float_to_bf16(bits_to_float(bits << 16 | 0x8000)) == even);
    REQUIRE(float_to_bf16(bits_to_float(bits << 16 | 0x8001)) == bits + 1);
  }
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::nanf("")))));
  CHECK(std::isnan(bf16_to_float(float_to_bf16(bits_to_float(0x7f800001)))));
  CHECK(float_to_bf16(-kInf) == 0xff80);
}
