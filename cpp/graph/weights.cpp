#include "graph/weights.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/thread_pool.h"
#include "graph/screen.h"
#include "quant/aqlm_slabs.h"
#include "quant/fmt_float.h"
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

Weight linear(std::string name, Format target, int64_t n, int64_t k) {
  return {.name = std::move(name),
          .kind = Weight::Kind::kLinear,
          .format = target,
          .n = n,
          .k = k,
          .planes = has_planes(target)};
}

Weight linear_of(const SourceMatrix& source, Format target) {
  check_source(source);
  OCTAVO_CHECK(source.k % format_row(target).block_size == 0, "Tensor ", source.name, " has rows of ", source.k,
               " weights, which cannot be stored as ", format_row(target).name, ".");
  OCTAVO_CHECK(source.format == target || format_row(target).quantize != nullptr, "Tensor ", source.name, " is ",
               format_row(source.format).name, " and cannot become ", format_row(target).name, ", which is only read.");
  return linear(source.name, target, source.n, source.k);
}

Weight linear_of(const AqlmMatrix& matrix, Format target) {
  check_aqlm(matrix);
  OCTAVO_CHECK(target == Format::kF32 || target == Format::kBF16, "AQLM tensor ", matrix.name,
               " cannot be computed as ", format_row(target).name, ", only as F32 or BF16.");
  Weight weight = linear(matrix.name, target, matrix.n, matrix.k);
  weight.by_table = target == Format::kBF16 && multiplied_by_table(matrix);
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

int64_t decoding_scratch(const Weight& weight) {
  return weight.k * 4 + kStrip * static_cast<int64_t>(row_bytes(weight.format, weight.k));
}

void decode_strips(uint8_t* planes, uint8_t* scratch, const Weight& weight, const AqlmMatrix& matrix, int64_t begin,
                   int64_t end) {
  const int64_t stride = plane_layout(weight.format, weight.k).bytes;
  const auto bytes = static_cast<int64_t>(row_bytes(weight.format, weight.k));
  auto* floats = reinterpret_cast<float*>(scratch);
  uint8_t* rows = scratch + weight.k * 4;
  for (int64_t s = begin; s < end; ++s) {
    const int64_t count = std::min<int64_t>(kStrip, weight.n - s * kStrip);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = s * kStrip + r;
      decode_aqlm_row(floats, matrix, row);
      if (weight.format == Format::kF32)
        for (int64_t i = 0; i < weight.k; ++i) floats[i] *= matrix.scales[row];
      format_row(weight.format).quantize(rows + r * bytes, floats, weight.k);
    }
    repack(planes + (s - begin) * stride, rows, weight.format, count, weight.k, 0, 1);
  }
}

WeightId WeightStore::store(Weight weight) {
  weights_.push_back(std::move(weight));
  return static_cast<WeightId>(weights_.size() - 1);
}

template <class F>
void WeightStore::for_strips(const Weight& weight, size_t scratch_bytes, F f) const {
  const int64_t strips = n_strips(weight.n);
  std::vector<Counter> counters(static_cast<size_t>(crew_.n_threads));
  run_job_unless_busy(crew_, [&](const Worker& worker) {
    std::vector<uint8_t> scratch(scratch_bytes);
    ChunkFeed feed(counters.data(), worker, static_cast<int>((strips + kStripsPerChunk - 1) / kStripsPerChunk));
    for (int64_t s; (s = feed.take() * kStripsPerChunk) >= 0;)
      f(s, std::min(s + kStripsPerChunk, strips), scratch.data());
  });
}

