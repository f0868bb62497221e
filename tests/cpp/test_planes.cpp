// Planes are read back by the words of quant/planes.h, one weight at a time, and must give the dequantised rows.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/dtype.h"
#include "quant/fmt_lowbit.h"
#include "quant/fmt_small.h"
#include "quant/planes.h"
#include "sample_blocks.h"

using namespace octavo;

namespace {

// A source whose last byte is the last before a page that cannot be read.
class GuardedBytes {
 public:
  explicit GuardedBytes(size_t size) : size_(size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t body = (size + page - 1) / page * page;
    mapped_ = body + page;
    map_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(map_ != MAP_FAILED);
    data_ = static_cast<uint8_t*>(map_) + body - size;
    REQUIRE(mprotect(static_cast<uint8_t*>(map_) + body, page, PROT_NONE) == 0);
  }
  GuardedBytes(const GuardedBytes&) = delete;
  ~GuardedBytes() { munmap(map_, mapped_); }

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* map_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t size_, mapped_ = 0;
};

template <class T>
T load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// One strip of planes.
struct Strip {
  const uint8_t* bytes;
  PlaneLayout layout;

  // The quant of row r, column k where `lines` lines hold 32 columns.
  uint8_t byte(int64_t lines, int64_t line, int64_t r, int64_t k) const {
    return bytes[layout.quants + (k / 32 * lines + line) * 64 + 4 * r + k % 4];
  }
  int nibble(int64_t r, int64_t k) const {
    const uint8_t pair = byte(4, k % 16 / 4, r, k);
    return k % 32 < 16 ? pair & 15 : pair >> 4;
  }
  int fifth(int64_t r, int64_t k) const {
    const auto word = load<uint64_t>(bytes + layout.bits + (k / 32 * 8 + k % 32 / 4) * 8);
    return static_cast<int>(word >> (4 * r + k % 4) & 1) << 4;
  }
  float half(int64_t plane, int64_t r, int64_t group) const {
    return half_to_float(load<uint16_t>(bytes + plane + (group * 16 + r) * 2));
  }

  // Byte 4 * r + k % 4 of a line.
  int line(int64_t index, int64_t r, int64_t k) const { return bytes[layout.quants + index * 64 + 4 * r + k % 4]; }
  int quant4(int64_t r, int64_t k) const {
    const int pair = line(k / 64 * 8 + k % 32 / 4, r, k);
    return k % 64 < 32 ? pair & 15 : pair >> 4;
  }
  int quant5(int64_t r, int64_t k) const {
    const int64_t first = k / 32 * 5, j = k % 32 / 4;
    const auto above = [&](int64_t i) { return line(first + i, r, k) >> 5; };
    if (j < 5) return line(first + j, r, k) & 31;
    if (j == 5) return above(0) | (above(1) & 3) << 3;
    if (j == 6) return above(2) | (above(3) & 3) << 3;
    return above(4) | (above(1) >> 2) << 3 | (above(3) >> 2) << 4;
  }
  int quant6(int64_t r, int64_t k) const {
    const int64_t first = k / 16 * 3, j = k % 16 / 4;
    const auto above = [&](int64_t i) { return line(first + i, r, k) >> 6; };
    return j < 3 ? line(first + j, r, k) & 63 : above(0) | above(1) << 2 | above(2) << 4;
  }
  int quant2(int64_t r, int64_t k) const {
    const int64_t dword = k % 32 / 4, j = dword % 4;
    return line(k / 32 * 2 + j / 2, r, k) >> (j % 2 * 4 + dword / 4 * 2) & 3;
  }
  int quant3(int64_t r, int64_t k) const {
    const int64_t first = k / 32 * 3, dword = k % 32 / 4;
    if (dword < 6) return line(first + dword / 2, r, k) >> (dword % 2 * 3) & 7;
    return line(first + dword - 6, r, k) >> 6 | (line(first + 2, r, k) >> dword & 1) << 2;
  }
  uint8_t sub(int64_t plane, int64_t r, int64_t group) const {
    return bytes[plane + group / 2 * 32 + 2 * r + group % 2];
  }

  float with_minimum(int q, int64_t r, int64_t k) const {
    const auto sc = static_cast<float>(sub(layout.sub_scales, r, k / 32));
    const auto mn = static_cast<float>(sub(layout.sub_minima, r, k / 32));
    return half(layout.d, r, k / 256) * sc * static_cast<float>(q) - half(layout.m, r, k / 256) * mn;
  }
  float without_minimum(int q, int64_t size, int64_t r, int64_t k) const {
    const auto sc = static_cast<float>(static_cast<int8_t>(sub(layout.sub_scales, r, k / size)));
    return half(layout.d, r, k / 256) * sc * static_cast<float>(q);
  }
  float with_nibbles(int q, int64_t r, int64_t k) const {
    const uint8_t both = sub(layout.sub_scales, r, k / 16);
    return half(layout.d, r, k / 256) * static_cast<float>(both & 15) * static_cast<float>(q) -
           half(layout.m, r, k / 256) * static_cast<float>(both >> 4);
  }

