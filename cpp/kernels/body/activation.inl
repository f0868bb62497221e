// Activation functions, alone and as gates: each is one expression on a vector.

#pragma once

#include "kernels/body/elementwise.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

inline Vf sigmoid(Vf x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }

inline Vf tanh(Vf x) { return sub(set1(1.0f), div(set1(2.0f), add(exp(add(x, x)), set1(1.0f)))); }

// erfc(z) for z >= 0 by the Chebyshev fit of Numerical Recipes (Press et al., 6.2): relative error below 1.2e-7.
inline Vf erfc_positive(Vf z) {
  const Vf t = div(set1(1.0f), fma(z, set1(0.5f), set1(1.0f)));
  Vf p = set1(0.17087277f);
  for (float c : {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f, 0.09678418f, 0.37409196f,
                  1.00002368f, -1.26551223f})
    p = fma(p, t, set1(c));
  return mul(t, exp(sub(p, mul(z, z))));
}

struct Silu {
  static Vf of(Vf x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }
};

struct Gelu {  // x * Phi(x)
  static Vf of(Vf x) {
    const Vf tail = mul(set1(0.5f), erfc_positive(mul(abs(x), set1(0.70710678118654752f))));
    return mul(x, select_less(x, zero(), tail, sub(set1(1.0f), tail)));
  }
};

struct GeluTanh {
  static Vf of(Vf x) {
    const Vf cubic = fma(mul(mul(x, x), x), set1(0.044715f), x);
    return mul(x, sigmoid(mul(cubic, set1(1.59576912160573071f))));  // 2 sqrt(2 / pi)
  }
};

struct QuickGelu {
  static Vf of(Vf x) { return mul(x, sigmoid(mul(x, set1(1.702f)))); }
};

struct Relu {
  static Vf of(Vf x) { return max(x, zero()); }
};

struct Relu2 {
  static Vf of(Vf x) { return mul(max(x, zero()), max(x, zero())); }
};

struct Tanh {
  static Vf of(Vf x) { return tanh(x); }
};

struct Sigmoid {
  static Vf of(Vf x) { return sigmoid(x); }
};

template <class F>
void activate(float* out, const float* x, int n) {
  map_row(out, x, n, [](int, Vf v) { return F::of(v); });
}

template <class F>
void activate_mul(float* out, const float* gate, const float* up, int n) {
  map_row(out, gate, n, [&](int i, Vf v) { return mul(F::of(v), load_at(up, i, n)); });
}

void soft_cap(float* out, const float* x, float cap, int n) {
  map_row(out, x, n, [&](int, Vf v) { return mul(set1(cap), tanh(div(v, set1(cap)))); });
}

}  // namespace
}  // namespace octavo
