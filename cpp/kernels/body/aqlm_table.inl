// AQLM linears with codes of 8 bits, by look-up tables: the products of a group of activations with all vectors of a
// codebook, as int16. A slab is as many groups as kAqlmTerms codes stand for. Inside it sums are exact:
//   sum = sum over terms t of table[t][code[t]],  table = round_half_even(product * (limit / amax))
// where amax is the largest product of the slab and limit = 32767 / terms; slabs follow each other in one float chain:
//   acc = fma(float(sum), amax / limit, acc).
// So the error of an output is below sum over slabs of terms / 2 * amax / limit, before the scale of its row.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

constexpr int kEntries = 256;  // of a codebook, and so of a table
constexpr int kPairs = kAqlmTerms / 2;

// Cache lines that are wanted soon, in runs that lie `stride` apart.
struct Fetch {
  const uint8_t* run;
  int64_t stride;
  int lines, n_runs;  // of a run; that are left
  int next = 0;       // line of the run

  void some(int n) {
    for (; n > 0 && n_runs > 0; --n) {
      __builtin_prefetch(run + next * 64, 0, 2);
      if (++next < lines) continue;
      next = 0;
      --n_runs;
      run += stride;
    }
  }
};

// products[term][j] (+)= x[group][8] times eight components of vector j, for kGroups groups of x that lie `stride`
// apart; returns the largest.
template <int kGroups>
inline Vf add_products(float* const (&products)[kGroups], const float* components, const float* x, int stride,
                       bool first, Fetch& fetch, int lines) {
  Vf value[kGroups][8], largest = zero();
  OCTAVO_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    OCTAVO_UNROLL
    for (int u = 0; u < 8; ++u) value[g][u] = set1(x[g * stride + u]);
  }
  for (int j = 0; j < kEntries; j += kLanes) {
    fetch.some(lines);
    Vf sum[kGroups];
    OCTAVO_UNROLL
    for (int g = 0; g < kGroups; ++g) sum[g] = first ? zero() : load(products[g] + j);
    OCTAVO_UNROLL
    for (int u = 0; u < 8; ++u) {
      const Vf component = load(components + u * kEntries + j);
      OCTAVO_UNROLL
      for (int g = 0; g < kGroups; ++g) sum[g] = fma(component, value[g][u], sum[g]);
    }
    OCTAVO_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      store(products[g] + j, sum[g]);
      largest = max(largest, abs(sum[g]));
    }
  }
  return largest;
}

template <int kN>
struct Count {
  static constexpr int value = kN;
};
constexpr int kPairOfGroups = kLanes == 16 ? 2 : 1;  // as registers allow

// products[term][j] = x[group of the term] times vector j, for all terms of a slab; returns the largest.
inline float table_products(float (&products)[kAqlmTerms][kEntries], const AqlmTask& task, const float* x, int n_groups,
                            Fetch fetch) {
  Vf largest = zero();
  const int calls =
      kEntries / kLanes * task.n_codebooks * (task.group / 8) * ((n_groups + kPairOfGroups - 1) / kPairOfGroups);
  const int lines = (fetch.n_runs * fetch.lines + calls - 1) / calls;
  for (int c = 0; c < task.n_codebooks; ++c) {
    const float* book = task.codebooks + int64_t{c} * task.group * kEntries;
    for (int i = 0; i < task.group; i += 8) {
      int g = 0;
      const auto add = [&](auto groups) {
        constexpr int kGroups = decltype(groups)::value;
        for (; g + kGroups <= n_groups; g += kGroups) {
          float* out[kGroups];
          for (int p = 0; p < kGroups; ++p) out[p] = products[(g + p) * task.n_codebooks + c];
          const Vf top =
              add_products<kGroups>(out, book + i * kEntries, x + g * task.group + i, task.group, i == 0, fetch, lines);
          if (i + 8 == task.group) largest = max(largest, top);
        }
      };
      add(Count<kPairOfGroups>());
      add(Count<1>());
    }
  }
  return reduce_max(largest);
}

