// Activation functions, alone and as gates: each is one expression on a vector.

#pragma once

#include "kernels/body/elementwise.inl"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

inline Vf sigmoid(Vf x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }

inline Vf tanh(Vf x) { return sub(set1(1.0f), div(set1(2.0f), add(exp(add(x, x)), set1(1.0f)))); }

// erf(z) as z * p(z^2), a minimax polynomial up to kErfEnd where erf is 1 to 6e-8; within 2.1e-7 everywhere.
constexpr float kErfEnd = 3.85f;
inline Vf erf(Vf z) {
  const Vf bounded = min(max(z, set1(-kErfEnd)), set1(kErfEnd));
  const Vf w = fma(mul(bounded, bounded), set1(2 / (kErfEnd * kErfEnd)), set1(-1.0f));
  const Vf ww = mul(w, w);
  Vf even = set1(0.00128101616f), odd = set1(-0.003309933f);
  even = fma(even, ww, set1(0.00266139931f));
  odd = fma(odd, ww, set1(-0.00343005406f));
  even = fma(even, ww, set1(0.0110611971f));
  odd = fma(odd, ww, set1(-0.020173341f));
  even = fma(even, ww, set1(0.0283350386f));
  odd = fma(odd, ww, set1(-0.0404165834f));
  even = fma(even, ww, set1(0.0564053357f));
  odd = fma(odd, ww, set1(-0.0733128339f));
  even = fma(even, ww, set1(0.0908190981f));
  odd = fma(odd, ww, set1(-0.110374689f));
  even = fma(even, ww, set1(0.136211544f));
  odd = fma(odd, ww, set1(-0.183301747f));
  even = fma(even, ww, set1(0.367284805f));
  const Vf p = fma(odd, w, even);
  return select_less(z, set1(-kErfEnd), set1(-1.0f), mul(bounded, p));
}

struct Silu {
  static Vf of(Vf x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }
};

struct Gelu {  // x * Phi(x)
  static Vf of(Vf x) {
    const Vf half = mul(x, set1(0.5f));
    return fma(half, erf(mul(x, set1(0.70710678118654752f))), half);
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
