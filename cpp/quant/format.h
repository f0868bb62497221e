// THE TABLE of weight formats: one row per format. Loader, kernels, tests and benchmarks follow it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace octavo {

struct IntBlock;

// Order is the row order of the table.
enum class Format : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kQ2_K,
  kQ3_K,
  kIQ4_XS,
  kTQ1_0,
  kTQ2_0,
  kIQ1_S,
  kIQ1_M,
  kIQ2_XXS,
  kIQ2_XS,
  kIQ2_S,
  kIQ3_XXS,
  kIQ3_S,
  kIQ4_NL,
  kMXFP4,
  kNVFP4,
  kQ1_0,
  kQ2_0,
};
inline constexpr int kFormatCount = 28;

// How activations are given to a linear of some format; one numeric definition each (quant/activation.h).
enum class ActFormat : uint8_t {
  kF32,     // float, as computed
  kBF16,    // bfloat16, rounded to nearest even
  kQ8x32,   // int8 with one float scale and one float sum per 32
  kQ8x256,  // int8 with one float scale per 256 and one int16 sum per 16
};
inline constexpr int kActFormatCount = 4;

// How a weight's scales enter a dot product.
enum class ScaleClass : uint8_t {
  kNone,    // dense floats
  kPer32,   // float scale (and minimum) per 32 weights
  kPer256,  // integer sub-scales, float scale per 256 weights
};

struct FormatRow {
  Format format;
  const char* name;  // as in GGUF, e.g. "Q4_K"
  int gguf_id;       // ggml type number
  int block_size;    // weights per block
  int block_bytes;
  ScaleClass scale_class;
  ActFormat activation;  // what the fast kernels of this format multiply with
  // Scalar references over n weights, n a multiple of block_size.
  void (*dequantize)(float* out, const void* blocks, int64_t n);
  void (*quantize)(void* blocks, const float* in, int64_t n);  // null: octavo only reads the format
  void (*to_integers)(IntBlock& out, const uint8_t* block);    // unpacks a super block (quant/int_block.h), or null
  const void* codebook = nullptr;                              // of IQ1, IQ2 and IQ3 (quant/fmt_codebook.h)
};

const FormatRow& format_row(Format format);
std::span<const FormatRow> all_formats();
std::optional<Format> format_from_gguf(int gguf_id);
std::optional<Format> format_from_name(std::string_view name);

// Bytes of one row of k weights; k is a multiple of the format's block size.
inline size_t row_bytes(Format format, int64_t k) {
  const FormatRow& row = format_row(format);
  return static_cast<size_t>(k / row.block_size) * static_cast<size_t>(row.block_bytes);
}

}  // namespace octavo
