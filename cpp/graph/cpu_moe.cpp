// Mixtures of experts: every token goes to the experts that its router rates highest. Work is shared over
// (expert, chunk of output rows), so that an expert's weights are read once for all its tokens, and not at all for
// none.
#include "graph/cpu_moe.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>
#include <utility>

#include "graph/cpu_linear.h"

namespace octavo::cpu {
namespace {

constexpr int kRoutesPerChunk = 4;

// Which rows belong to which expert; laid out in one buffer.
struct Groups {
  int32_t* n_active;  // experts that were chosen at all
  int32_t* experts;   // (n_active) ascending
  int32_t* begin;     // (n_active + 1): rows [begin[a], begin[a + 1]) belong to experts[a]
  int32_t* token;     // (n_rows)
  int32_t* row;       // (n_tokens, top_k): of each slot

  Groups(int32_t* at, int n_experts, int n_slots)
      : n_active(at), experts(at + 1), begin(experts + n_experts), token(begin + n_experts + 1), row(token + n_slots) {}

  int count(int a) const { return begin[a + 1] - begin[a]; }
};

Groups groups_of(const Step& step, const MoeCall& moe) {
  return {step.row<int32_t>(moe.groups, 0), moe.n_experts(), step.n_rows * moe.top_k};
}

struct Route {
  int32_t* expert;  // (top_k)
  float* share;     // (top_k)
};

Route route_of(const Step& step, const MoeCall& moe, int token) {
  auto* at = step.row<int32_t>(moe.routes, token);
  return {at, reinterpret_cast<float*>(at + moe.top_k)};
}

// Softmax over all experts, then the largest; ties go to the lowest id.
void choose(const Step& step, const MoeCall& moe, int token) {
  const int n = moe.n_experts();
  float* logits = step.row<float>(moe.logits, token);
  const Route route = route_of(step, moe, token);
  const float top = logits[step.kernels->argmax(logits, n)];
  float total = step.kernels->exp_sum(nullptr, logits, n, top, 1.0f), kept = 0;
  for (int slot = 0; slot < moe.top_k; ++slot) {
    const int best = step.kernels->argmax(logits, n);
    route.expert[slot] = best;
    step.kernels->exp_sum(&route.share[slot], &logits[best], 1, top, 1.0f);
    logits[best] = -std::numeric_limits<float>::infinity();
    kept += route.share[slot];
  }
  if (moe.normalize) total = kept;
  for (int slot = 0; slot < moe.top_k; ++slot) route.share[slot] /= total;
}

// A counting sort of all slots by expert.
void group(const Step& step, const MoeCall& moe) {
  const Groups groups = groups_of(step, moe);
  const int n_experts = moe.n_experts();
  int32_t* next = groups.begin;  // counts, then where an expert's next row goes
  std::fill_n(next, n_experts + 1, 0);
  for (int token = 0; token < step.n_rows; ++token)
    for (int slot = 0; slot < moe.top_k; ++slot) ++next[route_of(step, moe, token).expert[slot]];
  for (int expert = 0, at = 0; expert < n_experts; ++expert) at += std::exchange(next[expert], at);
  for (int token = 0; token < step.n_rows; ++token)
    for (int slot = 0; slot < moe.top_k; ++slot) {
      const int row = next[route_of(step, moe, token).expert[slot]]++;
      groups.token[row] = token;
      groups.row[token * moe.top_k + slot] = row;
    }
  // next[e] is now the end of expert e; those without rows are left out.
  int active = 0, start = 0;
  for (int expert = 0; expert < n_experts; ++expert) {
    const int end = next[expert];
    if (end == start) continue;
    groups.experts[active] = expert;
    groups.begin[active++] = start;
    start = end;
  }
  groups.begin[active] = start;
  *groups.n_active = active;
}

// An expert with one token reads it where it is; for others their tokens are copied side by side.
void gather_tokens(const Step& step, const MoeCall& moe, int width, const Worker& worker) {
  const Groups groups = groups_of(step, moe);
  for (int a = 0; a < *groups.n_active; ++a) {
    if (groups.count(a) == 1) continue;
    for (int row = groups.begin[a] + worker.id; row < groups.begin[a + 1]; row += worker.n_threads)
      for (size_t f = 0; f < kActFormatCount; ++f) {
        if (moe.gathered[f].offset < 0) continue;
        std::memcpy(step.row<uint8_t>(moe.gathered[f], row), step.row<uint8_t>(moe.x[f], groups.token[row]),
                    static_cast<size_t>(act_row_bytes(static_cast<ActFormat>(f), width)));
      }
  }
}

ActRows tokens_of(const Step& step, const MoeCall& moe, const LinearPart& part, int a, int first) {
  const Groups groups = groups_of(step, moe);
  const auto format = static_cast<size_t>(part.kernel.act);
  if (groups.count(a) == 1)
    return {step.row<uint8_t>(moe.x[format], groups.token[groups.begin[a]]), moe.x[format].stride};
  return {step.row<uint8_t>(moe.gathered[format], groups.begin[a] + first), moe.gathered[format].stride};
}

int64_t largest_panel(std::span<const LinearPart> parts) {
  int64_t bytes = 0;
  for (const LinearPart& part : parts) bytes = std::max(bytes, panel_bytes(part));
  return bytes;
}

// Calls f(active expert, first strip) for this thread's share: expert by expert of what its rank owns of each.
template <class F>
void for_chunks(const Step& step, const OpCall& call, const Worker& worker, const LinearPart& any, int strips, F f) {
  const int chunks = chunks_of(any, strips);
  const int n_active = *groups_of(step, *call.moe).n_active;
  ChunkFeed feed(step.counters_of(call), worker, n_active * chunks);
  for (int c; (c = feed.take()) >= 0;) {
    int rank = 0;
    RankShare share(chunks, worker, rank);
    for (; c >= share.n * n_active; share = RankShare(chunks, worker, ++rank)) c -= share.n * n_active;
    f(c / share.n, (share.first + c % share.n) * strips);
  }
}

template <class F>
void for_tiles(const Groups& groups, int a, const Chunk& chunk, F f) {
  for (int first = 0; first < groups.count(a); first += chunk.token_tile())
    f(first, std::min(chunk.token_tile(), groups.count(a) - first));
}

int gate_up_strips(const Step& step, const MoeCall& moe, int strips, int n_threads) {
  const int gate = common_strips(step, moe.gate, strips, n_threads),
            up = common_strips(step, moe.up, strips, n_threads);
  return gate == up ? gate : kMaxChunkStrips;
}

struct GateScratch {
  uint8_t *gate_panel, *up_panel;
  float *gates, *ups;
};

GateScratch gate_scratch(uint8_t* at, const MoeCall& moe) {
  GateScratch scratch{};
  scratch.gate_panel = at;
  scratch.up_panel = at + largest_panel(moe.gate);
  scratch.gates = reinterpret_cast<float*>(scratch.up_panel + largest_panel(moe.up));
  scratch.ups = scratch.gates + kTileFloats;
  return scratch;
}

void gate_chunk(const Step& step, const MoeCall& moe, int a, const Chunk& gate, const Chunk& up,
                const GateScratch& scratch) {
  const Groups groups = groups_of(step, moe);
  const int width = gate.width();
  for_tiles(groups, a, gate, [&](int first, int n) {
    multiply(scratch.gates, width, tokens_of(step, moe, *gate.part, a, first), step, gate, n);
    multiply(scratch.ups, width, tokens_of(step, moe, *up.part, a, first), step, up, n);
    for (int i = 0; i < n; ++i) {
      float* row = scratch.gates + i * width;
      step.kernels->activate_mul[static_cast<size_t>(moe.activation)](row, row, scratch.ups + i * width, gate.valid());
    }
    emit_rows(step, moe.hidden, groups.begin[a] + first, n, scratch.gates, gate);
  });
}

}  // namespace

int64_t moe_route_bytes(const MoeOp& op) { return int64_t{8} * op.top_k; }

int64_t moe_group_bytes(const MoeOp& op, int max_tokens) {
  return 4 * (2 + 2 * static_cast<int64_t>(op.experts.size()) + int64_t{2} * max_tokens * op.top_k);
}

int64_t moe_scratch(const MoeCall& moe) {
  const int64_t gate_up = largest_panel(moe.gate) + largest_panel(moe.up) + 2 * kTileFloats * 4;
  return std::max(gate_up, largest_panel(moe.down));
}

void moe_route(const Step& step, const OpCall& call, const Worker& worker) {
  Counter& counter = *step.counters_of(call);
  for (int first; (first = counter.take() * kRoutesPerChunk) < step.n_rows;)
    for (int token = first; token < std::min(first + kRoutesPerChunk, step.n_rows); ++token)
      choose(step, *call.moe, token);
  worker.barrier();
  if (worker.id == 0) group(step, *call.moe);
  if (step.n_rows == 1) return;
  worker.barrier();
  gather_tokens(step, *call.moe, call.width, worker);
}

void moe_gate_up(const Step& step, const OpCall& call, const Worker& worker) {
  const MoeCall& moe = *call.moe;
  const Groups groups = groups_of(step, moe);
  const GateScratch scratch = gate_scratch(step.thread_scratch(worker), moe);
  const int strips = gate_up_strips(step, moe, chunk_strips(&moe.hidden, step.n_rows), worker.n_threads);
  for_chunks(step, call, worker, moe.gate[0], strips, [&](int a, int first) {
    const auto expert = static_cast<size_t>(groups.experts[a]);
    gate_chunk(step, moe, a,
               open_chunk(step, moe.gate[expert], first, strips, {0, groups.count(a)}, scratch.gate_panel),
               open_chunk(step, moe.up[expert], first, strips, {0, groups.count(a)}, scratch.up_panel), scratch);
  });
}

void moe_down(const Step& step, const OpCall& call, const Worker& worker) {
  const MoeCall& moe = *call.moe;
  const Groups groups = groups_of(step, moe);
  const int strips = common_strips(step, moe.down, chunk_strips(nullptr, step.n_rows), worker.n_threads);
  for_chunks(step, call, worker, moe.down[0], strips, [&](int a, int first_strip) {
    const LinearPart& part = moe.down[static_cast<size_t>(groups.experts[a])];
    const Chunk chunk = open_chunk(step, part, first_strip, strips, {0, groups.count(a)}, step.thread_scratch(worker));
    const Rows& act = moe.hidden[static_cast<size_t>(part.kernel.act)];
    for_tiles(groups, a, chunk, [&](int first, int n) {
      const int row = groups.begin[a] + first;
      multiply(step.row<float>(moe.product, row) + chunk.first(), moe.product.stride / 4,
               {step.row<uint8_t>(act, row), act.stride}, step, chunk, n);
    });
  });
}

// A token's experts are added in the order of their shares, whatever else is in the batch.
void moe_combine(const Step& step, const OpCall& call, const Worker&) {
  const MoeCall& moe = *call.moe;
  const Groups groups = groups_of(step, moe);
  Counter& counter = *step.counters_of(call);
  for (int token; (token = counter.take()) < step.n_rows;) {
    const Route route = route_of(step, moe, token);
    float* out = step.floats(call.out, token);
    std::fill_n(out, call.width, 0.0f);
    for (int slot = 0; slot < moe.top_k; ++slot) {
      const float* product = step.row<float>(moe.product, groups.row[token * moe.top_k + slot]);
      for (int i = 0; i < call.width; ++i) out[i] += route.share[slot] * product[i];
    }
  }
}

}  // namespace octavo::cpu
