#include "quant/format.h"

#include <array>
#include <cstring>

#include "quant/fmt_float.h"
#include "quant/fmt_kquants.h"
#include "quant/fmt_legacy.h"

namespace octavo {
namespace {

// Blocks are copied to and from locals: a file gives no alignment.
template <class Block>
void dequantize_blocks(float* out, const void* blocks, int64_t n) {
  const auto* bytes = static_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < n; i += Block::kSize, bytes += sizeof(Block)) {
    Block block;
    std::memcpy(&block, bytes, sizeof(Block));
    decode_block(out + i, block);
  }
}

template <class Block>
void quantize_blocks(void* blocks, const float* in, int64_t n) {
  auto* bytes = static_cast<uint8_t*>(blocks);
  for (int64_t i = 0; i < n; i += Block::kSize, bytes += sizeof(Block)) {
    Block block;
    encode_block(block, in + i);
    std::memcpy(bytes, &block, sizeof(Block));
  }
}

template <class Block>
constexpr FormatRow blocks(Format format, const char* name, int gguf_id, ScaleClass scales, ActFormat activation) {
  return {format,
          name,
          gguf_id,
          Block::kSize,
          int{sizeof(Block)},
          scales,
          activation,
          dequantize_blocks<Block>,
          quantize_blocks<Block>};
}

using enum Format;
constexpr ScaleClass kDense = ScaleClass::kNone;
constexpr ScaleClass kPer32 = ScaleClass::kPer32;
constexpr ScaleClass kPer256 = ScaleClass::kPer256;
constexpr ActFormat kActF32 = ActFormat::kF32;
constexpr ActFormat kActBF16 = ActFormat::kBF16;
constexpr ActFormat kAct32 = ActFormat::kQ8x32;
constexpr ActFormat kAct256 = ActFormat::kQ8x256;

// clang-format off
constexpr std::array<FormatRow, kFormatCount> kTable = {{
    {kF32, "F32", 0, 1, 4, kDense, kActF32, dequantize_f32, quantize_f32},
    {kF16, "F16", 1, 1, 2, kDense, kActF32, dequantize_f16, quantize_f16},
    {kBF16, "BF16", 30, 1, 2, kDense, kActBF16, dequantize_bf16, quantize_bf16},
    blocks<BlockQ4_0>(kQ4_0, "Q4_0", 2, kPer32, kAct32),
    blocks<BlockQ4_1>(kQ4_1, "Q4_1", 3, kPer32, kAct32),
    blocks<BlockQ5_0>(kQ5_0, "Q5_0", 6, kPer32, kAct32),
    blocks<BlockQ5_1>(kQ5_1, "Q5_1", 7, kPer32, kAct32),
    blocks<BlockQ8_0>(kQ8_0, "Q8_0", 8, kPer32, kAct32),
    blocks<BlockQ4_K>(kQ4_K, "Q4_K", 12, kPer256, kAct256),
    blocks<BlockQ5_K>(kQ5_K, "Q5_K", 13, kPer256, kAct256),
    blocks<BlockQ6_K>(kQ6_K, "Q6_K", 14, kPer256, kAct256),
}};
// clang-format on

constexpr bool in_enum_order() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (kTable[i].format != static_cast<Format>(i)) return false;
  }
  return true;
}
static_assert(in_enum_order());

}  // namespace

const FormatRow& format_row(Format format) { return kTable[static_cast<size_t>(format)]; }

std::span<const FormatRow> all_formats() { return kTable; }

std::optional<Format> format_from_gguf(int gguf_id) {
  for (const FormatRow& row : kTable) {
    if (row.gguf_id == gguf_id) return row.format;
  }
  return std::nullopt;
}

std::optional<Format> format_from_name(std::string_view name) {
  for (const FormatRow& row : kTable) {
    if (row.name == name) return row.format;
  }
  return std::nullopt;
}

}  // namespace octavo
