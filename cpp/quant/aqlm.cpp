#include "quant/aqlm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "quant/aqlm_slabs.h"
#include "quant/planes.h"

namespace octavo {
namespace {

template <class Code>
void decode_row(float* out, const AqlmMatrix& matrix, const uint8_t* codes) {
  const int64_t book = int64_t{matrix.group} << matrix.bits;
  const auto mask = static_cast<Code>((1u << matrix.bits) - 1);
  for (int64_t i = 0; i < matrix.k / matrix.group; ++i, out += matrix.group) {
    std::fill_n(out, matrix.group, 0.0f);
    for (int c = 0; c < matrix.n_codebooks; ++c, codes += sizeof(Code)) {
      Code code;
      std::memcpy(&code, codes, sizeof(Code));
      const float* vector = matrix.codebooks + c * book + int64_t{static_cast<Code>(code & mask)} * matrix.group;
      for (int j = 0; j < matrix.group; ++j) out[j] += vector[j];
    }
  }
}

// Its length; NaN where a number is.
float longest_vector(const AqlmMatrix& matrix) {
  float longest = 0;
  for (const float* v = matrix.codebooks; v < matrix.codebooks + matrix.n_values; v += matrix.group) {
    const float squares = std::inner_product(v, v + matrix.group, v, 0.0f);
    if (!(squares <= longest) && !std::isnan(longest)) longest = squares;
  }
  return std::sqrt(longest);
}

}  // namespace

void check_aqlm(const AqlmMatrix& matrix) {
  OCTAVO_CHECK(matrix.group == 8 || matrix.group == 16 || matrix.group == 32, "AQLM tensor ", matrix.name,
               " has groups of ", matrix.group, " weights, expected 8, 16 or 32.");
  OCTAVO_CHECK(matrix.bits >= 1 && matrix.bits <= kAqlmMaxBits, "AQLM tensor ", matrix.name, " has codes of ",
               matrix.bits, " bits, expected 1 to ", kAqlmMaxBits, ".");
  OCTAVO_CHECK(matrix.n_codebooks >= 1 && matrix.n_codebooks <= 64, "AQLM tensor ", matrix.name, " has ",
               matrix.n_codebooks, " codebooks, expected 1 to 64.");
  OCTAVO_CHECK(matrix.n > 0 && matrix.k > 0 && matrix.k % matrix.group == 0, "AQLM tensor ", matrix.name,
               " has shape (", matrix.n, ", ", matrix.k, "); both sizes must be positive and the second a multiple of ",
               matrix.group, ".");
  const auto codes = static_cast<size_t>(matrix.n) * static_cast<size_t>(matrix.row_code_bytes());
  OCTAVO_CHECK(matrix.code_bytes == codes, "AQLM tensor ", matrix.name, " holds ", matrix.code_bytes,
               " bytes of codes, expected ", codes, ".");
  OCTAVO_CHECK(matrix.n_values == matrix.codebook_values(), "AQLM tensor ", matrix.name, " holds ", matrix.n_values,
               " values in its codebooks, expected ", matrix.codebook_values(), ".");
  OCTAVO_CHECK(matrix.n_scales == static_cast<size_t>(matrix.n), "AQLM tensor ", matrix.name, " holds ",
               matrix.n_scales, " scales, expected ", matrix.n, ".");
}

bool multiplied_by_table(const AqlmMatrix& matrix) {
  return matrix.bits == 8 && matrix.n_codebooks <= kAqlmTerms && matrix.n >= kAqlmRows;
}

int64_t aqlm_slabs(const AqlmMatrix& matrix) {
  const int64_t groups = matrix.k / matrix.group, in_slab = kAqlmTerms / matrix.n_codebooks;
  return (groups + in_slab - 1) / in_slab;
}

void pack_aqlm_slabs(uint8_t* slabs, const AqlmMatrix& matrix, int64_t begin, int64_t end) {
  const int64_t slab_bytes = aqlm_slab_bytes(matrix.n), codes = matrix.row_code_bytes();
  const int64_t in_slab = kAqlmTerms / matrix.n_codebooks * matrix.n_codebooks;
  for (int64_t row = begin; row < std::min(end, matrix.n); ++row) {
    const uint8_t* from = matrix.codes + row * codes;
    uint8_t* to = slabs + row / kAqlmRows * kAqlmRows * kAqlmTerms + aqlm_slot(static_cast<int>(row % kAqlmRows));
    for (int64_t first = 0; first < codes; first += in_slab, to += slab_bytes)
      for (int64_t t = 0; t < std::min(in_slab, codes - first); ++t) to[t * kAqlmRows] = from[first + t];
  }
}

void pack_aqlm_strips(uint8_t* strips, const AqlmMatrix& matrix, int64_t begin, int64_t end) {
  const int64_t unit = matrix.group_code_bytes(), row_bytes = matrix.row_code_bytes();
  for (int64_t row = begin * kStrip; row < end * kStrip; ++row) {
    const uint8_t* from = matrix.codes + std::min(row, matrix.n - 1) * row_bytes;
    uint8_t* to = strips + row / kStrip * kStrip * row_bytes + row % kStrip * unit;
    for (int64_t i = 0; i < row_bytes; i += unit, to += kStrip * unit) std::copy_n(from + i, unit, to);
  }
}

float round_codebooks(int16_t* out, const AqlmMatrix& matrix) {
  const float step = longest_vector(matrix) / kAqlmNorm;
  if (!std::isfinite(step) || step < 1e-30f) {
    std::fill_n(out, matrix.n_values, int16_t{0});
    return step;
  }
  for (int64_t first = 0; first < int64_t{matrix.n_codebooks} << 8; first += kAqlmBookBlock)
    for (int j = 0; j < matrix.group; j += 2)
      for (int64_t v = first; v < first + kAqlmBookBlock; ++v)
        for (int pair = 0; pair < 2; ++pair)
          *out++ = static_cast<int16_t>(std::nearbyint(matrix.codebooks[v * matrix.group + j + pair] / step));
  return step;
}

void decode_aqlm_row(float* out, const AqlmMatrix& matrix, int64_t row) {
  const uint8_t* codes = matrix.codes + row * matrix.row_code_bytes();
  if (matrix.bytes_per_code() == 1)
    decode_row<uint8_t>(out, matrix, codes);
  else
    decode_row<uint16_t>(out, matrix, codes);
}

}  // namespace octavo
