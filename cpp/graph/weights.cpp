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

// Converts rows [first, first + count) of the source to `target` rows.
void convert_rows(std::vector<uint8_t>& out, const SourceMatrix& source, Format target, int64_t first, int64_t count) {
  const size_t from = row_bytes(source.format, source.k), to = row_bytes(target, source.k);
  std::vector<float> floats(static_cast<size_t>(source.k));
  out.resize(to * static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    format_row(source.format).dequantize(floats.data(), source.rows + from * static_cast<size_t>(first + i), source.k);
    format_row(target).quantize(out.data() + to * static_cast<size_t>(i), floats.data(), source.k);
  }
}

void repack_strips(const Weight& weight, uint8_t* planes, const SourceMatrix& source, int64_t begin, int64_t end) {
  if (source.format == weight.format) return repack(planes, source.rows, weight.format, weight.n, weight.k, begin, end);
  const int64_t first = begin * kStrip, count = std::min(end * kStrip, source.n) - first;
  std::vector<uint8_t> rows;
  convert_rows(rows, source, weight.format, first, count);
  const int64_t stride = plane_layout(weight.format, weight.k).bytes;
  repack(planes + begin * stride, rows.data(), weight.format, count, weight.k, 0, end - begin);
}

void copy_native(uint8_t* out, const Weight& weight, const SourceMatrix& source) {
  if (source.format == weight.format) {
    std::memcpy(out, source.rows, source.bytes);
    return;
  }
  std::vector<uint8_t> rows;
  convert_rows(rows, source, weight.format, 0, weight.n);
  std::memcpy(out, rows.data(), rows.size());
}

}  // namespace

WeightId WeightStore::store(Weight weight) {
  weights_.push_back(std::move(weight));
  return static_cast<WeightId>(weights_.size() - 1);
}

WeightId WeightStore::add_linear(const SourceMatrix& source, Format target, bool mapped) {
  check_source(source);
  OCTAVO_CHECK(source.k % format_row(target).block_size == 0, "Tensor ", source.name, " has rows of ", source.k,
               " weights, which cannot be stored as ", format_row(target).name, ".");
  Weight weight;
  weight.name = source.name;
  weight.kind = Weight::Kind::kLinear;
  weight.format = target;
  weight.n = source.n;
  weight.k = source.k;
  weight.planes = has_planes(target);
  if (weight.planes) {
    const int64_t strips = n_strips(source.n), stride = plane_layout(target, source.k).bytes;
    uint8_t* planes = memory_.take(static_cast<size_t>(strips * stride));
    Counter counter;
    run_job_unless_busy(n_threads_, [&](const Worker&) {
      for (int64_t s; (s = counter.take() * kStripsPerChunk) < strips;)
        repack_strips(weight, planes, source, s, std::min(s + kStripsPerChunk, strips));
    });
    weight.data = planes;
  } else {
    uint8_t* rows = memory_.take(row_bytes(target, source.k) * static_cast<size_t>(source.n));
    copy_native(rows, weight, source);
    weight.data = rows;
  }
  if (mapped) drop_file_pages(source.rows, source.bytes);
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
  uint8_t* floats = memory_.take(static_cast<size_t>(n) * sizeof(float));
  format_row(source.format).dequantize(reinterpret_cast<float*>(floats), source.rows, n);
  weight.data = floats;
  return store(std::move(weight));
}

}  // namespace octavo
