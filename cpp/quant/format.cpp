#include "quant/format.h"

#include <array>
#include <cstring>

#include "quant/fmt_codebook.h"
#include "quant/fmt_float.h"
#include "quant/fmt_kquants.h"
#include "quant/fmt_legacy.h"
#include "quant/fmt_lowbit.h"
#include "quant/fmt_small.h"

namespace octavo {
namespace {

void decode(float* out, const IntBlock& block, int bias) {
  for (int i = 0; i < 256; ++i) {
    const float scale = block.d * static_cast<float>(block.sc[i / 16]);
    const float min = block.dmin * static_cast<float>(block.mn[i / 16]);
    out[i] = scale * static_cast<float>(block.u[i] - bias) - min;
  }
}

// Blocks are copied to and from locals: a file gives no alignment.
template <class Block>
void block_to_integers(IntBlock& out, const uint8_t* bytes) {
  Block block;
  std::memcpy(&block, bytes, sizeof(Block));
  to_integers(out, block);
}

template <class Block>
void dequantize_super_blocks(float* out, const void* blocks, int64_t n) {
  const auto* bytes = static_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < n; i += Block::kSize, bytes += sizeof(Block)) {
    uint8_t u[256];
    IntBlock integers{.u = u, .sc = {}, .mn = {}, .d = 0, .dmin = 0};
    block_to_integers<Block>(integers, bytes);
    decode(out + i, integers, Block::kBias);
  }
}

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
          quantize_blocks<Block>,
          nullptr};
}

template <class Block>
constexpr FormatRow read_blocks(Format format, const char* name, int gguf_id, ActFormat activation) {
  return {format,
          name,
          gguf_id,
          Block::kSize,
          int{sizeof(Block)},
          ScaleClass::kPer32,
          activation,
          dequantize_blocks<Block>,
          nullptr,
          nullptr};
}

// Super blocks that have planes.
template <class Block>
constexpr FormatRow read_super_blocks(Format format, const char* name, int gguf_id) {
  return {format,
          name,
          gguf_id,
          Block::kSize,
          int{sizeof(Block)},
          ScaleClass::kPer256,
          ActFormat::kQ8x256,
          dequantize_super_blocks<Block>,
          nullptr,
          nullptr};
}

// Super blocks that stay as they are.
template <class Block>
constexpr FormatRow super_blocks(Format format, const char* name, int gguf_id, const void* codebook = nullptr) {
  return {format,
          name,
          gguf_id,
          Block::kSize,
          int{sizeof(Block)},
          ScaleClass::kPer256,
          ActFormat::kQ8x256,
          dequantize_super_blocks<Block>,
          nullptr,
          block_to_integers<Block>,
          codebook};
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
    {kF32, "F32", 0, 1, 4, kDense, kActF32, dequantize_f32, quantize_f32, nullptr},
    {kF16, "F16", 1, 1, 2, kDense, kActF32, dequantize_f16, quantize_f16, nullptr},
    {kBF16, "BF16", 30, 1, 2, kDense, kActBF16, dequantize_bf16, quantize_bf16, nullptr},
    blocks<BlockQ4_0>(kQ4_0, "Q4_0", 2, kPer32, kAct32),
    blocks<BlockQ4_1>(kQ4_1, "Q4_1", 3, kPer32, kAct32),
    blocks<BlockQ5_0>(kQ5_0, "Q5_0", 6, kPer32, kAct32),
    blocks<BlockQ5_1>(kQ5_1, "Q5_1", 7, kPer32, kAct32),
    blocks<BlockQ8_0>(kQ8_0, "Q8_0", 8, kPer32, kAct32),
    blocks<BlockQ4_K>(kQ4_K, "Q4_K", 12, kPer256, kAct256),
    blocks<BlockQ5_K>(kQ5_K, "Q5_K", 13, kPer256, kAct256),
    blocks<BlockQ6_K>(kQ6_K, "Q6_K", 14, kPer256, kAct256),
    read_super_blocks<BlockQ2_K>(kQ2_K, "Q2_K", 10),
    read_super_blocks<BlockQ3_K>(kQ3_K, "Q3_K", 11),
    read_super_blocks<BlockIQ4_XS>(kIQ4_XS, "IQ4_XS", 23),
    super_blocks<BlockTQ1_0>(kTQ1_0, "TQ1_0", 34),
    super_blocks<BlockTQ2_0>(kTQ2_0, "TQ2_0", 35),
    super_blocks<BlockIQ1_S>(kIQ1_S, "IQ1_S", 19, &kCodebookIQ1),
    super_blocks<BlockIQ1_M>(kIQ1_M, "IQ1_M", 29, &kCodebookIQ1),
    super_blocks<BlockIQ2_XXS>(kIQ2_XXS, "IQ2_XXS", 16, &kCodebookIQ2_XXS),
    super_blocks<BlockIQ2_XS>(kIQ2_XS, "IQ2_XS", 17, &kCodebookIQ2_XS),
    super_blocks<BlockIQ2_S>(kIQ2_S, "IQ2_S", 22, &kCodebookIQ2_S),
    super_blocks<BlockIQ3_XXS>(kIQ3_XXS, "IQ3_XXS", 18, &kCodebookIQ3_XXS),
    super_blocks<BlockIQ3_S>(kIQ3_S, "IQ3_S", 21, &kCodebookIQ3_S),
    read_blocks<BlockIQ4_NL>(kIQ4_NL, "IQ4_NL", 20, kAct32),
    read_blocks<BlockMXFP4>(kMXFP4, "MXFP4", 39, kAct32),
    read_blocks<BlockNVFP4>(kNVFP4, "NVFP4", 40, kActF32),
    read_blocks<BlockQ1_0>(kQ1_0, "Q1_0", 41, kActF32),
    read_blocks<BlockQ2_0>(kQ2_0, "Q2_0", 42, kActF32),
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
