// The tables of aqlm_table.inl in any ISA: products are sums of floats, and a lane is a vector of the codebook.
#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/aqlm_slabs.h"

namespace octavo {
namespace {

// products[j] (+)= x[8] times eight components of vector j; returns the largest.
inline Vf add_products(float* products, const float* components, const float* x, bool first) {
  Vf value[8], largest = zero();
  OCTAVO_UNROLL
  for (int u = 0; u < 8; ++u) value[u] = set1(x[u]);
  for (int j = 0; j < kEntries; j += kLanes) {
    Vf sum = first ? zero() : load(products + j);
    OCTAVO_UNROLL
    for (int u = 0; u < 8; ++u) sum = fma(load(components + u * kEntries + j), value[u], sum);
    store(products + j, sum);
    largest = max(largest, abs(sum));
  }
  return largest;
}

// A slab's tables, made from one token's activations.
class SlabTables {
 public:
  explicit SlabTables(const AqlmTask& task) : task_(task) {}

  void make(const float* x, int n_groups, const uint8_t*) {
    const auto limit = static_cast<float>(32767 / kAqlmTerms);
    const int n_terms = n_groups * task_.n_codebooks;
    const float largest = multiply(x, n_groups);
    const Vf inverse = set1(largest > 1e-30f ? limit / largest : 0.0f);
    unit_ = largest / limit;
    for (int t = 0; t < n_terms; ++t)
      for (int j = 0; j < kEntries; j += kLanes)
        storei(tables_[t] + j, round_to_int(mul(load(products_[t] + j), inverse)));
    __builtin_memset(tables_ + n_terms, 0, static_cast<size_t>(kAqlmTerms - n_terms) * sizeof(tables_[0]));
  }

  // The sums of all rows times the unit to `out`, added unless they are the first.
  void add(float* out, const uint8_t* codes, int n_rows, bool first, bool) const {
    for (int strip = 0; strip < n_rows; strip += 16, out += 16) {
      int32_t sums[16];
      for (int r = 0; r < 16; ++r) sums[r] = sum_of(codes, strip + r);
      for (int i = 0; i < 16; i += kLanes)
        store(out + i, fma(to_float(loadi(sums + i)), set1(unit_), first ? zero() : load(out + i)));
    }
  }

 private:
  int32_t sum_of(const uint8_t* codes, int row) const {
    const uint8_t* at = codes + row / kAqlmRows * kAqlmRows * kAqlmTerms + aqlm_slot(row % kAqlmRows);
    int32_t sum = 0;
    for (int t = 0; t < kAqlmTerms; ++t, at += kAqlmRows) sum += tables_[t][*at];
    return sum;
  }

  // All products of the slab; returns the largest.
  float multiply(const float* x, int n_groups) {
    Vf largest = zero();
    for (int c = 0; c < task_.n_codebooks; ++c)
      for (int i = 0; i < task_.group; i += 8)
        for (int g = 0; g < n_groups; ++g) {
          const Vf top = add_products(products_[g * task_.n_codebooks + c],
                                      task_.codebooks + (int64_t{c} * task_.group + i) * kEntries,
                                      x + g * task_.group + i, i == 0);
          if (i + 8 == task_.group) largest = max(largest, top);
        }
    return reduce_max(largest);
  }

  const AqlmTask& task_;
  float products_[kAqlmTerms][kEntries];
  int32_t tables_[kAqlmTerms][kEntries];
  float unit_ = 0;
};

}  // namespace
}  // namespace octavo
