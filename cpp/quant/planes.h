// Planes: a weight's native bits, regrouped at load so that 16 output rows lie side by side.
//
// A strip is 16 rows (missing rows are zero). A dword is 4 consecutive k of one row, a plane line is the
// same dword of all 16 rows: byte 4*row + b holds k = 4*j + b. Strips follow each other; inside one:
//
//   F32     float [k][16]
//   F16     uint16 [k][16]
//   BF16    uint16 [ceil(k/2)][16][2]             pairs of k; an odd k is padded with zero
//   Q8_0    int8 lines [k/32][8][64]              | half d[k/32][16]
//   Q4_0    nibble lines [k/32][4][64]            | half d[k/32][16]
//   Q4_1    nibble lines [k/32][4][64]            | half d[k/32][16] | half m[k/32][16]
//   Q5_0    nibble lines | bits uint64 [k/32][8]  | half d[k/32][16]
//   Q5_1    nibble lines | bits uint64 [k/32][8]  | half d[k/32][16] | half m[k/32][16]
//   IQ4_NL  as Q4_0
//   MXFP4   nibble lines [k/32][4][64]            | bfloat16 d[k/32][16]
//   Q2_K    two-bit lines [k/32][2][64]           | sc, mn in the nibbles | half d[k/256][16] | half dmin[k/256][16]
//   Q3_K    three-bit lines [k/32][3][64]         | sc      | half d[k/256][16]
//   IQ4_XS  nibble lines [k/32][4][64]            | sc      | half d[k/256][16]
//   Q4_K    nibble lines [k/64][8][64]            | sc | mn | half d[k/256][16] | half dmin[k/256][16]
//   Q5_K    five-bit lines [k/32][5][64]          | sc | mn | half d[k/256][16] | half dmin[k/256][16]
//   Q6_K    six-bit lines [k/16][3][64]           | sc      | half d[k/256][16]
//   formats with to_integers (quant/format.h)     blocks as in the file [k/256][16]
//
// A nibble line j holds k = 4j..4j+3 in the low and k = 16+4j.. in the high nibbles (Q4_K: 32+4j). Bit 4*row + b
// of bits[j] is the fifth bit of k = 4j + b.
//
// Two-bit lines: line j of 32 weights holds dwords 2j, 4 + 2j, 2j + 1, 4 + 2j + 1 (of eight) from the lowest bits on.
// Three-bit lines: line j holds dwords 2j and 2j + 1 in its low six bits, and above them bits 0 and 1 of dword 6 + j;
// line 2 the third bits of dwords 6 and 7.
// Five-bit lines: line j holds dword j of a sub-block in its low five bits, and three bits of one of the other three
// dwords, with bit numbers of their quants:
//   line        0        1        2        3        4
//   bits 5..7   5: 0-2   5: 3,4   6: 0-2   6: 3,4   7: 0-2     dword: bits
//                        7: 3              7: 4
// Six-bit lines: line j holds dword j in its low six bits and bits 2j, 2j+1 of dword 3 above.
// sc and mn are the sub-scales and minima by pairs of sub-blocks: bytes [pair][16][2]; int8 where there are no minima.
//
// Formats without planes stay as native rows, and a linear dequantises them as it goes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace octavo {

inline constexpr int kStrip = 16;

bool has_planes(Format format);

// Byte offsets inside one strip of k columns.
struct PlaneLayout {
  int64_t quants = 0, bits = 0, sub_scales = 0, sub_minima = 0, d = 0, m = 0;  // m: dmin where there are sub_minima
  int64_t bytes = 0;  // from one strip to the next, a multiple of 64
};
PlaneLayout plane_layout(Format format, int64_t k);

inline int64_t n_strips(int64_t n) { return (n + kStrip - 1) / kStrip; }

// Repacks strips [begin, end) of the row-major matrix `rows` (n, k) to their place in `planes`.
void repack(uint8_t* planes, const uint8_t* rows, Format format, int64_t n, int64_t k, int64_t begin, int64_t end);

}  // namespace octavo
