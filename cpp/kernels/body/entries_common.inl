// What reading the blocks of codebook formats takes.

#pragma once

#include "kernels/simd.h"
#include "quant/fmt_codebook.h"

namespace octavo {
namespace {

constexpr int kGroups = kLanes / 2;  // of eight weights in a vector of bytes

template <class T>
inline T load_as(const void* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(value));
  return value;
}

}  // namespace
}  // namespace octavo
