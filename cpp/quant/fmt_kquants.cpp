#include "quant/fmt_kquants.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/dtype.h"
#include "quant/byte_words.h"

namespace octavo {
namespace {

constexpr int kBlock = 256;
constexpr int kSub = 32;  // weights per sub-block of Q4_K and Q5_K
constexpr int kSubs = 8;
constexpr int kSub6 = 16;  // weights per sub-block of Q6_K
constexpr int kSubs6 = 16;
constexpr int kMaxScale = 63;
constexpr int kSteps = 12;  // ranges tried per sub-block, each 2 % narrower: outliers may be clipped

void pack_scales(uint8_t* packed, const SubScales& scales) {
  for (int i = 0; i < 4; ++i) {
    const uint8_t sc = scales.sc[4 + i], mn = scales.mn[4 + i];
    packed[i] = static_cast<uint8_t>(scales.sc[i] | (sc >> 4 << 6));
    packed[4 + i] = static_cast<uint8_t>(scales.mn[i] | (mn >> 4 << 6));
    packed[8 + i] = static_cast<uint8_t>((sc & 15) | ((mn & 15) << 4));
  }
}

// Nearest integer (ties to even) within low..high; a NaN gives low.
int round_to(float value, int low, int high) {
  if (!(value > static_cast<float>(low))) return low;
  if (value >= static_cast<float>(high)) return high;
  return static_cast<int>(std::lrint(value));
}

// value / scale; 0 where the scale is 0 or the quotient means nothing.
float ratio(float value, float scale) {
  const float quotient = value / scale;
  return std::isfinite(quotient) ? quotient : 0.0f;
}

struct Fit {
  float scale = 0, min = 0;  // x = scale * q - min
};

struct Sums {
  double q = 0, qq = 0, x = 0, xq = 0;
};

// Least squares of x = scale * q - min with min >= 0 over one sub-block; equal quants need no minimum.
Fit solve(const Sums& sums) {
  const double det = kSub * sums.qq - sums.q * sums.q;
  if (det > 0) {
    const double scale = (kSub * sums.xq - sums.q * sums.x) / det;
    const double min = (scale * sums.q - sums.x) / kSub;
    if (min >= 0) return {static_cast<float>(scale), static_cast<float>(min)};
  }
  return {sums.qq > 0 ? static_cast<float>(sums.xq / sums.qq) : 0.0f, 0.0f};
}

// The scale and minimum of a sub-block: of several clipped ranges the one whose least-squares fit errs least.
Fit fit_sub_block(const float* x, int max) {
  const auto [low, high] = std::minmax_element(x, x + kSub);
  const float min = std::max(-*low, 0.0f);
  const float range = *high + min;
  Fit best{0.0f, min};
  if (!(range > 0)) return best;
  double best_error = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= kSteps; ++step) {
    const float scale = range / static_cast<float>(max) * (1.0f - 0.02f * static_cast<float>(step));
    uint8_t q[kSub];
    Sums sums;
    for (int i = 0; i < kSub; ++i) {
      q[i] = static_cast<uint8_t>(round_to(ratio(x[i] + min, scale), 0, max));
      sums.q += q[i], sums.qq += q[i] * q[i], sums.x += x[i], sums.xq += double{x[i]} * q[i];
    }
    const Fit fit = solve(sums);
    double error = 0;
    for (int i = 0; i < kSub; ++i) {
      const double difference = double{fit.scale} * q[i] - double{fit.min} - double{x[i]};
      error += difference * difference;
    }
    if (fit.scale > 0 && error < best_error) best = fit, best_error = error;
  }
  return best;
}

// Scales, minima and quants of a Q4_K or Q5_K block; the quants are chosen against the scales as stored.
template <class Block>
void quantize_with_min(Block& block, uint8_t* q, const float* in, int max) {
  Fit fits[kSubs];
  float max_scale = 0, max_min = 0;
  for (int s = 0; s < kSubs; ++s) {
    fits[s] = fit_sub_block(in + kSub * s, max);
    max_scale = std::max(max_scale, fits[s].scale);
    max_min = std::max(max_min, fits[s].min);
  }
  block.d = float_to_half(max_scale / kMaxScale);
  block.dmin = float_to_half(max_min / kMaxScale);
  const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
  SubScales scales;
  for (int s = 0; s < kSubs; ++s) {
    scales.sc[s] = static_cast<uint8_t>(round_to(ratio(fits[s].scale, d), 0, kMaxScale));
    scales.mn[s] = static_cast<uint8_t>(round_to(ratio(fits[s].min, dmin), 0, kMaxScale));
    const float scale = d * scales.sc[s], min = dmin * scales.mn[s];
    for (int i = kSub * s; i < kSub * (s + 1); ++i) {
      q[i] = static_cast<uint8_t>(round_to(ratio(in[i] + min, scale), 0, max));
    }
  }
  pack_scales(block.scales, scales);
}

template <class Block>
void dequantize_with_min(float* out, const Block& block, const uint8_t* q) {
  const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
  const SubScales scales = unpack_scales(block.scales);
  for (int s = 0; s < kSubs; ++s) {
    const float scale = d * scales.sc[s], min = dmin * scales.mn[s];
    for (int i = kSub * s; i < kSub * (s + 1); ++i) out[i] = scale * static_cast<float>(q[i]) - min;
  }
}

void unpack_nibbles(uint8_t* q, const uint8_t* qs) {
  for (int i = 0; i < kBlock / 2; ++i) {
    uint8_t* pair = q + i / kSub * 2 * kSub + i % kSub;
    pair[0] = qs[i] & 15;
    pair[kSub] = static_cast<uint8_t>(qs[i] >> 4);
  }
}

void pack_nibbles(uint8_t* qs, const uint8_t* q) {
  for (int i = 0; i < kBlock / 2; ++i) {
    const uint8_t* pair = q + i / kSub * 2 * kSub + i % kSub;
    qs[i] = static_cast<uint8_t>((pair[0] & 15) | ((pair[kSub] & 15) << 4));
  }
}

// The scale of x = scale * q, q in -32..31, by least squares over several clipped ranges. Its sign puts the
// peak on -32, where the range reaches one step further.
float fit_signed(const float* x) {
  float peak = 0;
  for (int i = 0; i < kSub6; ++i) {
    if (std::fabs(x[i]) > std::fabs(peak)) peak = x[i];
  }
  float best = 0;
  double best_gain = 0;  // error = sum of x^2 - gain
  for (int step = 0; step <= kSteps; ++step) {
    const float scale = peak / -32.0f * (1.0f - 0.02f * static_cast<float>(step));
    double qq = 0, xq = 0;
    for (int i = 0; i < kSub6; ++i) {
      const int q = round_to(ratio(x[i], scale), -32, 31);
      qq += q * q, xq += double{x[i]} * q;
    }
    if (qq > 0 && xq * xq / qq > best_gain) best = static_cast<float>(xq / qq), best_gain = xq * xq / qq;
  }
  return best;
}

// Where Q6_K keeps weight i: its low nibble in ql (shifted by 4 in groups 2 and 3), its upper two bits in qh.
struct Place6 {
  int ql, ql_shift, qh, qh_shift;
};

constexpr Place6 place6(int i) {
  const int half = i / 128, group = i % 128 / 32, lane = i % 32;
  return {64 * half + 32 * (group & 1) + lane, group / 2 * 4, 32 * half + lane, 2 * group};
}

// The same for all weights, eight at a time.
void unpack_sixes(uint8_t (&q)[kBlock], const BlockQ6_K& block) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; i += 8) {
      const uint64_t high = load_eight(block.qh + 32 * half + i);
      for (int group = 0; group < 4; ++group) {
        const uint64_t low = load_eight(block.ql + 64 * half + 32 * (group & 1) + i) >> (group / 2 * 4);
        const uint64_t eight = (low & 15 * kOnes) | (high >> (2 * group) & 3 * kOnes) << 4;
        std::memcpy(q + 128 * half + 32 * group + i, &eight, sizeof(eight));
      }
    }
}

}  // namespace

