// What every call that multiplies by weights shares: a chunk of output rows at a time, over tiles of tokens.
#pragma once

#include <algorithm>
#include <span>

#include "graph/cpu_ops.h"
#include "quant/planes.h"

namespace octavo::cpu {

inline constexpr int kTokenTile =
    48;  // the most at once: a multiple of the 4, 6 and 8 tokens that kernels take at once
inline constexpr int kMaxChunkStrips = 16;  // 256 rows: one kQ8x256 group
inline constexpr int64_t kTileFloats = int64_t{kTokenTile} * 1024;

// Whether tokens are so many that each thread takes its own.
constexpr bool are_many(int n_tokens, int n_threads) { return n_tokens >= 32 * n_threads; }

struct TokenRange {
  int begin, end;
  static TokenRange part(int n_tokens, int index, int parts) {
    return {n_tokens * index / parts, n_tokens * (index + 1) / parts};
  }
};

// The part of a linear's output that one thread computes at a time.
struct Chunk {
  const LinearPart* part;
  int first_strip;
  int strips;
  TokenRange tokens;
  const uint8_t* weights;        // null: aqlm_dot reads the codes
  bool unpacked = false;         // weights: a panel of LinearKernel::unpack
  Upcoming* upcoming = nullptr;  // what is fetched along the way, or null
  float* second = nullptr;       // kTileFloats, for what tables give for the second half; null: part->sums has both

  int first() const { return first_strip * kStrip; }
  int width() const { return strips * kStrip; }
  bool adds_halves() const { return part->weight->by_table && second == nullptr; }
  int valid() const { return std::min(width(), static_cast<int>(part->weight->n) - first()); }
  // How many tokens are multiplied at once, so that their outputs fit into kTileFloats.
  int token_tile() const { return std::clamp(static_cast<int>(kTileFloats / width()), 1, kTokenTile); }
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
// The same for one part: codes take as many rows at once as there are threads for, so that a table is made once, or a
// codebook stays in the cache.
int chunk_strips(const Step& step, const LinearPart& part, int strips, int n_threads);
// The same for matrices of one shape that are cut alike; where their kinds differ, they fit into a panel.
int common_strips(const Step& step, std::span<const LinearPart> parts, int strips, int n_threads);
int chunks_of(const LinearPart& part, int strips);

// Bytes of `panel` that open_chunk needs for this part.
int64_t panel_bytes(const LinearPart& part);
// The chunk of at most `strips` strips from strip `first` on. panel: null where tables have been looked up before.
Chunk open_chunk(const Step& step, const LinearPart& part, int first, int strips, const TokenRange& tokens,
                 uint8_t* panel);

// out[i] = activation row i times the chunk's weights, plus its bias.
void multiply(float* out, int64_t out_stride, const ActRows& act, const Step& step, const Chunk& chunk, int n);

// The rows that a chunk multiplies, or that hold its halves' sums, from a token on.
ActRows rows_from(const Step& step, const ActTargets& in, const Chunk& chunk, int token);
// The same for n tokens of a part that may be refined. tile: (2 * n, chunk.width()).
void multiply_part(float* out, int64_t out_stride, const ActTargets& in, int token, const Step& step,
                   const Chunk& chunk, int n, float* tile);
// Bounds of a chunk's products. tile: kTileFloats.
void screen_chunk(const Step& step, const OpCall& call, const ActTargets& in, const Chunk& chunk, float* tile);

// Columns [first, first + n) of rows of `width` columns.
struct Segment {
  int row, n_rows;
  const float* x;    // (n_rows, n) with the stride below
  int64_t x_stride;  // floats
  int first, n, width;
};
// Writes them in every format of `out`.
void emit_segment(const Step& step, const ValueRows& out, const Segment& segment);
// The same for a chunk's columns; x: (n_rows, chunk.width()).
void emit_rows(const Step& step, const ValueRows& out, int row, int n_rows, const float* x, const Chunk& chunk);

}  // namespace octavo::cpu
