// AQLM linears with codes of 8 bits, by look-up tables: the products of a group of activations with all vectors of a
// codebook, as int16. A slab is as many groups as kAqlmTerms codes stand for. Inside it sums are exact:
//   sum = sum over terms t of table[t][code[t]],  table = round_half_even(product * (limit / amax))
// where amax is the largest product of the slab and limit = 32767 / terms; slabs follow each other in one float chain:
//   acc = fma(float(sum), amax / limit, acc).
// So the error of an output is below sum over slabs of terms / 2 * amax / limit, before the scale of its row. With VNNI
// the products are of rounded numbers, which adds to each term less than
//   0.5 * group * xmax * bmax * (1 / 32767 + group / 65535)
// where xmax is the slab's largest activation and bmax the codebooks' largest number.

#pragma once

#include "kernels/kernels.h"

namespace octavo {
namespace {

constexpr int kEntries = 256;  // of a codebook, and so of a table

}  // namespace
}  // namespace octavo

#ifdef OCTAVO_SIMD_VNNI
#include "kernels/body/aqlm_table_ints.inl"
#else
#include "kernels/body/aqlm_table_floats.inl"
#endif

namespace octavo {
namespace {

void aqlm_table(const AqlmTask& task) {
  alignas(64) SlabTables tables(task);
  const int n_groups = task.k / task.group, slab_groups = kAqlmTerms / task.n_codebooks;
  const uint8_t* codes = task.codes;
  for (int group = 0; group < n_groups; group += slab_groups, codes += task.slab_bytes) {
    const int here = n_groups - group < slab_groups ? n_groups - group : slab_groups;
    for (int t = 0; t < task.n_tokens; ++t) {
      const auto* x = reinterpret_cast<const float*>(task.act + t * task.act_stride) + int64_t{group} * task.group;
      tables.make(x, here, t == 0 ? codes : nullptr);
      tables.add(task.out + t * task.out_stride, codes, task.n_strips * 16, group == 0, t == 0);
    }
  }
}

}  // namespace
}  // namespace octavo
