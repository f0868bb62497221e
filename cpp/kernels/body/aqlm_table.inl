// AQLM linears with codes of 8 bits, by look-up tables: the products of a group of activations with all vectors of a
// codebook, as int16. A slab is as many groups as kAqlmTerms codes stand for. Codebooks and a slab's activations are
// integers of kAqlmNorm at most as the norm of a vector and of a group, so that a table's numbers
//   table[t][code] = (sum over j of book[code][j] * x[j] + 2^15) >> 16
// are within 2047 and the sum of 16 of them is exact; slabs follow each other in one float chain:
//   acc = fma(float(sum), 2^16 * norm / kAqlmNorm, acc)
// where norm is the largest of the slab's groups of activations. A term is off by half a step of a table,
//   2^15 / kAqlmNorm^2 * norm * longest,
// longest being the longest vector of a codebook, and by what rounding adds, which is at most
//   sqrt(group) / kAqlmNorm * norm * longest.

#pragma once

#include <cmath>

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/aqlm_slabs.h"

namespace octavo {
namespace {

constexpr int kEntries = 256;  // of a codebook, and so of a table
constexpr int kEntryBlock = kAqlmBookBlock;
constexpr int kEntryVecs = kEntryBlock / kLanes;
constexpr int64_t kBlockBytes = int64_t{kAqlmRows} * kAqlmTerms;

// Memory shall not rest: for every line of codes that is looked up, so much of the next slab is fetched; making its
// tables fetches what is left of it.
constexpr int64_t kAhead = 48;
constexpr int64_t ahead(int64_t bytes) { return bytes / 64 * kAhead; }

// Cache lines that are wanted soon.
struct Fetch {
  const uint8_t* next;
  int64_t lines;

  void some(int64_t n) {
    for (; n > 0 && lines > 0; --n, --lines, next += 64) fetch_far(next);
  }
};

}  // namespace
}  // namespace octavo

#ifdef OCTAVO_SIMD_VNNI
#include "kernels/body/aqlm_table_bytes.inl"
#else
#include "kernels/body/aqlm_table_words.inl"
#endif

namespace octavo {
namespace {

// A slab's tables, made from one token's activations.
class SlabTables {
 public:
  explicit SlabTables(const AqlmTask& task) : task_(task) {}

  void make(const float* x, int n_groups, Fetch fetch) {
    const int n = task_.n_codebooks, parts = task_.group / 8;
    round_activations(x, n_groups);
    const int n_products = kEntries / kEntryBlock * n * n_groups * parts;
    const int64_t lines = (fetch.lines + n_products - 1) / n_products;
    const int16_t* book = task_.books;
    for (int c = 0; c < n; ++c)
      for (int block = 0; block < kEntries / kEntryBlock; ++block)
        for (int part = 0; part < parts; ++part) {
          multiply(book, c, block, part, n_groups, fetch, lines);
          book += kEntryBlock * 8;
        }
    __builtin_memset(tables_ + n_groups * n, 0, static_cast<size_t>(kAqlmTerms - n_groups * n) * sizeof(Table));
  }

  // Adds the sums of all rows times the unit to `out`. next: the codes of the next slab, or null.
  void add(float* out, const uint8_t* codes, int n_rows, const uint8_t* next) const {
    for (; n_rows > 0; n_rows -= kAqlmRows, codes += kBlockBytes, out += kAqlmRows)
      if (next != nullptr) {
        add_block<true>(tables_, out, codes, next, n_rows, unit_);
        next += ahead(kBlockBytes);
      } else {
        add_block<false>(tables_, out, codes, next, n_rows, unit_);
      }
  }

