// What linears of AQLM codes do otherwise than others.
#pragma once

#include "graph/cpu_linear.h"

namespace octavo::cpu {

// Whether so many tokens are multiplied by codes as they are read.
constexpr bool dots_codes(int n_tokens) { return n_tokens <= kAqlmDotTokens; }
// The planes of a chunk that is kept as codes; none where codes are multiplied as they are read.
const uint8_t* decode_chunk(uint8_t* panel, const KernelTable& kernels, const Chunk& chunk);

// Whether every weight is looked up in tables.
bool all_by_table(std::span<const LinearPart> parts);
// A call's tables are looked up before its chunks, where its tokens are so few: its parts then have `sums`.
inline constexpr int kTokensToHalve = 32;
// Makes them, each thread from a share of the codes that lies in one piece; all threads meet at the end.
void look_up_halves(const Step& step, const OpCall& call, const ActTargets& in, const Worker& worker);

// The products of a chunk that dots_codes, and of one that is looked up in tables.
void multiply_codes(const LinearTask& task, const Step& step, const Chunk& chunk);
void look_up(float* out, int64_t out_stride, const ActRows& act, const Step& step, const Chunk& chunk, int n);

// As many strips of a weight as there are threads for, in such units.
int share_of(const Weight& weight, int unit, int n_threads);

}  // namespace octavo::cpu
