// Norms, gates and rope against double precision, at every length of tail; inputs end where reading faults and
// outputs are followed by canaries. kUnit is the error of one rounding.
#include <cmath>
#include <functional>

#include "kernel_tables.h"

using namespace octavo;

namespace {

constexpr int kLongest = 576;
constexpr float kCanary = -777.0f;

using Bound = std::pair<double, double>;  // the exact value and how far a result may be from it

// Runs kernel(out, n) into canaries and compares with expected(i).
void check_out(const std::string& what, const std::string& table, int n, const std::function<void(float*)>& kernel,
               const std::function<Bound(int)>& expected) {
  std::vector<float> out(static_cast<size_t>(n) + 40, kCanary);
  kernel(out.data() + 8);
  int wrong = 0, touched = 0;
  double first_got = 0, first_expected = 0;
  for (int i = 0; i < n; ++i) {
    const auto [value, tolerance] = expected(i);
    const double got = out[static_cast<size_t>(i) + 8];
    if (std::fabs(got - value) <= tolerance) continue;
    if (wrong++ == 0) first_got = got, first_expected = value;
  }
  for (size_t i = 0; i < out.size(); ++i) touched += (i < 8 || i >= static_cast<size_t>(n) + 8) && out[i] != kCanary;
  INFO(what, " in ", table, " n=", n, " got ", first_got, " expected ", first_expected);
  CHECK(wrong == 0);
  CHECK(touched == 0);
}

// The same with the output over the first input: the bits must not change.
void check_in_place(const std::string& what, const std::string& table, const std::vector<float>& x,
                    const std::function<void(float* out, const float* x)>& kernel) {
  std::vector<float> apart(x.size()), over = x;
  kernel(apart.data(), x.data());
  kernel(over.data(), over.data());
  INFO(what, " in place in ", table, " n=", x.size());
  CHECK(same_bits(apart.data(), over.data(), x.size()));
}

// Two inputs of n floats at the ends of their pages.
struct Rows {
  PageEnd<float> a{kLongest}, b{kLongest};
  std::vector<float> x, y;

  void fill(int n, float spread) {
    x = normal_floats(static_cast<size_t>(n), static_cast<uint32_t>(n), spread);
    y = normal_floats(static_cast<size_t>(n), static_cast<uint32_t>(n) + 1000);
    a.put(x);
    b.put(y);
  }
  const float* first() const { return a.last(x.size()); }
  const float* second() const { return b.last(y.size()); }
};

double silu(double x) { return x / (1 + std::exp(-x)); }

// e^x is good to two units in the last place, the sum and the quotient to half of one; e^-x stops at e^88.3.
double silu_tolerance(double x) { return 6 * kUnit * std::fabs(silu(x)) + 1e-36; }

}  // namespace

TEST_CASE("kernels: add and mul are single float operations") {
  Rows rows;
  for (int n : row_lengths()) {
    rows.fill(n, 3);
    const float *a = rows.first(), *b = rows.second();
    for (const auto& [name, kernels] : tested_tables()) {
      check_out(
          "add", name, n, [&](float* out) { kernels.add(out, a, b, n); }, [&](int i) { return Bound(a[i] + b[i], 0); });
      check_out(
          "mul", name, n, [&](float* out) { kernels.mul(out, a, b, n); }, [&](int i) { return Bound(a[i] * b[i], 0); });
      check_in_place("add", name, rows.x, [&](float* out, const float* x) { kernels.add(out, x, b, n); });
      check_in_place("mul", name, rows.x, [&](float* out, const float* x) { kernels.mul(out, x, b, n); });
    }
  }
}