 private:
  // Activations that are not finite make the unit NaN, and so all sums.
  void round_activations(const float* x, int n_groups) {
    float largest = 0, total = 0;
    for (int g = 0; g < n_groups; ++g) {
      float squares = 0;
      for (int i = g * task_.group; i < (g + 1) * task_.group; ++i) squares += x[i] * x[i];
      largest = squares > largest ? squares : largest;
      total += squares;
    }
    const float norm = std::sqrt(largest + 0 * total);
    unit_ = norm * (65536 / kAqlmNorm);
    const Vf inverse = set1(norm > 1e-18f ? kAqlmNorm / norm : 0.0f);
    constexpr int kStep = kLanes < 8 ? kLanes : 8;
    for (int i = 0; i < n_groups * task_.group; i += kStep)
      store_halves(x_ + i, round_to_int(mul(load_part(x + i, kStep), inverse)));
  }

  // Eight components of 64 vectors with the same ones of every group.
  void multiply(const int16_t* book, int codebook, int block, int part, int n_groups, Fetch& fetch, int64_t lines) {
    const bool first = part == 0, last = (part + 1) * 8 == task_.group;
    Vi components[4][kEntryVecs];
    OCTAVO_UNROLL
    for (int u = 0; u < 4; ++u) {
      OCTAVO_UNROLL
      for (int v = 0; v < kEntryVecs; ++v) components[u][v] = loadi(book + u * kEntryBlock * 2 + v * kLanes * 2);
    }
    for (int g = 0; g < n_groups; ++g) {
      fetch.some(lines);
      int32_t* partial = partial_[g];
      Vi sums[kEntryVecs];
      OCTAVO_UNROLL
      for (int v = 0; v < kEntryVecs; ++v) sums[v] = first ? set1i(1 << 15) : loadi(partial + v * kLanes);
      OCTAVO_UNROLL
      for (int u = 0; u < 4; ++u) {
        int32_t pair;
        __builtin_memcpy(&pair, x_ + g * task_.group + part * 8 + 2 * u, sizeof(pair));
        OCTAVO_UNROLL
        for (int v = 0; v < kEntryVecs; ++v) sums[v] = dot_pairs(sums[v], components[u][v], set1i(pair));
      }
      if (last) {
        tables_[g * task_.n_codebooks + codebook].put(block, sums);
        continue;
      }
      OCTAVO_UNROLL
      for (int v = 0; v < kEntryVecs; ++v) storei(partial + v * kLanes, sums[v]);
    }
  }

  const AqlmTask& task_;
  alignas(64) Table tables_[kAqlmTerms];
  alignas(64) int32_t partial_[kAqlmTerms][kEntryBlock];  // where groups are of several parts
  uint16_t x_[kAqlmTerms * 32 + 16];
  float unit_ = 0;
};

void aqlm_table(const AqlmTask& task) {
  alignas(64) SlabTables tables(task);
  const int n_groups = task.k / task.group, slab_groups = kAqlmTerms / task.n_codebooks;
  const int64_t bytes = int64_t{(task.n_strips * 16 + kAqlmRows - 1) / kAqlmRows} * kBlockBytes;
  const uint8_t* codes = task.codes;
  for (int t = 0; t < task.n_tokens; ++t)
    __builtin_memset(task.out + t * task.out_stride, 0, sizeof(float) * static_cast<size_t>(task.n_strips) * 16);
  for (int group = 0; group < n_groups; group += slab_groups, codes += task.slab_bytes) {
    const int here = n_groups - group < slab_groups ? n_groups - group : slab_groups;
    const int64_t fetched = group == 0 ? 0 : ahead(bytes);
    const uint8_t* next = group + slab_groups < n_groups ? codes + task.slab_bytes : nullptr;
    for (int t = 0; t < task.n_tokens; ++t) {
      const auto* x = reinterpret_cast<const float*>(task.act + t * task.act_stride) + int64_t{group} * task.group;
      tables.make(x, here, t == 0 ? Fetch{codes + fetched, (bytes - fetched) / 64} : Fetch{});
      tables.add(task.out + t * task.out_stride, codes, task.n_strips * 16, t == 0 ? next : nullptr);
    }
  }
}

}  // namespace
}  // namespace octavo