SubScales unpack_scales(const uint8_t* packed) {
  SubScales scales;
  for (int i = 0; i < 4; ++i) {
    const uint8_t sc = packed[i], mn = packed[4 + i], low = packed[8 + i];
    scales.sc[i] = sc & 63;
    scales.mn[i] = mn & 63;
    scales.sc[4 + i] = static_cast<uint8_t>((low & 15) | (sc >> 6 << 4));
    scales.mn[4 + i] = static_cast<uint8_t>((low >> 4) | (mn >> 6 << 4));
  }
  return scales;
}

void decode_block(float* out, const BlockQ4_K& block) {
  uint8_t q[kBlock];
  unpack_nibbles(q, block.qs);
  dequantize_with_min(out, block, q);
}

void decode_block(float* out, const BlockQ5_K& block) {
  uint8_t q[kBlock];
  unpack_nibbles(q, block.qs);
  for (int i = 0; i < kBlock; ++i) {
    q[i] = static_cast<uint8_t>(q[i] | ((block.qh[i % kSub] >> (i / kSub) & 1) << 4));
  }
  dequantize_with_min(out, block, q);
}

void decode_block(float* out, const BlockQ6_K& block) {
  uint8_t q[kBlock];
  unpack_sixes(q, block);
  const float d = half_to_float(block.d);
  for (int s = 0; s < kSubs6; ++s) {
    const float scale = d * static_cast<float>(block.scales[s]);
    for (int i = s * kSub6; i < (s + 1) * kSub6; ++i) out[i] = scale * static_cast<float>(q[i] - 32);
  }
}

void encode_block(BlockQ4_K& block, const float* in) {
  uint8_t q[kBlock];
  quantize_with_min(block, q, in, 15);
  pack_nibbles(block.qs, q);
}

void encode_block(BlockQ5_K& block, const float* in) {
  uint8_t q[kBlock];
  block = {};
  quantize_with_min(block, q, in, 31);
  pack_nibbles(block.qs, q);
  for (int i = 0; i < kBlock; ++i) {
    uint8_t& bits = block.qh[i % kSub];
    bits = static_cast<uint8_t>(bits | (q[i] >> 4) << (i / kSub));
  }
}

void encode_block(BlockQ6_K& block, const float* in) {
  float fits[kSubs6], peak = 0;
  for (int s = 0; s < kSubs6; ++s) {
    fits[s] = fit_signed(in + kSub6 * s);
    if (std::fabs(fits[s]) > std::fabs(peak)) peak = fits[s];
  }
  block = {};
  block.d = float_to_half(peak / -128.0f);
  const float d = half_to_float(block.d);
  for (int s = 0; s < kSubs6; ++s) block.scales[s] = static_cast<int8_t>(round_to(ratio(fits[s], d), -128, 127));
  for (int i = 0; i < kBlock; ++i) {
    const Place6 at = place6(i);
    const float scale = d * static_cast<float>(block.scales[i / kSub6]);
    const int q = round_to(ratio(in[i], scale), -32, 31) + 32;
    block.ql[at.ql] = static_cast<uint8_t>(block.ql[at.ql] | (q & 15) << at.ql_shift);
    block.qh[at.qh] = static_cast<uint8_t>(block.qh[at.qh] | (q >> 4) << at.qh_shift);
  }
}

}  // namespace octavo
