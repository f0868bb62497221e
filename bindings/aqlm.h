// AQLM matrices as Python gives them: a tuple of sizes and three buffers.
#pragma once

#include <string>
#include <tuple>

#include "array.h"
#include "quant/aqlm.h"

namespace octavo {

using Floats = py::array_t<float, py::array::c_style>;
using AqlmShape = std::tuple<int64_t, int64_t, int, int, int>;  // n, k, group, codebooks, bits of a code

inline AqlmMatrix aqlm_of(const std::string& name, const AqlmShape& shape, const py::buffer& codes,
                          const Floats& codebooks, const Floats& scales) {
  const auto [n, k, group, n_codebooks, bits] = shape;
  const auto bytes = bytes_of(codes);
  return {.name = name,
          .n = n,
          .k = k,
          .group = group,
          .n_codebooks = n_codebooks,
          .bits = bits,
          .codes = bytes.data(),
          .code_bytes = bytes.size(),
          .codebooks = codebooks.data(),
          .n_values = static_cast<size_t>(codebooks.size()),
          .scales = scales.data(),
          .n_scales = static_cast<size_t>(scales.size())};
}

}  // namespace octavo
