#include "quant/fmt_float.h"

#include <cstddef>
#include <cstring>

#include "base/dtype.h"

namespace octavo {
namespace {

template <float (*kToFloat)(uint16_t)>
void widen(float* out, const void* blocks, int64_t n) {
  const auto* bytes = static_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes + 2 * i, 2);
    out[i] = kToFloat(bits);
  }
}

template <uint16_t (*kFromFloat)(float)>
void narrow(void* blocks, const float* in, int64_t n) {
  auto* bytes = static_cast<uint8_t*>(blocks);
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t bits = kFromFloat(in[i]);
    std::memcpy(bytes + 2 * i, &bits, 2);
  }
}

}  // namespace

void dequantize_f32(float* out, const void* blocks, int64_t n) {
  std::memcpy(out, blocks, static_cast<size_t>(n) * sizeof(float));
}

void dequantize_f16(float* out, const void* blocks, int64_t n) { widen<half_to_float>(out, blocks, n); }

void dequantize_bf16(float* out, const void* blocks, int64_t n) { widen<bf16_to_float>(out, blocks, n); }

void quantize_f32(void* blocks, const float* in, int64_t n) {
  std::memcpy(blocks, in, static_cast<size_t>(n) * sizeof(float));
}

void quantize_f16(void* blocks, const float* in, int64_t n) { narrow<float_to_half>(blocks, in, n); }

void quantize_bf16(void* blocks, const float* in, int64_t n) { narrow<float_to_bf16>(blocks, in, n); }

}  // namespace octavo
