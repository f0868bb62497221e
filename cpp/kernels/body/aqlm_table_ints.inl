// The tables of aqlm_table.inl with VNNI and VBMI. Products are sums of integers: codebooks are rounded to 16 bits, the
// activations of a slab to kMostOfGroup / group, so that a group's sum fits into 32.
#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/aqlm_slabs.h"

namespace octavo {
namespace {

constexpr int kMostOfGroup = 65535;  // times 32767: the largest sum of a group
// Memory shall not rest while tables are made. That these lines were wanted before is no matter: a core drops what it
// has no room to fetch.
constexpr int64_t kLinesMeanwhile = 256;

// Cache lines that are wanted soon.
struct Fetch {
  const uint8_t* next;
  int64_t lines;

  void some(int64_t n) {
    for (; n > 0 && lines > 0; --n, --lines, next += 64) __builtin_prefetch(next, 0, 2);
  }
};

// n is a multiple of 8.
inline float largest_of(const float* x, int n) {
  Vf largest[4] = {zero(), zero(), zero(), zero()};
  int i = 0;
  for (; i + 64 <= n; i += 64)
    for (int j = 0; j < 4; ++j) largest[j] = max(largest[j], abs(load(x + i + j * 16)));
  for (; i < n; i += 8) largest[0] = max(largest[0], abs(load_part(x + i, 8)));
  return reduce_max(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
}

// The codebooks as pairs of components, [n_codebooks][group / 8][kEntries / 16][4][16][2].
struct IntBooks {
  alignas(64) int16_t values[kAqlmTerms * 32 * kEntries];
  float unit;

  explicit IntBooks(const AqlmTask& task) {
    const int n = task.n_codebooks * task.group;
    const float largest = largest_of(task.codebooks, n * kEntries);
    const Vf inverse = set1(largest > 1e-30f ? 32767 / largest : 0.0f);
    const auto rounded = [&](const float* from) { return round_to_int(mul(load(from), inverse)); };
    unit = largest / 32767;
    int16_t* to = values;
    for (int i = 0; i < n; i += 8)
      for (int j = 0; j < kEntries; j += 16)
        for (int u = 0; u < 8; u += 2, to += 32) {
          const float* from = task.codebooks + (i + u) * kEntries + j;
          const Vi even = rounded(from), odd = rounded(from + kEntries);
          storei(reinterpret_cast<int32_t*>(to), _mm512_mask_blend_epi16(0xaaaaaaaa, even, _mm512_slli_epi32(odd, 16)));
        }
  }
};

// products[group][j] (+)= x[group][8] times eight components of vector j, for kGroups groups of x that lie `stride`
// apart; returns the largest.
template <int kGroups>
inline Vi add_products(int32_t* const (&products)[kGroups], const int16_t* book, const int16_t* x, int stride,
                       bool first, Fetch& fetch, int64_t lines) {
  Vi value[kGroups][4], largest = set1i(0);
  OCTAVO_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    OCTAVO_UNROLL
    for (int u = 0; u < 4; ++u) {
      int32_t pair;
      __builtin_memcpy(&pair, x + g * stride + 2 * u, sizeof(pair));
      value[g][u] = _mm512_set1_epi32(pair);
    }
  }
  for (int j = 0; j < kEntries; j += 16, book += 128) {
    fetch.some(lines);
    Vi sum[kGroups];
    OCTAVO_UNROLL
    for (int g = 0; g < kGroups; ++g) sum[g] = first ? set1i(0) : loadi(products[g] + j);
    OCTAVO_UNROLL
    for (int u = 0; u < 4; ++u) {
      const Vi components = _mm512_load_si512(book + u * 32);
      OCTAVO_UNROLL
      for (int g = 0; g < kGroups; ++g) sum[g] = _mm512_dpwssd_epi32(sum[g], components, value[g][u]);
    }
    OCTAVO_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      storei(products[g] + j, sum[g]);
      largest = _mm512_max_epi32(largest, _mm512_abs_epi32(sum[g]));
    }
  }
  return largest;
}

constexpr int kGroupsAtOnce = 4;

// 256 int16 as two planes of bytes, low and high, so that two vpermi2b look a byte up.
struct alignas(64) Table {
  uint8_t low[kEntries], high[kEntries];
};

inline __m512i packed_ints(const int32_t* products, Vf inverse) {
  const auto rounded = [&](const int32_t* from) { return round_to_int(mul(to_float(loadi(from)), inverse)); };
  return _mm512_packs_epi32(rounded(products), rounded(products + 16));
}

inline void fill_table(Table& table, const int32_t (&products)[kEntries], float inverse) {
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

// out (+)= unit * sums
inline void flush(float* out, __m256i sums, float unit, bool first) {
  store(out, fma(to_float(_mm512_cvtepi16_epi32(sums)), set1(unit), first ? zero() : load(out)));
}

// A slab's tables, made from one token's activations.
class SlabTables {
 public:
  explicit SlabTables(const AqlmTask& task) : task_(task), books_(task) {}

  // codes: those that will be looked up, where they are to be fetched; else null.
  void make(const float* x, int n_groups, const uint8_t* codes) {
    const auto limit = static_cast<float>(32767 / kAqlmTerms);
    const float unit = round_activations(x, n_groups * task_.group) * books_.unit;
    const int n_terms = n_groups * task_.n_codebooks;
    const float largest = multiply(n_groups, {codes, codes == nullptr ? 0 : kLinesMeanwhile});
    const float inverse = largest > 0 ? limit / largest : 0.0f;
    unit_ = largest / limit * unit;
    for (int t = 0; t < n_terms; ++t) fill_table(tables_[t], products_[t], inverse);
    __builtin_memset(tables_ + n_terms, 0, static_cast<size_t>(kAqlmTerms - n_terms) * sizeof(Table));
  }

  // The sums of all rows times the unit to `out`, added unless they are the first. fetch: the codes of the next slab.
  void add(float* out, const uint8_t* codes, int n_rows, bool first, bool fetch) const {
    for (; n_rows > 0; n_rows -= kAqlmRows, codes += kAqlmRows * kAqlmTerms, out += kAqlmRows)
      if (fetch)
        add_block<true>(out, codes, n_rows, first);
      else
        add_block<false>(out, codes, n_rows, first);
  }

 private:
  template <bool kFetch>
  void add_block(float* out, const uint8_t* codes, int n_rows, bool first) const {
    __m512i sums[kAqlmRows / 64][2];
    OCTAVO_UNROLL
    for (auto& sum : sums) sum[0] = sum[1] = _mm512_setzero_si512();
    for (const Table& table : tables_) {
      const TablePlanes planes(table);
      OCTAVO_UNROLL
      for (auto& sum : sums) {
        if (kFetch) __builtin_prefetch(codes + task_.slab_bytes, 0, 2);
        planes.add(sum, codes);
        codes += 64;
      }
    }
    OCTAVO_UNROLL
    for (int i = 0; i < kAqlmRows / 16; ++i)
      if (i * 16 < n_rows) flush(out + i * 16, half(sums[i / 4][i / 2 % 2], i % 2), unit_, first);
  }

  static __m256i half(__m512i sums, int h) {
    return h == 0 ? _mm512_castsi512_si256(sums) : _mm512_extracti64x4_epi64(sums, 1);
  }

  // Returns what one step of the rounded activations is worth.
  float round_activations(const float* x, int n) {
    const float largest = largest_of(x, n), most = static_cast<float>(kMostOfGroup / task_.group);
    const Vf inverse = set1(largest > 1e-30f ? most / largest : 0.0f);
    for (int i = 0; i < n; i += 8) {
      const __m256i ints = _mm512_cvtepi32_epi16(round_to_int(mul(load_part(x + i, 8), inverse)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(x_ + i), _mm256_castsi256_si128(ints));
    }
    return largest / most;
  }

  // All products of the slab; returns the largest.
  float multiply(int n_groups, Fetch fetch) {
    const int n = task_.n_codebooks;
    const int calls = kEntries / 16 * n * (task_.group / 8) * ((n_groups + kGroupsAtOnce - 1) / kGroupsAtOnce);
    const int64_t lines = (fetch.lines + calls - 1) / calls;
    Vi largest = set1i(0);
    for (int c = 0; c < n; ++c)
      for (int i = 0; i < task_.group; i += 8) {
        int g = 0;
        const auto add = [&](auto groups) {
          constexpr int kGroups = decltype(groups)::value;
          for (; g + kGroups <= n_groups; g += kGroups) {
            int32_t* out[kGroups];
            for (int p = 0; p < kGroups; ++p) out[p] = products_[(g + p) * n + c];
            const Vi top = add_products<kGroups>(out, books_.values + (c * task_.group + i) * kEntries,
                                                 x_ + g * task_.group + i, task_.group, i == 0, fetch, lines);
            if (i + 8 == task_.group) largest = _mm512_max_epi32(largest, top);
          }
        };
        add(Size<kGroupsAtOnce>());
        add(Size<1>());
      }
    return reduce_max(to_float(largest));
  }

  const AqlmTask& task_;
  IntBooks books_;
  alignas(64) int32_t products_[kAqlmTerms][kEntries];
  alignas(64) Table tables_[kAqlmTerms];
  int16_t x_[kAqlmTerms * 32];
  float unit_ = 0;
};

}  // namespace
}  // namespace octavo
