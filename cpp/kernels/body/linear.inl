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
  // For the tile of tokens [token, token + n_tokens), which makes n_steps steps over the strip's `bytes` at `strip`.
  ReadAhead(const LinearTask& task, int token, int n_tokens, const uint8_t* strip, int64_t bytes, int64_t n_steps) {
    const uint8_t* next = strip + distance_ahead(bytes);
    at_ = next + bytes * token / task.n_tokens;
    end_ = next + bytes * (token + n_tokens) / task.n_tokens;
    step_bytes_ = ((end_ - at_) / n_steps + 63) / 64 * 64;
  }

  void step() {
    const uint8_t* until = at_ + step_bytes_ < end_ ? at_ + step_bytes_ : end_;
    for (; at_ < until; at_ += 64) __builtin_prefetch(at_);
  }

 private:
  const uint8_t *at_, *end_;
  int64_t step_bytes_;
};

}  // namespace
}  // namespace octavo
