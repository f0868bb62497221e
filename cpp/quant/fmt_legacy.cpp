#include "quant/fmt_legacy.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/dtype.h"

namespace octavo {
namespace {

constexpr int kBlock = 32;
constexpr int kHalf = kBlock / 2;

// 1/d, and 0 for an all-zero block.
float inverse(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

// Drops the fraction and limits to 0..max; a NaN gives 0.
uint8_t truncate(float value, int max) {
  if (!(value > 0.0f)) return 0;
  return static_cast<uint8_t>(std::min(value, static_cast<float>(max)));
}

// The value of the largest magnitude, sign kept; the first of equals.
float signed_peak(const float* x) {
  float peak = x[0];
  for (int i = 1; i < kBlock; ++i) {
    if (std::fabs(x[i]) > std::fabs(peak)) peak = x[i];
  }
  return peak;
}

// q of x = d * (q - max/2 - 1/2): the peak falls on q = 0, where the range reaches one step further.
float quantize_symmetric(uint8_t* q, const float* x, int max) {
  const float zero = static_cast<float>((max + 1) / 2);
  const float d = signed_peak(x) / -zero;
  const float id = inverse(d);
  for (int i = 0; i < kBlock; ++i) q[i] = truncate(x[i] * id + (zero + 0.5f), max);
  return d;
}

struct ScaleMin {
  float d, m;
};

// q of x = d * q + m over the whole range of x.
ScaleMin quantize_affine(uint8_t* q, const float* x, int max) {
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  const float m = *low;
  const float d = (*high - m) / static_cast<float>(max);
  const float id = inverse(d);
  for (int i = 0; i < kBlock; ++i) q[i] = truncate((x[i] - m) * id + 0.5f, max);
  return {d, m};
}

void pack_nibbles(uint8_t* qs, const uint8_t* q) {
  for (int i = 0; i < kHalf; ++i) qs[i] = static_cast<uint8_t>((q[i] & 15) | ((q[kHalf + i] & 15) << 4));
}

void unpack_nibbles(uint8_t* q, const uint8_t* qs) {
  for (int i = 0; i < kHalf; ++i) {
    q[i] = qs[i] & 15;
    q[kHalf + i] = static_cast<uint8_t>(qs[i] >> 4);
  }
}

void pack_fifth_bits(uint8_t* qh, const uint8_t* q) {
  uint32_t bits = 0;
  for (int i = 0; i < kBlock; ++i) bits |= static_cast<uint32_t>(q[i] >> 4) << i;
  std::memcpy(qh, &bits, sizeof(bits));
}

void add_fifth_bits(uint8_t* q, const uint8_t* qh) {
  uint32_t bits;
  std::memcpy(&bits, qh, sizeof(bits));
  for (int i = 0; i < kBlock; ++i) q[i] = static_cast<uint8_t>(q[i] | ((bits >> i & 1) << 4));
}

void dequantize_symmetric(float* out, const uint8_t* q, uint16_t half_d, int zero) {
  const float d = half_to_float(half_d);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i] - zero);
}

void dequantize_affine(float* out, const uint8_t* q, uint16_t half_d, uint16_t half_m) {
  const float d = half_to_float(half_d);
  const float m = half_to_float(half_m);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

}  // namespace

void decode_block(float* out, const BlockQ4_0& block) {
  uint8_t q[kBlock];
  unpack_nibbles(q, block.qs);
  dequantize_symmetric(out, q, block.d, 8);
}

void decode_block(float* out, const BlockQ4_1& block) {
  uint8_t q[kBlock];
  unpack_nibbles(q, block.qs);
  dequantize_affine(out, q, block.d, block.m);
}

void decode_block(float* out, const BlockQ5_0& block) {
  uint8_t q[kBlock];
  unpack_nibbles(q, block.qs);
  add_fifth_bits(q, block.qh);
  dequantize_symmetric(out, q, block.d, 16);
}

void decode_block(float* out, const BlockQ5_1& block) {
  uint8_t q[kBlock];
  unpack_nibbles(q, block.qs);
  add_fifth_bits(q, block.qh);
  dequantize_affine(out, q, block.d, block.m);
}

void decode_block(float* out, const BlockQ8_0& block) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(block.qs[i]);
}

void encode_block(BlockQ4_0& block, const float* in) {
  uint8_t q[kBlock];
  block.d = float_to_half(quantize_symmetric(q, in, 15));
  pack_nibbles(block.qs, q);
}

void encode_block(BlockQ4_1& block, const float* in) {
  uint8_t q[kBlock];
  const ScaleMin scale = quantize_affine(q, in, 15);
  block.d = float_to_half(scale.d);
  block.m = float_to_half(scale.m);
  pack_nibbles(block.qs, q);
}

void encode_block(BlockQ5_0& block, const float* in) {
  uint8_t q[kBlock];
  block.d = float_to_half(quantize_symmetric(q, in, 31));
  pack_nibbles(block.qs, q);
  pack_fifth_bits(block.qh, q);
}

void encode_block(BlockQ5_1& block, const float* in) {
  uint8_t q[kBlock];
  const ScaleMin scale = quantize_affine(q, in, 31);
  block.d = float_to_half(scale.d);
  block.m = float_to_half(scale.m);
  pack_nibbles(block.qs, q);
  pack_fifth_bits(block.qh, q);
}

void encode_block(BlockQ8_0& block, const float* in) {
  const float d = std::fabs(signed_peak(in)) / 127.0f;
  const float id = inverse(d);
  block.d = float_to_half(d);
  for (int i = 0; i < kBlock; ++i) {
    const float q = std::round(in[i] * id);  // halves away from zero
    block.qs[i] = static_cast<int8_t>(q > -127.0f ? std::min(q, 127.0f) : -127.0f);
  }
}

}  // namespace octavo
