// What the linears share.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// What the chains of outputs row..row+kLanes start from.
inline Vf initial(const LinearTask& task, int row) { return task.bias == nullptr ? zero() : load(task.bias + row); }

// Bytes from one strip to the next of a format with to_integers.
inline int64_t integer_strip_bytes(const LinearTask& task) {
  return (int64_t{task.k} / 256 * 16 * task.format->block_bytes + 63) / 64 * 64;
}

// Where the weights to fetch lie while a strip of `bytes` is computed, from its own.
constexpr int64_t distance_ahead(int64_t bytes) {
  constexpr int64_t kLeast = 8192;  // as far as memory takes to answer
  return bytes > kLeast ? bytes : kLeast;
}

// Reads ahead: while a strip's tokens are computed tile by tile, the weights after it come from memory, a few cache
// lines at every step of every tile. (The hardware's prefetchers stop at 4 KiB boundaries.)
class ReadAhead {
 public:
  // For the tiles of n_tokens, which make n_steps steps each over the `bytes` at `strips`.
  ReadAhead(const uint8_t* strips, int64_t bytes, int n_steps, int n_tokens)
      : at_(strips + distance_ahead(bytes)),
        until_(at_),
        end_(at_ + bytes),
        token_bytes_(static_cast<int>(bytes) / (n_steps * n_tokens) + 1) {}

  void step(int n_tokens) {
    until_ += n_tokens * token_bytes_;
    if (until_ > end_) until_ = end_;
    for (; at_ < until_; at_ += 64) __builtin_prefetch(at_);
  }

 private:
  const uint8_t *at_, *until_, *end_;
  int token_bytes_;
};

}  // namespace
}  // namespace octavo
