// Linears of AQLM codes: looked up in tables, multiplied as they are read, or decoded to a panel.
#include "graph/cpu_aqlm.h"

#include <algorithm>

#include "quant/aqlm_slabs.h"

namespace octavo::cpu {
namespace {

constexpr int kSumFloats = 128 * 1024;  // that are added to at once: half of a core's cache

// A strip's rows and those after it.
AqlmVectors vectors_from(const Weight& weight, int first_strip) {
  const AqlmMatrix& matrix = *weight.aqlm;
  const int64_t first = int64_t{first_strip} * kStrip, unit = matrix.group_code_bytes();
  const int64_t n = weight.by_strips ? n_strips(matrix.n) * kStrip : matrix.n;  // strips are whole
  return {.codes = matrix.codes + first * matrix.row_code_bytes(),
          .vectors = reinterpret_cast<const uint16_t*>(weight.data),
          .summed = matrix.codebooks,
          .strip_bytes = kStrip * matrix.row_code_bytes(),
          .row_step = weight.by_strips ? unit : matrix.row_code_bytes(),
          .group_step = weight.by_strips ? kStrip * unit : unit,
          .n_rows = static_cast<int>(n - first),
          .n_codebooks = matrix.n_codebooks,
          .bits = matrix.bits,
          .group = matrix.group,
          .k = static_cast<int>(matrix.k)};
}

int64_t padded_rows(const LinearPart& part) { return n_strips(part.weight->n) * kStrip; }
int64_t blocks_of(const LinearPart& part) { return (part.weight->n + kAqlmRows - 1) / kAqlmRows; }

// A chunk's products over the first half of the slabs, or over the second.
void sum_half(float* out, int64_t out_stride, const ActRows& act, const Step& step, const Chunk& chunk, int half,
              int n) {
  const AqlmMatrix& matrix = *chunk.part->weight->aqlm;
  const int64_t slabs = aqlm_slabs(matrix), slab_k = int64_t{kAqlmTerms / matrix.n_codebooks} * matrix.group;
  const int64_t first = slabs * half / 2, k = std::min(slabs * (half + 1) / 2 * slab_k, matrix.k) - first * slab_k;
  step.kernels->aqlm_table({.out = out,
                            .out_stride = out_stride,
                            .act = act.first + first * slab_k * 4,
                            .act_stride = act.stride,
                            .codes = chunk.weights + first * aqlm_slab_bytes(matrix.n),
                            .slab_bytes = aqlm_slab_bytes(matrix.n),
                            .books = reinterpret_cast<const int16_t*>(chunk.part->weight->data),
                            .n_codebooks = matrix.n_codebooks,
                            .group = matrix.group,
                            .n_tokens = n,
                            .n_strips = chunk.strips,
                            .k = static_cast<int>(k)});
}

// The same of whole blocks of rows, to part.sums.
void sum_blocks(const Step& step, const LinearPart& part, const ActTargets& in, int half, int64_t first, int64_t end) {
  constexpr int kBlockStrips = kAqlmRows / kStrip;
  const ActTarget& act = in[static_cast<size_t>(ActFormat::kF32)];
  for (; first < end; first += kAqlmMaxRows / kAqlmRows) {
    const auto strips = static_cast<int>(std::min<int64_t>(end - first, kAqlmMaxRows / kAqlmRows)) * kBlockStrips;
    const Chunk chunk =
        open_chunk(step, part, static_cast<int>(first) * kBlockStrips, strips, {0, step.n_rows}, nullptr);
    const int tile = kSumFloats / chunk.width();
    for (int token = 0; token < step.n_rows; token += tile) {
      float* out = step.row<float>(part.sums, token) + half * padded_rows(part) + chunk.first();
      sum_half(out, part.sums.stride / 4, {act.first + token * act.stride, act.stride}, step, chunk, half,
               std::min(tile, step.n_rows - token));
    }
  }
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

const uint8_t* decode_chunk(uint8_t* panel, const KernelTable& kernels, const Chunk& chunk) {
  const Weight& weight = *chunk.part->weight;
  const int first = chunk.first_strip;
  if (weight.format == Format::kF32)
    decode_strips(panel, panel + chunk.strips * chunk.part->strip_bytes, weight, *weight.aqlm, first,
                  first + chunk.strips);
  else if (dots_codes(chunk.tokens.end - chunk.tokens.begin))
    return nullptr;
  else
    kernels.aqlm_decode(panel, vectors_from(weight, first), chunk.strips);
  return panel;
}

void multiply_codes(const LinearTask& task, const Step& step, const Chunk& chunk) {
  fetch_codebook(chunk);
  step.kernels->aqlm_dot(task, vectors_from(*chunk.part->weight, chunk.first_strip));
}

bool all_by_table(std::span<const LinearPart> parts) {
  return std::all_of(parts.begin(), parts.end(), [](const LinearPart& part) { return part.weight->by_table; });
}

void look_up_halves(const Step& step, const OpCall& call, const ActTargets& in, const Worker& worker) {
  int64_t n_blocks = 0;
  for (const LinearPart& part : call.parts) n_blocks += blocks_of(part);
  int64_t begin = 2 * n_blocks * worker.id / worker.n_threads, end = 2 * n_blocks * (worker.id + 1) / worker.n_threads;
  for (int half = 0; half < 2; ++half)
    for (const LinearPart& part : call.parts) {
      const int64_t blocks = blocks_of(part);
      sum_blocks(step, part, in, half, std::clamp<int64_t>(begin, 0, blocks), std::clamp<int64_t>(end, 0, blocks));
      begin -= blocks;
      end -= blocks;
    }
  worker.barrier();
}

void look_up(float* out, int64_t out_stride, const ActRows& act, const Step& step, const Chunk& chunk, int n) {
  const int width = chunk.width();
  const auto add = [&](const float* first, int64_t first_stride, const float* second, int64_t second_stride) {
    for (int t = 0; t < n; ++t)
      step.kernels->add(out + t * out_stride, first + t * first_stride, second + t * second_stride, width);
  };
  if (chunk.adds_halves()) {
    const float* sums = reinterpret_cast<const float*>(act.first) + chunk.first();
    return add(sums, act.stride / 4, sums + padded_rows(*chunk.part), act.stride / 4);
  }
  sum_half(out, out_stride, act, step, chunk, 0, n);
  sum_half(chunk.second, width, act, step, chunk, 1, n);
  add(out, out_stride, chunk.second, width);
}

int share_of(const Weight& weight, int unit, int n_threads) {
  const auto divided = [](int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); };
  const int units = divided(n_strips(weight.n), unit),
            turns = divided(units, n_threads * (kAqlmMaxRows / kStrip / unit));
  return divided(units, n_threads * turns) * unit;
}

}  // namespace octavo::cpu