TEST_CASE("kernels: rms_norm") {
  Rows rows;
  for (int n : row_lengths()) {
    rows.fill(n, 2);
    const float *x = rows.first(), *weight = rows.second();
    const float eps = 1e-5f;
    double squares = 0;
    for (int i = 0; i < n; ++i) squares += double{x[i]} * x[i];
    const double scale = 1 / std::sqrt(squares / n + double{eps});
    const double tolerance = (n / 4.0 + 8) * kUnit;  // relative: the sum of squares has no cancellation
    for (const auto& [name, kernels] : tested_tables()) {
      check_out(
          "rms_norm", name, n, [&](float* out) { kernels.rms_norm(out, x, weight, n, eps); },
          [&](int i) {
            const double value = x[i] * scale * weight[i];
            return Bound(value, tolerance * std::fabs(value));
          });
      check_in_place("rms_norm", name, rows.x,
                     [&](float* out, const float* in) { kernels.rms_norm(out, in, weight, n, eps); });
    }
  }
}

TEST_CASE("kernels: rms_norm of zeros and of a large row") {
  for (const auto& [name, kernels] : tested_tables()) {
    INFO(name);
    std::vector<float> x(33, 0.0f), weight(33, 2.0f), out(33, kCanary);
    kernels.rms_norm(out.data(), x.data(), weight.data(), 33, 1e-6f);
    CHECK(out == x);
    x.assign(33, 1e18f);
    kernels.rms_norm(out.data(), x.data(), weight.data(), 33, 1e-6f);
    for (float value : out) CHECK(value == doctest::Approx(2.0).epsilon(1e-6));
  }
}

TEST_CASE("kernels: layer_norm") {
  Rows rows;
  for (int n : row_lengths()) {
    rows.fill(n, 2);
    for (float& v : rows.x) v += 3;  // a mean to take away
    rows.a.put(rows.x);
    const float *x = rows.first(), *weight = rows.second();
    double mean = 0, variance = 0;
    for (int i = 0; i < n; ++i) mean += double{x[i]} / n;
    for (int i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean) / n;
    const float eps = 1e-5f;
    const double scale = 1 / std::sqrt(variance + double{eps});
    for (const auto& [name, kernels] : tested_tables())
      for (const float* bias : {static_cast<const float*>(nullptr), weight}) {
        const auto value = [&](int i) { return (x[i] - mean) * scale * weight[i] + (bias == nullptr ? 0 : bias[i]); };
        // The mean is good to a few roundings of values near 3, which the scale makes larger or smaller.
        const double spread = (n / 4.0 + 40) * kUnit * (1 + 8 * scale);
        check_out(
            "layer_norm", name, n, [&](float* out) { kernels.layer_norm(out, x, weight, bias, n, eps); },
            [&](int i) { return Bound(value(i), spread * (std::fabs(double{weight[i]}) + std::fabs(value(i)))); });
        check_in_place("layer_norm", name, rows.x,
                       [&](float* out, const float* in) { kernels.layer_norm(out, in, weight, bias, n, eps); });
      }
  }
}

TEST_CASE("kernels: every activation, alone and as a gate") {
  const double root = std::sqrt(2 / 3.14159265358979323846);
  const std::function<double(double)> exact[kActivationCount] = {
      silu,
      [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); },
      [&](double x) { return 0.5 * x * (1 + std::tanh(root * (x + 0.044715 * x * x * x))); },
      [](double x) { return x / (1 + std::exp(-1.702 * x)); },
      [](double x) { return std::max(x, 0.0); },
      [](double x) { return std::max(x, 0.0) * std::max(x, 0.0); },
      [](double x) { return std::tanh(x); },
      [](double x) { return 1 / (1 + std::exp(-x)); },
  };
  Rows rows;
  for (int n : row_lengths())
    for (float spread : {0.5f, 6.0f}) {
      rows.fill(n, spread);
      const float *x = rows.first(), *up = rows.second();
      for (const auto& [name, kernels] : tested_tables())
        for (size_t f = 0; f < kActivationCount; ++f) {
          const auto tolerance = [&](double v, double at) {
            return 16 * kUnit * (std::fabs(v) + std::fabs(at) / 4 + 0.1);
          };
          const std::string what = "activation " + std::to_string(f);
          check_out(
              what, name, n, [&](float* out) { kernels.activate[f](out, x, n); },
              [&](int i) { return Bound(exact[f](x[i]), tolerance(exact[f](x[i]), x[i])); });
          check_out(
              what + " as a gate", name, n, [&](float* out) { kernels.activate_mul[f](out, x, up, n); },
              [&](int i) {
                const double value = exact[f](x[i]);
                return Bound(value * up[i], tolerance(value, x[i]) * (std::fabs(double{up[i]}) + 1e-3));
              });
        }
    }
}

