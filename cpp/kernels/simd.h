// One vector type per ISA with the same operations, so that each kernel body is written once.
// Included by the units in isa/ only; everything has internal linkage.
//
//   kLanes           floats per vector (4, 8 or 16; 16 weight rows are kVecs = 16 / kLanes vectors)
//   Vf / Vi          float and int32 lanes
#pragma once

#include <cstdint>

#if defined(OCTAVO_SIMD_AVX512)
#include "kernels/simd_avx512.h"
#elif defined(OCTAVO_SIMD_AVX2)
#include "kernels/simd_avx2.h"
#else
#include "kernels/simd_sse2.h"
#endif

// Tiles live in registers only when every loop over them is gone.
#ifdef OCTAVO_EMULATE_AVX512
#define OCTAVO_UNROLL  // the emulation has no registers to fill, and would compile for minutes
#else
#define OCTAVO_UNROLL _Pragma("GCC unroll 16")
#endif

namespace octavo {
namespace {

constexpr int kVecs = 16 / kLanes;

// A number that the compiler knows.
template <int kValue>
struct Size {
  static constexpr int value = kValue;
};

// Fetches a line of memory as far as the second level of cache. The first waits for few lines at a time (Zen 4: 24,
// which is 14 GB/s at 110 ns), so nothing that is read ahead comes from memory straight into it.
inline void fetch_far(const void* line) { __builtin_prefetch(line, 0, 2); }

inline Vf bf16_even(const uint16_t* p) {
  Vf even, odd;
  load_bf16_pairs(p, even, odd);
  return even;
}
inline Vf bf16_odd(const uint16_t* p) {
  Vf even, odd;
  load_bf16_pairs(p, even, odd);
  return odd;
}

#ifndef OCTAVO_SIMD_AVX512
// reduce(v[r]) for each vector. out: a whole vector at least, though not all is written.
template <int kRows>
inline void reduce_add_each(float* out, const Vf (&v)[kRows]) {
  for (int r = 0; r < kRows; ++r) out[r] = reduce_add(v[r]);
}
template <int kRows>
inline void reduce_max_each(float* out, const Vf (&v)[kRows]) {
  for (int r = 0; r < kRows; ++r) out[r] = reduce_max(v[r]);
}
#endif

// e^x: 2^n * p(r) with a degree-6 polynomial on |r| <= ln2/2 (about 1 ulp). exp(0) is exactly 1 and
// anything below -87.3, -inf included, exactly 0. (A call would spill all registers.)
[[gnu::always_inline]] inline Vf exp(Vf x) {
  const Vf bounded = min(max(x, set1(-87.3f)), set1(88.3f));
  const Vi n = round_to_int(mul(bounded, set1(1.44269504088896341f)));
  const Vf nf = to_float(n);
  Vf r = fma(nf, set1(-0.693359375f), bounded);
  r = fma(nf, set1(2.12194440e-4f), r);
  Vf p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set1(1.0f));
  return select_less(x, set1(-87.3f), zero(), mul(p, pow2(n)));
}

}  // namespace
}  // namespace octavo
