// The tables of aqlm_table.inl with VBMI: 256 int16 as two planes of bytes, so that two vpermi2b look a byte up.
#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "quant/aqlm_slabs.h"

namespace octavo {
namespace {

struct alignas(64) Table {
  uint8_t low[kEntries], high[kEntries];

  // The upper halves of 64 sums.
  void put(int block, const Vi (&sums)[4]) {
    alignas(64) uint8_t index[64];  // of 32 sums: the third bytes, then the fourth
    for (int i = 0; i < 64; ++i) index[i] = static_cast<uint8_t>(i % 32 * 4 + 2 + i / 32);
    const __m512i order = _mm512_load_si512(index);
    const Vf first = _mm512_castsi512_ps(_mm512_permutex2var_epi8(sums[0], order, sums[1])),
             second = _mm512_castsi512_ps(_mm512_permutex2var_epi8(sums[2], order, sums[3]));
    _mm512_store_si512(low + block * 64, bits_of(_mm512_shuffle_f32x4(first, second, 0x44)));
    _mm512_store_si512(high + block * 64, bits_of(_mm512_shuffle_f32x4(first, second, 0xee)));
  }
};

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

inline __m256i half(__m512i sums, int h) {
  return h == 0 ? _mm512_castsi512_si256(sums) : _mm512_extracti64x4_epi64(sums, 1);
}

// Adds the sums of a block of kAqlmRows, or of the rows that are left of it.
template <bool kFetch>
void add_block(const Table (&tables)[kAqlmTerms], float* out, const uint8_t* codes, const uint8_t* next, int n_rows,
               float unit) {
  __m512i sums[kAqlmRows / 64][2];
  OCTAVO_UNROLL
  for (auto& sum : sums) sum[0] = sum[1] = _mm512_setzero_si512();
  for (const Table& table : tables) {
    const TablePlanes planes(table);
    OCTAVO_UNROLL
    for (auto& sum : sums) {
      if (kFetch) fetch_far(next);
      next += kAhead;
      planes.add(sum, codes);
      codes += 64;
    }
  }
  OCTAVO_UNROLL
  for (int i = 0; i < kAqlmRows / 16; ++i)
    if (i * 16 < n_rows) {
      const Vf sum = to_float(_mm512_cvtepi16_epi32(half(sums[i / 4][i / 2 % 2], i % 2)));
      store(out + i * 16, fma(sum, set1(unit), load(out + i * 16)));
    }
}

}  // namespace
}  // namespace octavo
