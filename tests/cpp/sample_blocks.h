// Blocks of any format for tests: quantised normal values, or random bits where octavo does not write the format.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "quant/format.h"

namespace octavo {

inline std::vector<uint8_t> sample_blocks(const FormatRow& row, int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> blocks(row_bytes(row.format, n));
  if (row.quantize != nullptr) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = normal(random);
    row.quantize(blocks.data(), values.data(), n);
    return blocks;
  }
  std::vector<float> values(static_cast<size_t>(row.block_size));
  for (auto block = blocks.begin(); block != blocks.end(); block += row.block_bytes) {
    const auto moderate = [](float x) { return std::fabs(x) < 1e3f && (x == 0 || std::fabs(x) > 1e-6f); };
    do {  // until the scales are moderate numbers
      std::generate_n(block, row.block_bytes, [&] { return static_cast<uint8_t>(random()); });
      row.dequantize(values.data(), &*block, row.block_size);
    } while (!std::all_of(values.begin(), values.end(), moderate));
  }
  return blocks;
}

}  // namespace octavo
