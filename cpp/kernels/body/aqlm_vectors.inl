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

// Eight columns of kLanes rows from row `first` on: what four plane lines hold of them.
template <class Rows>
inline void load_columns(Vi (&lines)[4], const Rows& rows, int first, int k) {
  OCTAVO_UNROLL
  for (int i = 0; i < 4; ++i) {
    uint16_t room[8];
    lines[i] = load_sixteens([&](int q) { return rows.eight(first + 4 * q + i, k, room); });
  }
  turn_over_fours(lines);
}

void aqlm_decode(uint8_t* planes, const AqlmVectors& v, int n_strips) {
  for_strips(v, n_strips, [&](int, const auto& rows) {
    for (int k = 0; k < v.k; k += 8, planes += 256) {
      fetch_next_strip(v, rows.codes, k);
      OCTAVO_UNROLL
      for (int c = 0; c < kVecs; ++c) {
        Vi lines[4];
        load_columns(lines, rows, c * kLanes, k);
        OCTAVO_UNROLL
        for (int i = 0; i < 4; ++i) storei(planes + i * 64 + c * kLanes * 4, lines[i]);
      }
    }
  });
}

// acc + columns k and k + 1 times their activations, in the chain of the BF16 kernel.
inline Vf add_columns(Vf acc, Vi line, const uint8_t* act, int k) {
#ifdef OCTAVO_SIMD_BF16
  return dot_bf16(acc, line, act + k * 2);
#else
  const auto* x = reinterpret_cast<const float*>(act) + k;
  const Vf even = floats_of(shift_left<16>(line)), odd = floats_of(and_bits(line, set1i(static_cast<int>(0xffff0000))));
  return fma(odd, set1(x[1]), fma(even, set1(x[0]), acc));
#endif
}

template <int kTokens>
void dot_vectors(const LinearTask& task, const AqlmVectors& v) {
  for_strips(v, task.n_strips, [&](int strip, const auto& rows) {
    Vf acc[kTokens][kVecs];
    OCTAVO_UNROLL
    for (auto& sums : acc) {
      OCTAVO_UNROLL
      for (Vf& sum : sums) sum = zero();
    }
    for (int k = 0; k < v.k; k += 8) {
      fetch_next_strip(v, rows.codes, k);
      OCTAVO_UNROLL
      for (int c = 0; c < kVecs; ++c) {
        Vi lines[4];
        load_columns(lines, rows, c * kLanes, k);
        OCTAVO_UNROLL
        for (int i = 0; i < 4; ++i) {
          OCTAVO_UNROLL
          for (int t = 0; t < kTokens; ++t)
            acc[t][c] = add_columns(acc[t][c], lines[i], task.act + t * task.act_stride, k + 2 * i);
        }
      }
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      OCTAVO_UNROLL
      for (int c = 0; c < kVecs; ++c) store(task.out + t * task.out_stride + strip * 16 + c * kLanes, acc[t][c]);
    }
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

}  // namespace
}  // namespace octavo
