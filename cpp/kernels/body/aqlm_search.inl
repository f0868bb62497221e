// Codes for groups of eight weights, as quantising to AQLM looks for them: the sum of one vector of each codebook with
// the smallest squared error, or nearly, of which half is compared: half a square of what is left over, and half a
// square of a vector less the product of the two. Of equal ones the first is taken.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

constexpr int kSearchBeams = 8;                     // sums that are kept after each codebook
constexpr int kNearestRows = kLanes == 16 ? 8 : 4;  // whose best vectors registers hold

// One codebook: the nearest vectors of kRows groups.
template <int kRows>
void find_nearest(const AqlmSearch& task, int64_t row) {
  constexpr int kGroup = kAqlmSearchGroup;
  float minus[kRows][kGroup];
  for (int i = 0; i < kRows * kGroup; ++i) minus[i / kGroup][i % kGroup] = -task.groups[row * kGroup + i];
  Vf best[kRows];
  Vi at[kRows];
  OCTAVO_UNROLL
  for (int r = 0; r < kRows; ++r) {
    best[r] = set1(__builtin_inff());
    at[r] = iota();
  }
  Vi index = iota();
  for (int v = 0; v < task.size; v += kLanes, index = addi(index, set1i(kLanes))) {
    Vf error[kRows];
    OCTAVO_UNROLL
    for (Vf& e : error) e = load(task.half_squares + v);
    OCTAVO_UNROLL
    for (int j = 0; j < kGroup; ++j) {
      const Vf line = load(task.books + j * task.size + v);
      OCTAVO_UNROLL
      for (int r = 0; r < kRows; ++r) error[r] = fma(line, set1(minus[r][j]), error[r]);
    }
    OCTAVO_UNROLL
    for (int r = 0; r < kRows; ++r) {
      at[r] = select_less(error[r], best[r], index, at[r]);
      best[r] = select_less(error[r], best[r], error[r], best[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float errors[kLanes];
    int32_t indices[kLanes];
    store(errors, best[r]);
    storei(indices, at[r]);
    int first = 0;
    for (int i = 1; i < kLanes; ++i)
      if (errors[i] < errors[first] || (errors[i] == errors[first] && indices[i] < indices[first])) first = i;
    task.codes[row + r] = indices[first];
  }
}

// The best of what was offered, in order.
struct BestSums {
  int n;  // at most
  float errors[kSearchBeams];
  int32_t indices[kSearchBeams];  // beam * size + vector

  explicit BestSums(int most) : n(most) {
    for (int i = 0; i < n; ++i) {
      errors[i] = __builtin_inff();
      indices[i] = 0;
    }
  }
  float worst() const { return errors[n - 1]; }
  void offer(float error, int32_t index) {
    if (!(error < worst())) return;
    int i = n - 1;
    for (; i > 0 && error < errors[i - 1]; --i) {
      errors[i] = errors[i - 1];
      indices[i] = indices[i - 1];
    }
    errors[i] = error;
    indices[i] = index;
  }
};

// A sum so far: its codes, and what it leaves of the group.
struct Beam {
  float rest[kAqlmSearchGroup];
  int32_t codes[kAqlmSearchBooks];
};

inline void offer_sums(BestSums& best, const AqlmSearch& task, int c, const Beam& beam, int number) {
  const float* book = task.books + int64_t{c} * kAqlmSearchGroup * task.size;
  const float* half_squares = task.half_squares + int64_t{c} * task.size;
  float minus[kAqlmSearchGroup], half = 0;
  for (int j = 0; j < kAqlmSearchGroup; ++j) {
    minus[j] = -beam.rest[j];
    half += minus[j] * minus[j] / 2;
  }
  for (int v = 0; v < task.size; v += kLanes) {
    Vf error = add(load(half_squares + v), set1(half));
    OCTAVO_UNROLL
    for (int j = 0; j < kAqlmSearchGroup; ++j) error = fma(load(book + j * task.size + v), set1(minus[j]), error);
    if (!any_less(error, set1(best.worst()))) continue;
    float errors[kLanes];
    store(errors, error);
    for (int i = 0; i < kLanes; ++i) best.offer(errors[i], number * task.size + v + i);
  }
}

// The sum of vector `at` and the others of its beam.
inline Beam extended(const Beam& beam, const AqlmSearch& task, int c, int at) {
  Beam next = beam;
  for (int j = 0; j < kAqlmSearchGroup; ++j)
    next.rest[j] -= task.books[(int64_t{c} * kAqlmSearchGroup + j) * task.size + at];
  next.codes[c] = at;
  return next;
}

void find_sum(const AqlmSearch& task, int64_t row) {
  Beam beams[kSearchBeams], next[kSearchBeams];
  int n_beams = 1;
  __builtin_memcpy(beams[0].rest, task.groups + row * kAqlmSearchGroup, sizeof(beams[0].rest));
  for (int c = 0; c < task.n_codebooks; ++c) {
    BestSums best(c + 1 < task.n_codebooks ? kSearchBeams : 1);
    for (int b = 0; b < n_beams; ++b) offer_sums(best, task, c, beams[b], b);
    n_beams = best.n;
    for (int b = 0; b < n_beams; ++b)
      next[b] = extended(beams[best.indices[b] / task.size], task, c, best.indices[b] % task.size);
    for (int b = 0; b < n_beams; ++b) beams[b] = next[b];
  }
  for (int c = 0; c < task.n_codebooks; ++c) task.codes[row * task.n_codebooks + c] = beams[0].codes[c];
}

void aqlm_search(const AqlmSearch& task) {
  int64_t row = 0;
  if (task.n_codebooks == 1) {
    for (; row + kNearestRows <= task.n; row += kNearestRows) find_nearest<kNearestRows>(task, row);
    for (; row < task.n; ++row) find_nearest<1>(task, row);
  }
  for (; row < task.n; ++row) find_sum(task, row);
}

}  // namespace
}  // namespace octavo
