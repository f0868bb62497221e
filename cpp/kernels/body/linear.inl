// What the linears share.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// What the chains of outputs row..row+kLanes start from.
inline Vf initial(const LinearTask& task, int row) { return task.bias == nullptr ? zero() : load(task.bias + row); }

// f(token, size) for tiles of all tokens, size a constant of kMost, 4, 2 or 1: as large as they can be, but rather two
// of 4 than one of 6 and one of 2, which is hardly faster.
template <int kMost, class F>
inline void for_tiles(int n_tokens, F f) {
  int token = 0;
  for (int left; (left = n_tokens - token) > 0;) {
    if (left >= kMost && left != 8) {
      f(token, Size<kMost>());
      token += kMost;
    } else if (left >= 4) {
      f(token, Size<4>());
      token += 4;
    } else if (left >= 2) {
      f(token, Size<2>());
      token += 2;
    } else {
      f(token, Size<1>());
      token += 1;
    }
  }
}

// Bytes from one strip to the next of a format with to_integers.
inline int64_t integer_strip_bytes(const LinearTask& task) {
  return (int64_t{task.k} / 256 * 16 * task.format->block_bytes + 63) / 64 * 64;
}

// Where the weights to fetch lie while a strip of `bytes` is computed, from its own.
constexpr int64_t distance_ahead(int64_t bytes) {
  constexpr int64_t kLeast = 8192;  // as far as memory takes to answer
  return bytes > kLeast ? bytes : kLeast;
}

// While the line of weights at `at` is read: fetches the one `distance` after it; and one just after it, which was
// fetched so before, into the first level of cache.
inline void fetch_weights(const uint8_t* at, int64_t distance) {
  constexpr int64_t kNear = 1024;
  fetch_far(at + distance);
  __builtin_prefetch(at + kNear);
}

// Fetches what is due after one more line of weights, as far as the second level of cache.
inline void fetch_upcoming(Upcoming& upcoming) {
  if (upcoming.next == upcoming.end) return;
  upcoming.due += upcoming.rate;
  if (upcoming.due < Upcoming::kWeightLines) return;
  upcoming.due -= Upcoming::kWeightLines;
  fetch_far(*upcoming.next + upcoming.fetched * 64);
  if (++upcoming.fetched < upcoming.lines) return;
  upcoming.fetched = 0;
  ++upcoming.next;
}

// Reads ahead: while a strip's tokens are computed tile by tile, the weights after it come from memory, a few cache
// lines at every step of every tile. (The hardware's prefetchers stop at 4 KiB boundaries.)
class ReadAhead {
 public:
  // For the tiles of a task's tokens, which make n_steps steps each over the `bytes` at `strips`. One strip for one
  // token is a strip by itself, of which the rest is read ahead.
  ReadAhead(const LinearTask& task, const uint8_t* strips, int64_t bytes, int n_steps)
      : upcoming_(task.upcoming), token_bytes_(static_cast<int>(bytes) / (n_steps * task.n_tokens) + 1) {
    const bool alone = task.n_tokens * task.n_strips == 1;
    distance_ = alone ? kOwnAhead : distance_ahead(bytes);
    at_ = until_ = strips;
    end_ = strips + bytes - (alone ? kOwnAhead : 0);
  }

  void step(int n_tokens) {
    until_ += n_tokens * token_bytes_;
    if (until_ > end_) until_ = end_;
    for (; at_ < until_; at_ += 64) {
      fetch_weights(at_, distance_);
      if (upcoming_ != nullptr) fetch_upcoming(*upcoming_);
    }
  }

 private:
  static constexpr int64_t kOwnAhead = 2048;

  const uint8_t *at_, *until_, *end_;
  int64_t distance_;
  Upcoming* upcoming_;
  int token_bytes_;
};

}  // namespace
}  // namespace octavo