#ifdef OCTAVO_SIMD_VNNI
// 256 int16 as two planes of bytes, low and high, so that two vpermi2b look a byte up.
struct alignas(64) Table {
  uint8_t low[kEntries], high[kEntries];
};

inline __m512i packed_ints(const float* products, Vf inverse) {
  const Vi a = round_to_int(mul(load(products), inverse)), b = round_to_int(mul(load(products + 16), inverse));
  return _mm512_packs_epi32(a, b);
}

inline void fill_table(Table& table, const float (&products)[kEntries], float inverse) {
  // Byte i of 64 entries, packed lane by lane: entry e is word 4 * (e / 4 % 4) of its lane.
  alignas(64) uint8_t index[64];
  for (int e = 0; e < 64; ++e) {
    const int word = e % 16 / 4 * 8 + e / 16 % 2 * 4 + e % 4;
    index[e] = static_cast<uint8_t>(e / 32 * 64 + word * 2);
  }
  const __m512i low = _mm512_load_si512(index), high = _mm512_or_si512(low, _mm512_set1_epi8(1));
  for (int j = 0; j < kEntries; j += 64) {
    const __m512i first = packed_ints(products + j, set1(inverse)),
                  second = packed_ints(products + j + 32, set1(inverse));
    _mm512_store_si512(table.low + j, _mm512_permutex2var_epi8(first, low, second));
    _mm512_store_si512(table.high + j, _mm512_permutex2var_epi8(first, high, second));
  }
}

struct TablePlanes {
  __m512i low[4], high[4];
  explicit TablePlanes(const Table& table) {
    OCTAVO_UNROLL
    for (int i = 0; i < 4; ++i) {
      low[i] = _mm512_load_si512(table.low + i * 64);
      high[i] = _mm512_load_si512(table.high + i * 64);
    }
  }
  static __m512i byte(const __m512i (&plane)[4], __m512i codes, __mmask64 upper) {
    return _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(plane[0], codes, plane[1]),
                                  _mm512_permutex2var_epi8(plane[2], codes, plane[3]));
  }
  // The entries of 64 codes: those of the slots 0-7, 16-23, ..., then those of the others.
  void add(__m512i (&sums)[2], const uint8_t* at) const {
    const __m512i codes = _mm512_loadu_si512(at);
    const __mmask64 upper = _mm512_movepi8_mask(codes);
    const __m512i l = byte(low, codes, upper), h = byte(high, codes, upper);
    sums[0] = _mm512_add_epi16(sums[0], _mm512_unpacklo_epi8(l, h));
    sums[1] = _mm512_add_epi16(sums[1], _mm512_unpackhi_epi8(l, h));
  }
};

// sums[row] (+)= the entries of two terms, for blocks of 64 rows.
template <bool kFirst, int kFetch>
inline void add_terms(int16_t* sums, const Table* tables, const uint8_t* codes, const uint8_t* ahead, int n_blocks) {
  const TablePlanes first(tables[0]), second(tables[1]);
  for (int b = 0; b < n_blocks; ++b, codes += 128, sums += 64) {
    __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if constexpr (!kFirst) {
      sum[0] = _mm512_load_si512(sums);
      sum[1] = _mm512_load_si512(sums + 32);
    }
    OCTAVO_UNROLL
    for (int i = 0; i < kFetch; ++i) __builtin_prefetch(ahead + (b * kFetch + i) * 64, 0, 2);
    first.add(sum, codes);
    second.add(sum, codes + 64);
    _mm512_store_si512(sums, sum[0]);
    _mm512_store_si512(sums + 32, sum[1]);
  }
}