TEST_CASE("kernels: scale and soft_cap") {
  Rows rows;
  for (int n : row_lengths()) {
    rows.fill(n, 40);
    const float* x = rows.first();
    for (const auto& [name, kernels] : tested_tables()) {
      check_out(
          "scale", name, n, [&](float* out) { kernels.scale(out, x, 0.3f, n); },
          [&](int i) { return Bound(x[i] * 0.3f, 0); });
      check_out(
          "soft_cap", name, n, [&](float* out) { kernels.soft_cap(out, x, 30.0f, n); },
          [&](int i) { return Bound(30 * std::tanh(x[i] / 30.0), 1e-5); });
    }
  }
}

TEST_CASE("kernels: silu and silu_mul") {
  Rows rows;
  for (int n : row_lengths())
    for (float spread : {1.0f, 40.0f}) {
      rows.fill(n, spread);
      const float *x = rows.first(), *up = rows.second();
      for (const auto& [name, kernels] : tested_tables()) {
        check_out(
            "silu", name, n, [&](float* out) { kernels.activate[0](out, x, n); },
            [&](int i) { return Bound(silu(x[i]), silu_tolerance(x[i])); });
        check_out(
            "silu_mul", name, n, [&](float* out) { kernels.activate_mul[0](out, x, up, n); },
            [&](int i) {
              const double value = silu(x[i]) * up[i];
              return Bound(value, silu_tolerance(x[i]) * std::fabs(double{up[i]}) + kUnit * std::fabs(value));
            });
        check_in_place("silu", name, rows.x, [&](float* out, const float* in) { kernels.activate[0](out, in, n); });
        check_in_place("silu_mul", name, rows.x,
                       [&](float* out, const float* in) { kernels.activate_mul[0](out, in, up, n); });
      }
    }
}

TEST_CASE("kernels: silu at its ends") {
  for (const auto& [name, kernels] : tested_tables()) {
    INFO(name);
    std::vector<float> x = {0.0f, -0.0f, 100.0f, 3e38f, -1000.0f, -3e38f, NAN}, out(x.size());
    kernels.activate[0](out.data(), x.data(), static_cast<int>(x.size()));
    CHECK(out[0] == 0.0f);
    CHECK(out[1] == 0.0f);
    CHECK(out[2] == 100.0f);
    CHECK(out[3] == 3e38f);
    CHECK(std::fabs(out[4]) < 1e-34f);
    CHECK(std::fabs(out[5]) < 2.0f);  // -3e38 / e^88.3
    CHECK(std::isnan(out[6]));
  }
}

TEST_CASE("kernels: rope") {
  PageEnd<float> cosines(kLongest), sines(kLongest);
  for (int half : row_lengths()) {
    const auto count = static_cast<size_t>(half);
    const auto x = normal_floats(2 * count, static_cast<uint32_t>(half));
    std::vector<float> c(count), s(count);
    for (size_t i = 0; i < count; ++i) c[i] = std::cos(0.7f * i), s[i] = std::sin(0.7f * i);
    const float *cos = cosines.put(c), *sin = sines.put(s);
    const auto low = [&](int i) { return Bound(double{x[i]} * c[i] - double{x[i + half]} * s[i], 0); };
    const auto high = [&](int i) { return Bound(double{x[i + half]} * c[i] + double{x[i]} * s[i], 0); };
    for (const auto& [name, kernels] : tested_tables())
      check_out(
          "rope", name, 2 * half,
          [&](float* out) {
            std::memcpy(out, x.data(), x.size() * sizeof(float));
            kernels.rope(out, cos, sin, half);
          },
          [&](int i) {
            const int pair = i % half;
            const double terms = std::fabs(double{x[pair]}) + std::fabs(double{x[pair + half]});
            return Bound(i < half ? low(pair).first : high(pair).first, 2 * kUnit * terms);
          });
  }
}
