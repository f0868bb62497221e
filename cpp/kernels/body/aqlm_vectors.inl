// AQLM codes to BF16 planes, and for few tokens straight to products. A codebook of its own is in bfloat16; the sums of
// several are rounded to it.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

constexpr int shift_of(int group) { return group == 8 ? 3 : group == 16 ? 4 : 5; }

// Where the codes of a strip's rows lie; rows past the last repeat it.
struct CodesOfStrip {
  const uint8_t* codes;
  int64_t row_step, group_step;
  int last, shift;  // the last row; of a group's number to its weights

  CodesOfStrip(const AqlmVectors& v, int strip)
      : codes(v.codes + strip * v.strip_bytes),
        row_step(v.row_step),
        group_step(v.group_step),
        last(v.n_rows - 1 - strip * 16),
        shift(shift_of(v.group)) {}
  // Of the group that weight k is in.
  const uint8_t* at(int row, int k) const {
    return codes + (row < last ? row : last) * row_step + (k >> shift) * group_step;
  }
};

// The rows of a strip.
template <class Code>
struct CodeRows : CodesOfStrip {
  const uint16_t* vectors;
  Code mask;

  CodeRows(const AqlmVectors& v, int strip)
      : CodesOfStrip(v, strip), vectors(v.vectors), mask(static_cast<Code>((1u << v.bits) - 1)) {}

  // Eight weights of a row, from a multiple of eight on; room: for those that have to be made.
  const uint16_t* eight(int row, int k, uint16_t (&)[8]) const {
    Code code;
    __builtin_memcpy(&code, at(row, k), sizeof(Code));
    return vectors + (static_cast<int64_t>(code & mask) << shift) + (k & ((1 << shift) - 1));
  }
};

// The same for the published 1x16 by strips: nothing is left to compute but an address.
struct StreamedRows {
  static constexpr int kStep = 16 * int{sizeof(uint16_t)};
  const uint8_t* codes;
  const uint16_t* vectors;

  StreamedRows(const AqlmVectors& v, int strip) : codes(v.codes + strip * v.strip_bytes), vectors(v.vectors) {}

  const uint16_t* eight(int row, int k, uint16_t (&)[8]) const {
    uint16_t code;
    __builtin_memcpy(&code, codes + k / 8 * kStep + row * int{sizeof(code)}, sizeof(code));
    return vectors + int64_t{code} * 8;
  }
};

// The same for sums of several codebooks.
template <class Code>
struct SummedRows : CodesOfStrip {
  const float* books;
  int bits, n_codebooks;

  SummedRows(const AqlmVectors& v, int strip)
      : CodesOfStrip(v, strip), books(v.summed), bits(v.bits), n_codebooks(v.n_codebooks) {}

  const uint16_t* eight(int row, int k, uint16_t (&room)[8]) const {
    const uint8_t* at = this->at(row, k);
    float sum[8] = {};
    for (int c = 0; c < n_codebooks; ++c, at += sizeof(Code)) {
      Code code;
      __builtin_memcpy(&code, at, sizeof(Code));
      const int64_t vector = (int64_t{c} << bits) + (code & ((1 << bits) - 1));
      const float* values = books + (vector << shift) + (k & ((1 << shift) - 1));
      for (int j = 0; j < 8; ++j) sum[j] += values[j];
    }
    uint32_t word[8];
    __builtin_memcpy(word, sum, sizeof(word));
    for (int j = 0; j < 8; ++j) room[j] = static_cast<uint16_t>((word[j] + 0x7fff + (word[j] >> 16 & 1)) >> 16);
    return room;
  }
};

// Calls f with the rows of each strip.
template <class F>
inline void for_strips(const AqlmVectors& v, int n_strips, F f) {
  for (int s = 0; s < n_strips; ++s) {
    if (v.n_codebooks > 1 && v.bits > 8)
      f(s, SummedRows<uint16_t>(v, s));
    else if (v.n_codebooks > 1)
      f(s, SummedRows<uint8_t>(v, s));
    else if (v.bits == 16 && v.group == 8 && v.group_step == StreamedRows::kStep)
      f(s, StreamedRows(v, s));
    else if (v.bits > 8)
      f(s, CodeRows<uint16_t>(v, s));
    else
      f(s, CodeRows<uint8_t>(v, s));
  }
}