inline void add_slab(int16_t* sums, const Table* tables, const uint8_t* codes, int64_t pair_bytes, int n_blocks) {
  // Three quarters of the next slab are fetched meanwhile, at an even pace: memory takes no more at once. The last two
  // pairs of terms are fetched while their tables are made.
  const auto ahead = [&](int pair, int half) { return codes + (kPairs + pair) * pair_bytes + half * n_blocks * 64; };
  add_terms<true, 2>(sums, tables, codes, ahead(0, 0), n_blocks);
  for (int p = 0; p < kPairs; p += 2) {
    if (p > 0) add_terms<false, 2>(sums, tables + 2 * p, codes + p * pair_bytes, ahead(p / 4 * 3 + p % 4, 0), n_blocks);
    add_terms<false, 1>(sums, tables + 2 * p + 2, codes + (p + 1) * pair_bytes, ahead(p / 4 * 3 + 1, p / 2 % 2),
                        n_blocks);
  }
}

inline Vf sums_of(const int16_t* sums) {
  return to_float(_mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums))));
}
#else
struct Table {
  int16_t entries[kEntries];
};

inline void fill_table(Table& table, const float (&products)[kEntries], float inverse) {
  int32_t rounded[kEntries];
  for (int j = 0; j < kEntries; j += kLanes) storei(rounded + j, round_to_int(mul(load(products + j), set1(inverse))));
  for (int j = 0; j < kEntries; ++j) table.entries[j] = static_cast<int16_t>(rounded[j]);
}

inline void add_slab(int16_t* sums, const Table* tables, const uint8_t* codes, int64_t pair_bytes, int n_blocks) {
  for (int b = 0; b < n_blocks; ++b, codes += 128, sums += 64) {
    for (int row = 0; row < 64; ++row) {
      const uint8_t* at = codes + aqlm_slot(row);
      int sum = 0;
      for (int t = 0; t < kAqlmTerms; t += 2, at += pair_bytes)
        sum += tables[t].entries[at[0]] + tables[t + 1].entries[at[64]];
      sums[row] = static_cast<int16_t>(sum);
    }
  }
}

inline Vf sums_of(const int16_t* sums) {
  float floats[kLanes];
  for (int i = 0; i < kLanes; ++i) floats[i] = static_cast<float>(sums[i]);
  return load(floats);
}
#endif

// out (+)= sums * unit, for whole strips.
inline void flush_slab(float* out, const int16_t* sums, float unit, bool first, int n) {
  for (int i = 0; i < n; i += kLanes)
    store(out + i, fma(sums_of(sums + i), set1(unit), first ? zero() : load(out + i)));
}

void aqlm_table(const AqlmTask& task) {
  alignas(64) float products[kAqlmTerms][kEntries];
  alignas(64) Table tables[kAqlmTerms];
  alignas(64) int16_t sums[kAqlmMaxRows];
  const int n_groups = task.k / task.group, slab_groups = kAqlmTerms / task.n_codebooks;
  const int n_rows = task.n_strips * 16, n_blocks = (n_rows + 63) / 64;
  const float limit = static_cast<float>(32767 / kAqlmTerms);
  __builtin_memset(products, 0, sizeof(products));
  for (int group = 0, slab = 0; group < n_groups; group += slab_groups, ++slab) {
    const int here = n_groups - group < slab_groups ? n_groups - group : slab_groups;
    if (here < slab_groups) __builtin_memset(products, 0, sizeof(products));
    const uint8_t* codes = task.codes + slab * (kAqlmTerms / 2) * task.pair_bytes;
    for (int t = 0; t < task.n_tokens; ++t) {
      const Fetch last_pairs{codes + (kPairs - 2) * task.pair_bytes, task.pair_bytes, 2 * n_blocks, t == 0 ? 2 : 0};
      const auto* x = reinterpret_cast<const float*>(task.act + t * task.act_stride) + int64_t{group} * task.group;
      const float largest = table_products(products, task, x, here, last_pairs);
      const float inverse = largest > 1e-30f ? limit / largest : 0.0f;
      for (int i = 0; i < kAqlmTerms; ++i) fill_table(tables[i], products[i], inverse);
      add_slab(sums, tables, codes, task.pair_bytes, n_blocks);
      flush_slab(task.out + t * task.out_stride, sums, largest / limit, slab == 0, n_rows);
    }
  }
}

}  // namespace
}  // namespace octavo
