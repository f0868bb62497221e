#include "graph/aqlm_search.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/check.h"
#include "kernels/kernels.h"

namespace octavo {
namespace {

constexpr int kGroup = kAqlmSearchGroup;
constexpr int64_t kRowsAtOnce = 64;
constexpr int kVectorsAtOnce = 16;

// Codebooks by components, as AqlmSearch wants them. What fills them up is infinitely far from everything.
struct Books {
  int size;
  std::vector<float> components, half_squares;

  Books(const float* vectors, int n_codebooks, int given)
      : size((given + kVectorsAtOnce - 1) / kVectorsAtOnce * kVectorsAtOnce),
        components(static_cast<size_t>(n_codebooks) * kGroup * static_cast<size_t>(size)),
        half_squares(static_cast<size_t>(n_codebooks) * static_cast<size_t>(size),
                     std::numeric_limits<float>::infinity()) {
    for (int c = 0; c < n_codebooks; ++c)
      for (int v = 0; v < given; ++v) put(c, v, vectors + (int64_t{c} * given + v) * kGroup);
  }

 private:
  void put(int c, int v, const float* vector) {
    float squares = 0;
    for (int j = 0; j < kGroup; ++j) {
      components[(static_cast<size_t>(c) * kGroup + static_cast<size_t>(j)) * static_cast<size_t>(size) +
                 static_cast<size_t>(v)] = vector[j];
      squares += vector[j] * vector[j];
    }
    half_squares[static_cast<size_t>(c) * static_cast<size_t>(size) + static_cast<size_t>(v)] = squares / 2;
  }
};

}  // namespace

void search_aqlm_codes(int32_t* codes, const float* groups, int64_t n, const float* vectors, int n_codebooks, int size,
                       const Crew& crew) {
  OCTAVO_CHECK(n_codebooks >= 1 && n_codebooks <= kAqlmSearchBooks && size >= 1, n_codebooks, " codebooks of ", size,
               " vectors cannot be searched: there are 1 to ", kAqlmSearchBooks, ".");
  const Books books(vectors, n_codebooks, size);
  Counter counter;
  run_job(crew, [&](const Worker&) {
    for (int64_t row; (row = counter.take() * kRowsAtOnce) < n;)
      kernels().aqlm_search({.codes = codes + row * n_codebooks,
                             .groups = groups + row * kGroup,
                             .books = books.components.data(),
                             .half_squares = books.half_squares.data(),
                             .n = std::min(kRowsAtOnce, n - row),
                             .n_codebooks = n_codebooks,
                             .size = books.size});
  });
}

}  // namespace octavo
