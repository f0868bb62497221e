// Dense formats: a block is one weight, so the references walk whole rows; they take any alignment.
#pragma once

#include <cstdint>

namespace octavo {

void dequantize_f32(float* out, const void* blocks, int64_t n);
void dequantize_f16(float* out, const void* blocks, int64_t n);
void dequantize_bf16(float* out, const void* blocks, int64_t n);

void quantize_f32(void* blocks, const float* in, int64_t n);
void quantize_f16(void* blocks, const float* in, int64_t n);
void quantize_bf16(void* blocks, const float* in, int64_t n);

}  // namespace octavo
