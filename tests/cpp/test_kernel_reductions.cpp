// The sampler's reductions: argmax and exp_sum.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel_tables.h"

using namespace octavo;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// First index of the largest number; 0 when there is none.
int expected_argmax(const std::vector<float>& x) {
  int best = -1;
  for (size_t i = 0; i < x.size(); ++i)
    if (!std::isnan(x[i]) && (best < 0 || x[i] > x[static_cast<size_t>(best)])) best = static_cast<int>(i);
  return std::max(best, 0);
}

void check_argmax(const std::vector<float>& x) {
  const PageEnd<float> input(x);
  for (const auto& [name, kernels] : tested_tables()) {
    INFO(name, " n=", x.size());
    CHECK(kernels.argmax(input.data(), static_cast<int>(x.size())) == expected_argmax(x));
  }
}

// Few distinct values, so that most rows have ties.
std::vector<float> tied_floats(int n, uint32_t seed, double nans) {
  std::mt19937 random(seed);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& value : x) {
    value = static_cast<float>(random() % 4) - 8.0f;
    if (static_cast<double>(random()) < nans * 4294967296.0) value = kNan;
  }
  return x;
}

}  // namespace

TEST_CASE("kernels: argmax of random rows and ties") {
  for (int n : row_lengths()) {
    check_argmax(normal_floats(static_cast<size_t>(n), static_cast<uint32_t>(n)));
    for (uint32_t seed = 0; seed < 4; ++seed) check_argmax(tied_floats(n, seed, 0));
  }
  check_argmax(normal_floats(49152, 1));
  check_argmax(tied_floats(49152, 1, 0));
}

TEST_CASE("kernels: argmax puts the largest in every place") {
  for (int n : {1, 3, 15, 16, 17, 47, 70})
    for (int place = 0; place < n; ++place) {
      std::vector<float> x(static_cast<size_t>(n), -3.0f);
      x[static_cast<size_t>(place)] = -2.0f;
      check_argmax(x);
      x[static_cast<size_t>(n - 1)] = -2.0f;
      check_argmax(x);
      x[static_cast<size_t>(place)] = kInf;
      check_argmax(x);
    }
}

TEST_CASE("kernels: a NaN never wins argmax, and minus infinity is a value") {
  for (int n : row_lengths()) {
    const auto count = static_cast<size_t>(n);
    for (double nans : {0.1, 0.5, 0.95}) check_argmax(tied_floats(n, static_cast<uint32_t>(n), nans));
    check_argmax(std::vector<float>(count, kNan));
    check_argmax(std::vector<float>(count, -kInf));
    for (size_t place : {size_t{0}, count / 2, count - 1}) {
      std::vector<float> x(count, -kInf);
      x[place] = -3e38f;
      check_argmax(x);
      x[place] = kNan;
      check_argmax(x);
      x.assign(count, kNan);
      x[place] = -kInf;
      check_argmax(x);
    }
  }
}

// An element's error: e^t is good to two units in the last place and t = (x - max) * scale has two roundings.
TEST_CASE("kernels: exp_sum") {
  PageEnd<float> input(576);
  for (int n : row_lengths())
    for (float scale : {1.0f, 0.35f, 4.0f}) {
      const auto values = normal_floats(static_cast<size_t>(n), static_cast<uint32_t>(n), 5);
      const float* x = input.put(values);
      const float max = *std::max_element(values.begin(), values.end());
      for (const auto& [name, kernels] : tested_tables()) {
        INFO(name, " n=", n, " scale=", scale);
        std::vector<float> out(values.size() + 20, -777.0f), over = values;
        const float sum = kernels.exp_sum(out.data(), x, n, max, scale);
        double exact = 0, tolerance = 0;
        int wrong = 0;
        for (size_t i = 0; i < values.size(); ++i) {
          const double t = (double{values[i]} - double{max}) * double{scale}, e = std::exp(t);
          const double allowed = (4 + 2 * std::fabs(t)) * kUnit * e + 1.3e-38;  // below e^-87.3 it is zero
          exact += e;
          tolerance += allowed;
          wrong += !(std::fabs(double{out[i]} - e) <= allowed);
        }
        CHECK(wrong == 0);
        CHECK(std::fabs(double{sum} - exact) <= tolerance + (n / 8.0 + 20) * kUnit * exact);
        CHECK(std::count(out.begin() + n, out.end(), -777.0f) == 20);
        const float unwritten = kernels.exp_sum(nullptr, x, n, max, scale);
        const float in_place = kernels.exp_sum(over.data(), over.data(), n, max, scale);
        CHECK(same_bits(&sum, &unwritten, 1));
        CHECK(same_bits(&sum, &in_place, 1));
        CHECK(same_bits(out.data(), over.data(), over.size()));
      }
    }
}

TEST_CASE("kernels: e^0 is exactly one and e^-inf exactly zero") {
  for (const auto& [name, kernels] : tested_tables())
    for (int n : row_lengths()) {
      INFO(name, " n=", n);
      const std::vector<float> equal(static_cast<size_t>(n), 17.25f);
      std::vector<float> out(equal.size());
      CHECK(kernels.exp_sum(out.data(), equal.data(), n, 17.25f, 0.7f) == static_cast<float>(n));
      CHECK(out == std::vector<float>(equal.size(), 1.0f));
      std::vector<float> masked(equal.size(), -kInf);
      masked[static_cast<size_t>(n / 2)] = 3.0f;
      CHECK(kernels.exp_sum(out.data(), masked.data(), n, 3.0f, 1.0f) == 1.0f);
      CHECK(std::count(out.begin(), out.end(), 0.0f) == n - 1);
    }
}