  float weight(Format format, int64_t r, int64_t k) const {
    const auto scaled = [&](int q) { return half(layout.d, r, k / 32) * static_cast<float>(q); };
    switch (format) {
      case Format::kF32: return load<float>(bytes + (k * 16 + r) * 4);
      case Format::kF16: return half_to_float(load<uint16_t>(bytes + (k * 16 + r) * 2));
      case Format::kBF16: return bf16_to_float(load<uint16_t>(bytes + (k / 2 * 32 + 2 * r + k % 2) * 2));
      case Format::kQ4_0: return scaled(nibble(r, k) - 8);
      case Format::kQ4_1: return scaled(nibble(r, k)) + half(layout.m, r, k / 32);
      case Format::kQ5_0: return scaled((nibble(r, k) | fifth(r, k)) - 16);
      case Format::kQ5_1: return scaled(nibble(r, k) | fifth(r, k)) + half(layout.m, r, k / 32);
      case Format::kQ8_0: return scaled(static_cast<int8_t>(byte(8, k % 32 / 4, r, k)));
      case Format::kQ4_K: return with_minimum(quant4(r, k), r, k);
      case Format::kQ5_K: return with_minimum(quant5(r, k), r, k);
      case Format::kQ6_K: return without_minimum(quant6(r, k) - 32, 16, r, k);
      case Format::kQ2_K: return with_nibbles(quant2(r, k), r, k);
      case Format::kQ3_K: return without_minimum(quant3(r, k) - 4, 16, r, k);
      case Format::kIQ4_XS: return without_minimum(kIQ4Values[nibble(r, k)], 32, r, k);
      case Format::kIQ4_NL: return scaled(kIQ4Values[nibble(r, k)]);
      case Format::kMXFP4:
        return bf16_to_float(load<uint16_t>(bytes + layout.d + (k / 32 * 16 + r) * 2)) *
               static_cast<float>(kE2M1Values[nibble(r, k)]);
      default: return in_block(format_row(format), r, k);
    }
  }
  // Of blocks as they are in a file.
  float in_block(const FormatRow& row, int64_t r, int64_t k) const {
    REQUIRE((row.to_integers != nullptr));
    float values[256];
    row.dequantize(values, bytes + (k / 256 * 16 + r) * row.block_bytes, 256);
    return values[k % 256];
  }
};

void fill_rows(const GuardedBytes& rows, const FormatRow& row, int64_t n_weights) {
  const auto blocks = sample_blocks(row, n_weights, static_cast<uint32_t>(n_weights));
  std::memcpy(rows.data(), blocks.data(), blocks.size());
}

std::vector<uint8_t> make_planes(const GuardedBytes& rows, Format format, int64_t n, int64_t k) {
  const size_t bytes = static_cast<size_t>(n_strips(n) * plane_layout(format, k).bytes);
  std::vector<uint8_t> planes(bytes, 0xAA);
  repack(planes.data(), rows.data(), format, n, k, 0, n_strips(n));
  return planes;
}

// Every bit of a K-quant's block may be set, but for one in the exponents of its halves: they stay finite.
void fill_blocks(const GuardedBytes& rows, const FormatRow& row) {
  std::mt19937 random(11);
  for (size_t i = 0; i < rows.size(); ++i) rows.data()[i] = static_cast<uint8_t>(random());
  const size_t block = static_cast<size_t>(row.block_bytes);
  for (size_t i = 0; i < rows.size(); i += block) {
    if (row.format == Format::kQ6_K)
      rows.data()[i + block - 1] &= 0xbf;
    else
      rows.data()[i + 1] &= 0xbf, rows.data()[i + 3] &= 0xbf;
  }
}

void check_planes(const FormatRow& row, int64_t n, int64_t k, bool any_bits = false) {
  CAPTURE(std::string(row.name));
  CAPTURE(n);
  CAPTURE(k);
  const GuardedBytes rows(static_cast<size_t>(n) * row_bytes(row.format, k));
  if (any_bits)
    fill_blocks(rows, row);
  else
    fill_rows(rows, row, n * k);
  std::vector<float> expected(static_cast<size_t>(n * k));
  row.dequantize(expected.data(), rows.data(), n * k);

  const PlaneLayout layout = plane_layout(row.format, k);
  const std::vector<uint8_t> planes = make_planes(rows, row.format, n, k);
  int64_t wrong = 0;
  for (int64_t r = 0; r < n_strips(n) * kStrip; ++r) {
    const Strip strip{planes.data() + r / kStrip * layout.bytes, layout};
    for (int64_t c = 0; c < k; ++c) {
      const float value = strip.weight(row.format, r % kStrip, c);
      const bool same =
          r < n ? float_to_bits(value) == float_to_bits(expected[static_cast<size_t>(r * k + c)]) : value == 0.0f;
      wrong += !same;
    }
  }
  CHECK(wrong == 0);
}

std::vector<int64_t> widths(const FormatRow& row) {
  if (row.block_size == 1) return {1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 65, 257};
  const int64_t block = row.block_size;
  return {block, 2 * block, 3 * block, 18 * block, 33 * block};
}

}  // namespace

