// AQLM, additive quantisation (https://arxiv.org/abs/2401.06118): a row is cut into groups of weights, and a group is
// the sum of one vector of each codebook, times the row's scale:
//
//   w[row][i * group + j] = scales[row] * sum over c of codebooks[c][codes[row][i][c]][j]
//
// Codes are stored as signed integers: those of the upper half of a codebook have wrapped around to negative ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace octavo {

inline constexpr int kAqlmMaxBits = 16;

// A matrix (n, k) as a checkpoint holds it. Whoever made it owns what it points to.
struct AqlmMatrix {
  std::string name;
  int64_t n, k;
  int group;  // weights that a code stands for: 8, 16 or 32 of one row
  int n_codebooks;
  int bits;              // of a code: a codebook has 1 << bits vectors
  const uint8_t* codes;  // (n, k / group, n_codebooks) int8, or int16 beyond 8 bits
  size_t code_bytes;
  const float* codebooks;  // (n_codebooks, 1 << bits, group)
  size_t n_values;
  const float* scales;  // (n)
  size_t n_scales;

  int bytes_per_code() const { return bits <= 8 ? 1 : 2; }
  int group_code_bytes() const { return n_codebooks * bytes_per_code(); }
  int64_t row_code_bytes() const { return k / group * group_code_bytes(); }
  size_t codebook_values() const { return static_cast<size_t>(n_codebooks) * static_cast<size_t>(group) << bits; }
};

// Throws where a size does not fit the others.
void check_aqlm(const AqlmMatrix& matrix);

// Whether products are looked up in tables rather than weights decoded. The shape alone decides: from a block of rows
// on (quant/aqlm_slabs.h) tables are made and looked up in less time than it takes to decode.
bool multiplied_by_table(const AqlmMatrix& matrix);

int64_t aqlm_slabs(const AqlmMatrix& matrix);
// The codes of rows [begin, end) to their places in slabs (quant/aqlm_slabs.h) that are all zero.
void pack_aqlm_slabs(uint8_t* slabs, const AqlmMatrix& matrix, int64_t begin, int64_t end);
// The codes of strips [begin, end) of 16 rows to their places in (strips, k / group, 16, n_codebooks), where they are
// one stream to read. Rows past the last repeat it.
void pack_aqlm_strips(uint8_t* strips, const AqlmMatrix& matrix, int64_t begin, int64_t end);
// Codebooks of 8 bits as integers (quant/aqlm_slabs.h). Returns what one is worth: not finite where a
// number of theirs is not, and then all are zero.
float round_codebooks(int16_t* out, const AqlmMatrix& matrix);

// The k weights of a row, without its scale.
void decode_aqlm_row(float* out, const AqlmMatrix& matrix, int64_t row);

}  // namespace octavo
