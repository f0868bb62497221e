// The tables of aqlm_table.inl without VBMI: words, looked up one by one.
#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/aqlm_slabs.h"

namespace octavo {
namespace {

struct Table {
  int32_t words[kEntries];

  // The upper halves of 64 sums.
  void put(int block, const Vi (&sums)[kEntryVecs]) {
    for (int v = 0; v < kEntryVecs; ++v)
      storei(words + block * kEntryBlock + v * kLanes, shift_right_signed<16>(sums[v]));
  }
};

inline int32_t sum_of(const Table (&tables)[kAqlmTerms], const uint8_t* codes) {
  int32_t sum = 0;
  for (int t = 0; t < kAqlmTerms; ++t) sum += tables[t].words[codes[t * kAqlmRows]];
  return sum;
}

// Adds the sums of a block of kAqlmRows, or of the rows that are left of it.
template <bool kFetch>
void add_block(const Table (&tables)[kAqlmTerms], float* out, const uint8_t* codes, const uint8_t*, int n_rows,
               float unit) {
  for (int strip = 0; strip < kAqlmRows && strip < n_rows; strip += 16, out += 16) {
    int32_t sums[16];
    for (int r = 0; r < 16; ++r) sums[r] = sum_of(tables, codes + aqlm_slot(strip + r));
    for (int i = 0; i < 16; i += kLanes) store(out + i, fma(to_float(loadi(sums + i)), set1(unit), load(out + i)));
  }
}

}  // namespace
}  // namespace octavo