WeightId WeightStore::add_linear(const SourceMatrix& source, Format target, bool mapped) {
  Weight weight = linear_of(source, target);
  if (weight.planes) {
    const int64_t strips = n_strips(source.n), stride = plane_layout(target, source.k).bytes;
    uint8_t* planes = memory_.take(static_cast<size_t>(strips * stride));
    const auto scratch_bytes = static_cast<size_t>(packing_scratch(weight, source.format));
    for_strips(weight, scratch_bytes, [&](int64_t begin, int64_t end, uint8_t* scratch) {
      pack_strips(planes + begin * stride, scratch, weight, source.rows, source.format, begin, end);
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

WeightId WeightStore::add_head(const SourceMatrix& source, Format target, bool mapped) {
  const WeightId id = add_linear(source, target, /*mapped=*/false);
  Weight& weight = weights_[static_cast<size_t>(id)];
  if (can_screen(weight)) weight.screen = make_screen(weight, source);
  if (mapped) drop_file_pages(source.rows, source.bytes);
  return id;
}

Screen WeightStore::make_screen(const Weight& weight, const SourceMatrix& source) {
  const auto n_floats = static_cast<size_t>(n_strips(weight.n) * kStrip);
  const auto take_floats = [&] { return reinterpret_cast<float*>(memory_.take(n_floats * sizeof(float))); };
  float *norms = take_floats(), *errors = nullptr;
  uint8_t* planes = nullptr;
  const Weight* screened = &weight;
  if (screens_by_copy(weight)) {
    errors = take_floats();
    Weight copy = linear(weight.name, kScreenFormat, weight.n, weight.k);
    planes = memory_.take(static_cast<size_t>(n_strips(weight.n) * plane_layout(kScreenFormat, weight.k).bytes));
    copy.data = planes;
    screened = &weights_[static_cast<size_t>(store(std::move(copy)))];
  }
  for_strips(weight, static_cast<size_t>(measuring_scratch(weight)), [&](int64_t begin, int64_t end, uint8_t* scratch) {
    measure_strips(weight, source, planes, norms, errors, scratch, begin, end);
  });
  return {screened, norms, errors};
}

WeightId WeightStore::leave_linear(const SourceMatrix& source, Format target) {
  Weight weight = linear_of(source, target);
  if (!weight.planes && source.format != target) return add_linear(source, target, true);
  if (weight.planes) weight.in_file = source.format;
  weight.data = source.rows;
  return store(std::move(weight));
}

AqlmMatrix& WeightStore::keep_scales(Weight& weight, const AqlmMatrix& matrix, float factor) {
  AqlmMatrix& kept = aqlm_.emplace_back(matrix);
  auto* scales = reinterpret_cast<float*>(memory_.take(matrix.n_scales * sizeof(float)));
  std::transform(matrix.scales, matrix.scales + matrix.n_scales, scales, [&](float scale) { return scale * factor; });
  kept.scales = scales;
  weight.aqlm = &kept;
  return kept;
}

// A codebook of its own becomes bfloat16; those that are summed stay floats.
AqlmMatrix& WeightStore::keep_codebooks(Weight& weight, const AqlmMatrix& matrix) {
  AqlmMatrix& kept = keep_scales(weight, matrix, 1);
  if (matrix.n_codebooks == 1 && weight.format == Format::kBF16) {
    uint8_t* vectors = memory_.take(matrix.n_values * 2);
    quantize_bf16(vectors, matrix.codebooks, static_cast<int64_t>(matrix.n_values));
    weight.data = vectors;
    kept.codebooks = nullptr;
  } else {
    auto* codebooks = reinterpret_cast<float*>(memory_.take(matrix.n_values * sizeof(float)));
    std::copy_n(matrix.codebooks, matrix.n_values, codebooks);
    kept.codebooks = codebooks;
  }
  return kept;
}

WeightId WeightStore::add_aqlm(const AqlmMatrix& matrix, Format target, bool mapped) {
  Weight weight = linear_of(matrix, target);
  if (target == Format::kF32) {
    const int64_t stride = plane_layout(target, weight.k).bytes;
    uint8_t* planes = memory_.take(static_cast<size_t>(n_strips(weight.n) * stride));
    const auto scratch_bytes = static_cast<size_t>(decoding_scratch(weight));
    for_strips(weight, scratch_bytes, [&](int64_t begin, int64_t end, uint8_t* scratch) {
      decode_strips(planes + begin * stride, scratch, weight, matrix, begin, end);
    });
    weight.data = planes;
  } else {
    if (weight.by_table)
      keep_for_tables(weight, matrix);
    else
      keep_codes(weight, matrix);
  }
  if (mapped) drop_file_pages(matrix.codes, matrix.code_bytes);
  return store(std::move(weight));
}

void WeightStore::keep_codes(Weight& weight, const AqlmMatrix& matrix) {
  AqlmMatrix& kept = keep_codebooks(weight, matrix);
  uint8_t* strips = memory_.take(static_cast<size_t>(n_strips(matrix.n) * kStrip * matrix.row_code_bytes()));
  for_strips(weight, 0, [&](int64_t begin, int64_t end, uint8_t*) { pack_aqlm_strips(strips, matrix, begin, end); });
  kept.codes = strips;
  weight.by_strips = true;
}

void WeightStore::keep_for_tables(Weight& weight, const AqlmMatrix& matrix) {
  uint8_t* books = memory_.take(matrix.n_values * sizeof(int16_t));
  AqlmMatrix& kept = keep_scales(weight, matrix, round_codebooks(reinterpret_cast<int16_t*>(books), matrix));
  weight.data = books;
  kept.codebooks = nullptr;
  uint8_t* slabs = memory_.take(static_cast<size_t>(aqlm_slabs(matrix) * aqlm_slab_bytes(matrix.n)));
  for_strips(weight, 0, [&](int64_t begin, int64_t end, uint8_t*) {
    pack_aqlm_slabs(slabs, matrix, begin * kStrip, end * kStrip);
  });
  kept.codes = slabs;
}

WeightId WeightStore::leave_aqlm(const AqlmMatrix& matrix, Format target) {
  Weight weight = linear_of(matrix, target);
  if (weight.by_table) return add_aqlm(matrix, target, true);
  keep_codebooks(weight, matrix);
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
