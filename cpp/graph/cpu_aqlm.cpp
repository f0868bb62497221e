// Linears of AQLM codes: looked up in tables, multiplied as they are read, or decoded to a panel.
#include "graph/cpu_aqlm.h"

#include "quant/aqlm_slabs.h"

namespace octavo::cpu {
namespace {

// A strip's rows and those after it.
AqlmVectors vectors_from(const Weight& weight, int first_strip) {
  const AqlmMatrix& matrix = *weight.aqlm;
  const int64_t first = int64_t{first_strip} * kStrip;
  return {.codes = matrix.codes + first * matrix.row_code_bytes(),
          .vectors = reinterpret_cast<const uint16_t*>(weight.data),
          .summed = matrix.codebooks,
          .row_bytes = matrix.row_code_bytes(),
          .n_rows = static_cast<int>(matrix.n - first),
          .n_codebooks = matrix.n_codebooks,
          .bits = matrix.bits,
          .group = matrix.group,
          .k = static_cast<int>(matrix.k)};
}

// Vectors are looked up all over a codebook, which is in the cache much sooner if it is read from end to end before.
// That is done by loads: a core drops the prefetches that it has no room for.
void fetch_codebook(const Chunk& chunk) {
  const AqlmMatrix& matrix = *chunk.part->weight->aqlm;
  const int64_t n_codes = chunk.valid() * matrix.k / matrix.group;
  const uint8_t* line = chunk.part->weight->data;
  const uint8_t* end = line + matrix.n_values * sizeof(uint16_t);
  if (line == nullptr || n_codes < (end - line) / static_cast<int64_t>(kCacheLine)) return;
  for (; line < end; line += kCacheLine) asm volatile("" ::"r"(*line));
}

}  // namespace

bool dots_codes(const KernelTable& kernels, int n_tokens) {
  return kernels.aqlm_dot != nullptr && n_tokens <= kAqlmDotTokens;
}

const uint8_t* decode_chunk(uint8_t* panel, const KernelTable& kernels, const Chunk& chunk) {
  const Weight& weight = *chunk.part->weight;
  const int first = chunk.first_strip;
  if (weight.format == Format::kF32)
    decode_strips(panel, panel + chunk.strips * chunk.part->strip_bytes, weight, *weight.aqlm, first,
                  first + chunk.strips);
  else if (dots_codes(kernels, chunk.tokens.end - chunk.tokens.begin))
    return nullptr;
  else
    kernels.aqlm_decode(panel, vectors_from(weight, first), chunk.strips);
  return panel;
}

void multiply_codes(const LinearTask& task, const Step& step, const Chunk& chunk) {
  fetch_codebook(chunk);
  step.kernels->aqlm_dot(task, vectors_from(*chunk.part->weight, chunk.first_strip));
}

void look_up(float* out, int64_t out_stride, const ActRows& act, const Step& step, const Chunk& chunk, int n) {
  const AqlmMatrix& matrix = *chunk.part->weight->aqlm;
  step.kernels->aqlm_table({.out = out,
                            .out_stride = out_stride,
                            .act = act.first,
                            .act_stride = act.stride,
                            .codes = chunk.weights,
                            .slab_bytes = aqlm_slab_bytes(matrix.n),
                            .books = reinterpret_cast<const int16_t*>(chunk.part->weight->data),
                            .n_codebooks = matrix.n_codebooks,
                            .group = matrix.group,
                            .n_tokens = n,
                            .n_strips = chunk.strips,
                            .k = static_cast<int>(matrix.k)});
}

int share_of(const Weight& weight, int unit, int n_threads) {
  const auto divided = [](int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); };
  const int units = divided(n_strips(weight.n), unit),
            turns = divided(units, n_threads * (kAqlmMaxRows / kStrip / unit));
  return divided(units, n_threads * turns) * unit;
}

}  // namespace octavo::cpu
