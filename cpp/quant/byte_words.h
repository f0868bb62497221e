// Eight weights as the bytes of a word, so that a group takes a few operations; no byte may carry into the next.
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/int_block.h"

namespace octavo {

inline constexpr uint64_t kOnes = 0x0101010101010101;

inline uint64_t load_eight(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

// Group i of eight weights.
inline void put_eight(IntBlock& out, int i, uint64_t word) { std::memcpy(out.u + 8 * i, &word, sizeof(word)); }

}  // namespace octavo
