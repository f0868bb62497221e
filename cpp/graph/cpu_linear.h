// What every call that multiplies by weights shares: a chunk of output rows at a time, over tiles of tokens.
#pragma once

#include <algorithm>

#include "graph/cpu_ops.h"
#include "quant/planes.h"

namespace octavo::cpu {

inline constexpr int kTokenTile = 48;       // a multiple of the 4, 6 and 8 tokens that kernels take at once
inline constexpr int kMaxChunkStrips = 16;  // 256 rows: one kQ8x256 group
inline constexpr int64_t kTileFloats = int64_t{kTokenTile} * kMaxChunkStrips * kStrip;
// Bytes in which emit_segment makes a quantised segment of n columns, any format.
constexpr int64_t emit_stage_bytes(int64_t n) { return (n * 8 + 63) / 64 * 64; }
inline constexpr int64_t kStageBytes = emit_stage_bytes(kMaxChunkStrips * kStrip);

// The part of a linear's output that one thread computes at a time.
struct Chunk {
  const LinearPart* part;
  int first_strip;
  int strips;
  const uint8_t* weights;

  int first() const { return first_strip * kStrip; }
  int width() const { return strips * kStrip; }
  int valid() const { return std::min(width(), static_cast<int>(part->weight->n) - first()); }
};

// Which of a weight's chunks a rank owns.
struct RankShare {
  int first, n;
  RankShare(int chunks, const Worker& worker, int rank)
      : first(begin(chunks, worker, rank)), n(begin(chunks, worker, rank + 1) - first) {}

 private:
  static int begin(int chunks, const Worker& worker, int rank) {
    return static_cast<int>(int64_t{chunks} * worker.rank_begin(rank) / worker.n_threads);
  }
};

// Rows of activations at equal distances.
struct ActRows {
  const uint8_t* first;
  int64_t stride;  // bytes
};

// Strips that a chunk holds; whole groups of what its epilogue quantises into `activated`, or null.
int chunk_strips(const ValueRows* activated, int n_tokens);
int chunks_of(const LinearPart& part, int strips);

// Bytes of `panel` that open_chunk needs for this part.
int64_t panel_bytes(const LinearPart& part);
// The chunk of at most `strips` strips from strip `first` on.
Chunk open_chunk(const LinearPart& part, int first, int strips, uint8_t* panel);

// out[i] = activation row i times the chunk's weights, plus its bias.
void multiply(float* out, int64_t out_stride, const ActRows& act, const Chunk& chunk, int n);

// Writes columns [first, first + n) of a row of `width` columns in every format of `out`.
void emit_segment(const Step& step, const ValueRows& out, int row, const float* x, int first, int n, int width,
                  uint8_t* stage);

}  // namespace octavo::cpu
