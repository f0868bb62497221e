// The search for AQLM's codes against trying everything: the nearest vector, the nearest sum where all first vectors
// are kept, and better sums than choosing codebook by codebook; the same on all tables that fuse, and on any crew.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/check.h"
#include "graph/aqlm_search.h"
#include "kernel_tables.h"

using namespace octavo;

namespace {

constexpr int kGroup = kAqlmSearchGroup;

struct Problem {
  int n, n_codebooks, size;
  std::vector<float> groups, vectors;

  Problem(int rows, int codebooks, int vectors_of_each)
      : n(rows),
        n_codebooks(codebooks),
        size(vectors_of_each),
        groups(normal_floats(static_cast<size_t>(rows * kGroup), 5)),
        vectors(normal_floats(static_cast<size_t>(codebooks * vectors_of_each * kGroup), 6, 0.7f)) {}

  std::vector<int32_t> search(int n_threads) const {
    std::vector<int32_t> codes(static_cast<size_t>(n * n_codebooks), -1);
    search_aqlm_codes(codes.data(), groups.data(), n, vectors.data(), n_codebooks, size, Crew(n_threads));
    return codes;
  }
  // By one table, for a size that is a multiple of 16.
  std::vector<int32_t> search(const KernelTable& table) const {
    std::vector<float> books(vectors.size()), half_squares(static_cast<size_t>(n_codebooks * size));
    for (int c = 0; c < n_codebooks; ++c)
      for (int v = 0; v < size; ++v)
        for (int j = 0; j < kGroup; ++j) {
          const float x = vectors[static_cast<size_t>((c * size + v) * kGroup + j)];
          books[static_cast<size_t>((c * kGroup + j) * size + v)] = x;
          half_squares[static_cast<size_t>(c * size + v)] += x * x / 2;
        }
    std::vector<int32_t> codes(static_cast<size_t>(n * n_codebooks), -1);
    table.aqlm_search({codes.data(), groups.data(), books.data(), half_squares.data(), n, n_codebooks, size});
    return codes;
  }
  // The squared error of a row's codes.
  double error(int row, const int32_t* codes) const {
    double sum = 0;
    for (int j = 0; j < kGroup; ++j) {
      double rest = groups[static_cast<size_t>(row * kGroup + j)];
      for (int c = 0; c < n_codebooks; ++c) rest -= vectors[static_cast<size_t>((c * size + codes[c]) * kGroup + j)];
      sum += rest * rest;
    }
    return sum;
  }
  double error(const std::vector<int32_t>& codes) const {
    double sum = 0;
    for (int row = 0; row < n; ++row) sum += error(row, codes.data() + row * n_codebooks);
    return sum;
  }
};

// The smallest error of a row over all sums of two.
double smallest(const Problem& problem, int row) {
  double least = std::numeric_limits<double>::infinity();
  for (int32_t a = 0; a < problem.size; ++a)
    for (int32_t b = 0; b < problem.size; ++b) least = std::min(least, problem.error(row, std::vector{a, b}.data()));
  return least;
}

// Codebook by codebook, the nearest to what is left.
std::vector<int32_t> greedy(const Problem& problem) {
  std::vector<int32_t> codes;
  for (int row = 0; row < problem.n; ++row) {
    Problem left(0, 1, problem.size);
    left.groups.assign(problem.groups.begin() + row * kGroup, problem.groups.begin() + (row + 1) * kGroup);
    for (int c = 0; c < problem.n_codebooks; ++c) {
      const auto* book = problem.vectors.data() + c * problem.size * kGroup;
      left.vectors.assign(book, book + problem.size * kGroup);
      int32_t best = 0;
      for (int32_t v = 1; v < problem.size; ++v)
        if (left.error(0, &v) < left.error(0, &best)) best = v;
      for (int j = 0; j < kGroup; ++j)
        left.groups[static_cast<size_t>(j)] -= left.vectors[static_cast<size_t>(best * kGroup + j)];
      codes.push_back(best);
    }
  }
  return codes;
}

}  // namespace

TEST_CASE("the nearest vector of one codebook") {
  const Problem problem(67, 1, 48);
  for (const TestedTable& tested : tested_tables()) {
    CAPTURE(tested.name);
    const std::vector<int32_t> codes = problem.search(tested.kernels);
    for (int row = 0; row < problem.n; ++row) {
      double least = std::numeric_limits<double>::infinity();
      for (int32_t v = 0; v < problem.size; ++v) least = std::min(least, problem.error(row, &v));
      CAPTURE(row);
      CHECK(problem.error(row, codes.data() + row) < least + 1e-5);
    }
  }
}

TEST_CASE("the nearest sum of two where eight vectors are all that there are") {
  const Problem problem(50, 2, 8);
  const std::vector<int32_t> codes = problem.search(2);
  for (int row = 0; row < problem.n; ++row) {
    CAPTURE(row);
    CHECK(problem.error(row, codes.data() + row * 2) < smallest(problem, row) + 1e-5);
  }
}

TEST_CASE("sums of four are nearer than those of a choice after the other") {
  const Problem problem(200, 4, 64);
  const double chosen_one_by_one = problem.error(greedy(problem));
  for (const TestedTable& tested : tested_tables()) {
    CAPTURE(tested.name);
    CHECK(problem.error(problem.search(tested.kernels)) < 0.7 * chosen_one_by_one);
  }
}

TEST_CASE("every fused table and every crew finds the same") {
  for (const Problem& problem : {Problem(203, 1, 256), Problem(203, 3, 256)}) {
    const std::vector<int32_t> codes = problem.search(1);
    CHECK(problem.search(3) == codes);
    for (const TestedTable& tested : tested_tables()) {
      CAPTURE(tested.name);
      if (tested.kernels.isa != Isa::kScalar) CHECK(problem.search(tested.kernels) == codes);
    }
  }
}

TEST_CASE("of equal vectors the first is taken, and numbers that are none choose one that exists") {
  Problem problem(3, 1, 20);
  for (int v = 0; v < problem.size; ++v)
    std::copy_n(problem.groups.begin(), kGroup, problem.vectors.begin() + v * kGroup);
  CHECK(problem.search(1)[0] == 0);
  std::fill(problem.groups.begin(), problem.groups.end(), std::numeric_limits<float>::quiet_NaN());
  for (const int32_t code : problem.search(1)) CHECK((code >= 0 && code < problem.size));
}

TEST_CASE("codebooks that cannot be searched are refused") {
  int32_t code = 0;
  const float group[kGroup] = {};
  CHECK_THROWS_AS(search_aqlm_codes(&code, group, 1, group, 0, 1, Crew(1)), Error);
  CHECK_THROWS_AS(search_aqlm_codes(&code, group, 1, group, kAqlmSearchBooks + 1, 1, Crew(1)), Error);
}