TEST_CASE("planes: weights read back are the dequantised rows at every tail") {
  for (const FormatRow& row : all_formats()) {
    if (!has_planes(row.format)) continue;
    for (const int64_t n : {1, 7, 15, 16, 17, 33}) {
      for (const int64_t k : widths(row)) check_planes(row, n, k);
    }
  }
}

TEST_CASE("planes: every bit of a K-quant finds its place") {
  for (const Format format : {Format::kQ4_K, Format::kQ5_K, Format::kQ6_K})
    check_planes(format_row(format), 33, 1024, true);
}

TEST_CASE("planes: strips done apart give the same bytes, and only theirs are written") {
  for (const FormatRow& row : all_formats()) {
    if (!has_planes(row.format)) continue;
    CAPTURE(std::string(row.name));
    const int64_t n = 41, k = 3 * row.block_size, bytes = plane_layout(row.format, k).bytes;
    const GuardedBytes rows(static_cast<size_t>(n) * row_bytes(row.format, k));
    fill_rows(rows, row, n * k);
    const std::vector<uint8_t> whole = make_planes(rows, row.format, n, k);
    for (int64_t s = 0; s < n_strips(n); ++s) {
      std::vector<uint8_t> expected(whole.size(), 0x55), planes(whole.size(), 0x55);
      std::memcpy(expected.data() + s * bytes, whole.data() + s * bytes, static_cast<size_t>(bytes));
      repack(planes.data(), rows.data(), row.format, n, k, s, s + 1);
      CHECK(planes == expected);
    }
  }
}

TEST_CASE("planes: missing rows and padding are zero bytes") {
  for (const FormatRow& row : all_formats()) {
    if (!has_planes(row.format)) continue;
    CAPTURE(std::string(row.name));
    const Format f = row.format;  // zero bytes stand for other scales than zero, or for one that is not zero bytes
    if (f == Format::kQ3_K || f == Format::kIQ4_XS || f == Format::kMXFP4) continue;
    const int64_t k = 3 * row.block_size;
    const GuardedBytes one(row_bytes(row.format, k));
    std::memset(one.data(), 0, one.size());
    for (const uint8_t byte : make_planes(one, row.format, 1, k)) REQUIRE(byte == 0);
  }
}

namespace {

// Bytes that 256 weights of a row take more than in a file: packed scales become bytes, those of MXFP4 bfloat16.
int64_t widened(Format format) {
  switch (format) {
    case Format::kQ3_K:
    case Format::kQ4_K:
    case Format::kQ5_K: return 4;
    case Format::kIQ4_XS: return 2;
    case Format::kMXFP4: return 8;
    default: return 0;
  }
}

}  // namespace

TEST_CASE("planes: parts lie in order and a strip takes whole cache lines") {
  for (const FormatRow& row : all_formats()) {
    if (!has_planes(row.format)) continue;
    CAPTURE(std::string(row.name));
    for (const int64_t k : widths(row)) {
      const PlaneLayout layout = plane_layout(row.format, k);
      CHECK(layout.quants == 0);
      CHECK(layout.quants <= layout.bits);
      CHECK(layout.bits <= layout.sub_scales);
      CHECK(layout.sub_scales <= layout.sub_minima);
      CHECK(layout.sub_minima <= layout.d);
      CHECK(layout.d <= layout.m);
      CHECK(layout.bytes % 64 == 0);
      const auto source = static_cast<int64_t>(kStrip * row_bytes(row.format, k));
      CHECK(layout.bytes >= source);
      CHECK(layout.bytes <
            source + 64 + (row.format == Format::kBF16 ? 32 : 0) + kStrip * widened(row.format) * k / 256);
    }
  }
  CHECK(plane_layout(Format::kQ5_1, 64).bits == 2 * 4 * 64);
  CHECK(plane_layout(Format::kQ5_1, 64).d == 2 * 4 * 64 + 2 * 64);
  CHECK(plane_layout(Format::kQ5_1, 64).m == 2 * 4 * 64 + 2 * 64 + 2 * 32);
  CHECK(plane_layout(Format::kQ5_K, 512).sub_scales == 2 * 40 * 64);
  CHECK(plane_layout(Format::kQ5_K, 512).sub_minima == 2 * 40 * 64 + 2 * 128);
  CHECK(plane_layout(Format::kQ5_K, 512).m == 2 * 40 * 64 + 4 * 128 + 2 * 32);
  CHECK(plane_layout(Format::kQ6_K, 512).d == 2 * 48 * 64 + 2 * 256);
}

TEST_CASE("planes: what cannot be laid out is refused") {
  CHECK_THROWS_AS(plane_layout(Format::kQ4_K, 128), Error);
  CHECK_THROWS_AS(plane_layout(Format::kQ8_0, 33), Error);
  CHECK_THROWS_AS(plane_layout(Format::kF32, 0), Error);
  uint8_t byte = 0;
  CHECK_THROWS_AS(repack(&byte, &byte, Format::kF32, 16, 1, 0, 2), Error);
}