// While eight columns are read, their share of the strip that comes after it is fetched: rows in the file are more
// streams than the hardware follows.
inline void fetch_next_strip(const AqlmVectors& v, const uint8_t* codes, int k) {
  __builtin_prefetch(codes + v.strip_bytes + v.strip_bytes * k / v.k);
}

#ifdef OCTAVO_SIMD_AVX512
// Eight columns of a strip: four plane lines.
struct EightColumns {
  Vi lines[4];

  template <class Rows>
  EightColumns(const Rows& codes, int k) {
    Vi rows[4];  // lane q of rows[i]: row 4 * q + i
    OCTAVO_UNROLL
    for (int i = 0; i < 4; ++i) {
      uint16_t room[8];
      const auto eight = [&](int q) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes.eight(4 * q + i, k, room)));
      };
      rows[i] = _mm512_inserti32x4(_mm512_castsi128_si512(eight(0)), eight(1), 1);
      rows[i] = _mm512_inserti32x4(_mm512_inserti32x4(rows[i], eight(2), 2), eight(3), 3);
    }
    const Vi low01 = _mm512_unpacklo_epi32(rows[0], rows[1]), low23 = _mm512_unpacklo_epi32(rows[2], rows[3]);
    const Vi high01 = _mm512_unpackhi_epi32(rows[0], rows[1]), high23 = _mm512_unpackhi_epi32(rows[2], rows[3]);
    lines[0] = _mm512_unpacklo_epi64(low01, low23);
    lines[1] = _mm512_unpackhi_epi64(low01, low23);
    lines[2] = _mm512_unpacklo_epi64(high01, high23);
    lines[3] = _mm512_unpackhi_epi64(high01, high23);
  }
};

void aqlm_decode(uint8_t* planes, const AqlmVectors& v, int n_strips) {
  for_strips(v, n_strips, [&](int, const auto& rows) {
    for (int k = 0; k < v.k; k += 8, planes += 256) {
      fetch_next_strip(v, rows.codes, k);
      const EightColumns columns(rows, k);
      OCTAVO_UNROLL
      for (int i = 0; i < 4; ++i) _mm512_storeu_si512(planes + i * 64, columns.lines[i]);
    }
  });
}
#else
void aqlm_decode(uint8_t* planes, const AqlmVectors& v, int n_strips) {
  for_strips(v, n_strips, [&](int, const auto& rows) {
    for (int k = 0; k < v.k; k += 8, planes += 256)
      for (int row = 0; row < 16; ++row) {
        uint16_t room[8];
        const uint16_t* eight = rows.eight(row, k, room);
        for (int i = 0; i < 4; ++i) __builtin_memcpy(planes + i * 64 + row * 4, eight + i * 2, 4);
      }
  });
}
#endif

#ifdef OCTAVO_SIMD_BF16
template <int kTokens>
void dot_vectors(const LinearTask& task, const AqlmVectors& v) {
  for_strips(v, task.n_strips, [&](int strip, const auto& rows) {
    Vf acc[kTokens];
    OCTAVO_UNROLL
    for (Vf& sum : acc) sum = zero();
    for (int k = 0; k < v.k; k += 8) {
      fetch_next_strip(v, rows.codes, k);
      const EightColumns columns(rows, k);
      OCTAVO_UNROLL
      for (int i = 0; i < 4; ++i) {
        OCTAVO_UNROLL
        for (int t = 0; t < kTokens; ++t)
          acc[t] = dot_bf16(acc[t], columns.lines[i], task.act + t * task.act_stride + (k + 2 * i) * 2);
      }
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) store(task.out + t * task.out_stride + strip * 16, acc[t]);
  });
}

// The same chains as decoding first, so the same bits.
void aqlm_dot(const LinearTask& task, const AqlmVectors& v) {
  switch (task.n_tokens) {
    case 1: return dot_vectors<1>(task, v);
    case 2: return dot_vectors<2>(task, v);
    case 3: return dot_vectors<3>(task, v);
    case 4: return dot_vectors<4>(task, v);
  }
}
#endif

}  // namespace
}  // namespace octavo
