#include "graph/weights.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/thread_pool.h"
#include "quant/planes.h"

namespace octavo {
namespace {

constexpr int64_t kStripsPerChunk = 8;

void check_source(const SourceMatrix& source) {
  const FormatRow& row = format_row(source.format);
  OCTAVO_CHECK(source.n > 0 && source.k > 0, "Tensor ", source.name, " has shape (", source.n, ", ", source.k,
               "); both sizes must be positive.");
  OCTAVO_CHECK(source.k % row.block_size == 0, "Tensor ", source.name, " has rows of ", source.k,
               " weights, which is no whole number of ", row.name, " blocks of ", row.block_size, ".");
  const size_t expected = row_bytes(source.format, source.k) * static_cast<size_t>(source.n);
  OCTAVO_CHECK(source.bytes == expected, "Tensor ", source.name, " holds ", source.bytes, " bytes, expected ", expected,
               " for ", row.name, " of shape (", source.n, ", ", source.k, ").");
}

// Converts `count` rows of k weights; floats: a row of scratch.
void convert_rows(uint8_t* out, const uint8_t* rows, int64_t k, Format source, Format target, int64_t count,
                  float* floats) {
  const size_t from = row_bytes(source, k), to = row_bytes(target, k);
  for (int64_t i = 0; i < count; ++i) {
    format_row(source).dequantize(floats, rows + from * static_cast<size_t>(i), k);
    format_row(target).quantize(out + to * static_cast<size_t>(i), floats, k);
  }
}

void copy_native(uint8_t* out, const Weight& weight, const SourceMatrix& source) {
  if (source.format == weight.format) {
    std::memcpy(out, source.rows, source.bytes);
    return;
  }
  std::vector<float> floats(static_cast<size_t>(weight.k));
  convert_rows(out, source.rows, weight.k, source.format, weight.format, weight.n, floats.data());
}

Weight linear_of(const SourceMatrix& source, Format target) {
  check_source(source);
  OCTAVO_CHECK(source.k % format_row(target).block_size == 0, "Tensor ", source.name, " has rows of ", source.k,
               " weights, which cannot be stored as ", format_row(target).name, ".");
  OCTAVO_CHECK(source.format == target || format_row(target).quantize != nullptr, "Tensor ", source.name, " is ",
               format_row(source.format).name, " and cannot become ", format_row(target).name, ", which is only read.");
  Weight weight;
  weight.name = source.name;
  weight.kind = Weight::Kind::kLinear;
  weight.format = target;
  weight.n = source.n;
  weight.k = source.k;
  weight.planes = has_planes(target);
  return weight;
}

}  // namespace

int64_t packing_scratch(const Weight& weight, Format source) {
  if (source == weight.format) return 0;
  return weight.k * 4 + kStrip * static_cast<int64_t>(row_bytes(weight.format, weight.k));
}

void pack_strips(uint8_t* planes, uint8_t* scratch, const Weight& weight, const uint8_t* rows, Format source,
                 int64_t begin, int64_t end) {
  const auto bytes = static_cast<int64_t>(row_bytes(source, weight.k));
  const int64_t first = begin * kStrip, left = weight.n - first;
  if (source == weight.format) return repack(planes, rows + first * bytes, source, left, weight.k, 0, end - begin);
  const int64_t stride = plane_layout(weight.format, weight.k).bytes;
  auto* floats = reinterpret_cast<float*>(scratch);
  uint8_t* converted = scratch + weight.k * 4;
  for (int64_t s = 0; s < end - begin; ++s) {
    const int64_t count = std::min<int64_t>(kStrip, left - s * kStrip);
    convert_rows(converted, rows + (first + s * kStrip) * bytes, weight.k, source, weight.format, count, floats);
    repack(planes + s * stride, converted, weight.format, count, weight.k, 0, 1);
  }
}

WeightId WeightStore::store(Weight weight) {
  weights_.push_back(std::move(weight));
  return static_cast<WeightId>(weights_.size() - 1);
}

void WeightStore::pack(uint8_t* planes, const Weight& weight, const SourceMatrix& source) const {
  const int64_t strips = n_strips(weight.n), stride = plane_layout(weight.format, weight.k).bytes;
  std::vector<Counter> counters(static_cast<size_t>(crew_.n_threads));
  run_job_unless_busy(crew_, [&](const Worker& worker) {
    std::vector<uint8_t> scratch(static_cast<size_t>(packing_scratch(weight, source.format)));
    ChunkFeed feed(counters.data(), worker, static_cast<int>((strips + kStripsPerChunk - 1) / kStripsPerChunk));
    for (int64_t s; (s = feed.take() * kStripsPerChunk) >= 0;)
      pack_strips(planes + s * stride, scratch.data(), weight, source.rows, source.format, s,
                  std::min(s + kStripsPerChunk, strips));
  });
}

WeightId WeightStore::add_linear(const SourceMatrix& source, Format target, bool mapped) {
  Weight weight = linear_of(source, target);
  if (weight.planes) {
    const int64_t strips = n_strips(source.n), stride = plane_layout(target, source.k).bytes;
    uint8_t* planes = memory_.take(static_cast<size_t>(strips * stride));
    pack(planes, weight, source);
    weight.data = planes;
  } else {
    uint8_t* rows = memory_.take(row_bytes(target, source.k) * static_cast<size_t>(source.n));
    copy_native(rows, weight, source);
    weight.data = rows;
  }
  if (mapped) drop_file_pages(source.rows, source.bytes);
  return store(std::move(weight));
}

WeightId WeightStore::leave_linear(const SourceMatrix& source, Format target) {
  Weight weight = linear_of(source, target);
  if (!weight.planes && source.format != target) return add_linear(source, target, true);
  if (weight.planes) weight.in_file = source.format;
  weight.data = source.rows;
  return store(std::move(weight));
}

WeightId WeightStore::add_embedding(const SourceMatrix& source) {
  check_source(source);
  return store({.name = source.name,
                .kind = Weight::Kind::kEmbedding,
                .format = source.format,
                .n = source.n,
                .k = source.k,
                .planes = false,
                .data = source.rows});
}

WeightId WeightStore::add_vector(const SourceMatrix& source) {
  check_source(source);
  const int64_t n = source.n * source.k;
  Weight weight;
  weight.name = source.name;
  weight.kind = Weight::Kind::kVector;
  weight.format = Format::kF32;
  weight.n = 1;
  weight.k = n;
  // Kernels read a bias by whole strips; memory that is taken is zero.
  uint8_t* floats = memory_.take(static_cast<size_t>(n_strips(n) * kStrip) * sizeof(float));
  format_row(source.format).dequantize(reinterpret_cast<float*>(floats), source.rows, n);
  weight.data = floats;
  return store(std::move(weight));
}

}  // namespace octavo
