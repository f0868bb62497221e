// Linears over 4, 5 and 8-bit planes with a scale per 32, times kQ8x32 activations. Inside a group the dot
// is an exact integer; groups follow each other in one float chain:
//   acc = fma(float(dot), d_weight * d_act, acc), then with minima acc = fma(m_weight, s_act, acc).

namespace octavo {
namespace {

inline int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

inline Vi broadcast4(const uint8_t* p) {
  int32_t dword;
  __builtin_memcpy(&dword, p, sizeof(dword));
  return set1i(dword);
}

// A strip of one format: where its parts lie, and how a group of kLanes rows multiplies.
template <int kQuantBytes, bool kFifthBit, bool kHasMin, int kZeroPoint>
struct Planes32 {
  static constexpr bool kMin = kHasMin;
  static constexpr int kZero = kZeroPoint;
  static int64_t bits(int64_t groups) { return groups * kQuantBytes; }
  static int64_t scales(int64_t groups) { return bits(groups) + (kFifthBit ? groups * 64 : 0); }
  static int64_t minima(int64_t groups) { return scales(groups) + groups * 32; }
  static int64_t strip_bytes(int64_t groups) { return align64(minima(groups) + (kHasMin ? groups * 32 : 0)); }
};

template <bool kFifthBit, bool kHasMin, int kZeroPoint>
struct Nibbles : Planes32<256, kFifthBit, kHasMin, kZeroPoint> {
  using Base = Planes32<256, kFifthBit, kHasMin, kZeroPoint>;

  template <int kTokens>
  static void dot(Vi (&sums)[kTokens], const uint8_t* strip, int64_t groups, int64_t g, int vec,
                  const uint8_t* const (&act)[kTokens]) {
    const uint8_t* lines = strip + g * 256 + vec * kLanes * 4;
    const uint8_t* bits = strip + Base::bits(groups) + g * 64 + vec * (kLanes / 2);
    Partial low[kTokens], high[kTokens];
    for (int t = 0; t < kTokens; ++t) low[t] = high[t] = set1i(0);
    for (int j = 0; j < 4; ++j) {
      const Vi line = load_bytes(lines + j * 64);
      Vi w_low = low_nibbles(line), w_high = high_nibbles(line);
      if constexpr (kFifthBit) {
        w_low = or_bytes(w_low, load_fifth_bits(bits + j * 8));
        w_high = or_bytes(w_high, load_fifth_bits(bits + (j + 4) * 8));
      }
      for (int t = 0; t < kTokens; ++t) {
        low[t] = dot_partial(low[t], w_low, broadcast4(act[t] + g * 32 + j * 4));
        high[t] = dot_partial(high[t], w_high, broadcast4(act[t] + g * 32 + 16 + j * 4));
      }
    }
    for (int t = 0; t < kTokens; ++t) sums[t] = addi(sums[t], addi(dot_finish(low[t]), dot_finish(high[t])));
  }
};

struct Bytes : Planes32<512, false, false, kSignedBias> {
  template <int kTokens>
  static void dot(Vi (&sums)[kTokens], const uint8_t* strip, int64_t, int64_t g, int vec,
                  const uint8_t* const (&act)[kTokens]) {
    const uint8_t* lines = strip + g * 512 + vec * kLanes * 4;
    for (int j = 0; j < 8; ++j) {
      const SignedWeights w = prepare_signed(load_bytes(lines + j * 64));
      for (int t = 0; t < kTokens; ++t) sums[t] = dot_signed(sums[t], w, broadcast4(act[t] + g * 32 + j * 4));
    }
  }
};

// kTokens tokens by one vector of rows.
template <class Planes, int kTokens>
void q8x32_tile(const LinearTask& task, int token, int strip_index, int vec) {
  const int64_t groups = task.k / 32;
  const Q8x32Layout layout(task.k);
  const uint8_t* strip = task.weights + strip_index * Planes::strip_bytes(groups);
  const auto* scales = reinterpret_cast<const uint16_t*>(strip + Planes::scales(groups)) + vec * kLanes;
  const auto* minima = reinterpret_cast<const uint16_t*>(strip + Planes::minima(groups)) + vec * kLanes;
  const uint8_t* act[kTokens];
  Vf acc[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    act[t] = task.act + (token + t) * task.act_stride;
    acc[t] = zero();
  }
  for (int64_t g = 0; g < groups; ++g) {
    Vi sums[kTokens];
    for (int t = 0; t < kTokens; ++t)
      sums[t] = Planes::kZero == 0 ? set1i(0)
                                   : set1i(-Planes::kZero * reinterpret_cast<const int32_t*>(act[t] + layout.sum)[g]);
    Planes::template dot<kTokens>(sums, strip, groups, g, vec, act);
    const Vf d = load_f16(scales + g * 16);
    for (int t = 0; t < kTokens; ++t) {
      const float da = reinterpret_cast<const float*>(act[t] + layout.d)[g];
      acc[t] = fma(to_float(sums[t]), mul(d, set1(da)), acc[t]);
    }
    if constexpr (Planes::kMin) {
      const Vf m = load_f16(minima + g * 16);
      for (int t = 0; t < kTokens; ++t)
        acc[t] = fma(m, set1(reinterpret_cast<const float*>(act[t] + layout.s)[g]), acc[t]);
    }
  }
  float* out = task.out + token * task.out_stride + strip_index * 16 + vec * kLanes;
  for (int t = 0; t < kTokens; ++t) store(out + t * task.out_stride, acc[t]);
}

template <class Planes, int kTokens>
int q8x32_tokens(const LinearTask& task, int token, int strip, int vec) {
  for (; token + kTokens <= task.n_tokens; token += kTokens) q8x32_tile<Planes, kTokens>(task, token, strip, vec);
  return token;
}

constexpr int kQ8Tokens = kLanes == 16 ? 8 : 4;

template <class Planes>
void linear_q8x32(const LinearTask& task) {
  for (int strip = 0; strip < task.n_strips; ++strip) {
    for (int vec = 0; vec < kVecs; ++vec) {
      int token = q8x32_tokens<Planes, kQ8Tokens>(task, 0, strip, vec);
      token = q8x32_tokens<Planes, 2>(task, token, strip, vec);
      q8x32_tokens<Planes, 1>(task, token, strip, vec);
    }
  }
}

}  // namespace
}  // namespace octavo
