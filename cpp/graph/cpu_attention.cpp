// Rotary embedding, the KV cache and paged attention.
#include <algorithm>

#include "graph/cpu_ops.h"

namespace octavo::cpu {
namespace {

constexpr int kQueriesPerItem = 32;  // queries that one work item of attention serves

uint8_t* tile_of(const Step& step, const KvSlot& slot, int seq, int tile, int head) {
  const int64_t block = step.batch->block_tables[static_cast<size_t>(seq)][tile];
  return step.kv + block * step.plan->kv_block_bytes + slot.offset + head * 2 * slot.layout.tile_bytes();
}

void rotate_heads(const Step& step, const OpCall& call, float* x, int n_heads, int token) {
  if (call.attention.rope < 0) return;
  const auto& rope = step.plan->ropes[static_cast<size_t>(call.attention.rope)];
  const int half = static_cast<int>(rope.inv_freq.size());
  const float* cos = (*step.rope_tables)[static_cast<size_t>(call.attention.rope)].data() + int64_t{token} * 2 * half;
  for (int head = 0; head < n_heads; ++head)
    step.kernels->rope(x + head * call.attention.head_dim, cos, cos + half, half);
}

int items_of(int n_queries) { return (n_queries + kQueriesPerItem - 1) / kQueriesPerItem; }

struct AttendRange {
  int seq, head, first, n;
};

void attend(const Step& step, const OpCall& call, const AttendRange& range, uint8_t* scratch) {
  const AttentionOp& op = call.attention;
  const KvSlot& slot = step.plan->kv[static_cast<size_t>(op.layer)];
  const Batch& batch = *step.batch;
  const int start = batch.query_start[static_cast<size_t>(range.seq)] + range.first;
  const int position = batch.positions[static_cast<size_t>(start)];
  const int n_keys = op.causal ? position + range.n : batch.end_position(range.seq);
  const int n_tiles = (n_keys - 1) / kKvTile + 1;
  auto** tiles = reinterpret_cast<const uint8_t**>(scratch);
  for (int tile = 0; tile < n_tiles; ++tile) tiles[tile] = tile_of(step, slot, range.seq, tile, range.head);
  const int group = op.n_heads / op.n_kv_heads;
  const int64_t column = int64_t{range.head} * group * op.head_dim;
  const auto f32 = static_cast<size_t>(ActFormat::kF32);
  const float* bias =
      call.bias == nullptr ? nullptr : call.bias + range.head * group * relative_bias_width(call.bias_length);
  auto* floats = reinterpret_cast<float*>(scratch + round_up(static_cast<size_t>(n_tiles) * sizeof(void*), 64));
  step.kernels->attention[static_cast<size_t>(slot.layout.type)]({
      .out = step.floats(call.out, start) + column,
      .q = step.floats(call.in, start) + column,
      .token_stride = call.in[f32].stride / 4,
      .out_stride = call.out[f32].stride / 4,
      .tiles = tiles,
      .n_queries = range.n,
      .n_group = group,
      .head_dim = op.head_dim,
      .first_position = position,
      .window = op.window,
      .scale = op.scale,
      .soft_cap = op.soft_cap,
      .scratch = floats,
      .causal = op.causal,
      .n_keys = n_keys,
      .bias = bias,
      .bias_length = call.bias_length,
  });
}

}  // namespace

int64_t attention_scratch_bytes(const AttentionOp& op, int max_context) {
  const int64_t tiles = max_context / kKvTile + 2;
  return static_cast<int64_t>(round_up(static_cast<size_t>(tiles) * sizeof(void*), 64)) +
         attention_scratch(op.n_heads / op.n_kv_heads, op.head_dim) * 4;
}

void write_kv(const Step& step, const OpCall& call, const Worker&) {
  const AttentionOp& op = call.attention;
  const KvSlot& slot = step.plan->kv[static_cast<size_t>(op.layer)];
  const auto write = step.kernels->kv_write[static_cast<size_t>(slot.layout.type)];
  Counter& counter = *step.counters_of(call);
  for (int token; (token = counter.take()) < step.n_rows;) {
    const int position = step.batch->positions[static_cast<size_t>(token)];
    const int seq = step.batch->sequence_of(token);
    float *k = step.floats(call.second, token), *v = step.floats(call.third, token);
    rotate_heads(step, call, step.floats(call.in, token), op.n_heads, token);
    rotate_heads(step, call, k, op.n_kv_heads, token);
    for (int head = 0; head < op.n_kv_heads; ++head)
      write(tile_of(step, slot, seq, position / kKvTile, head), k + head * op.head_dim, v + head * op.head_dim,
            position % kKvTile, op.head_dim);
  }
}

void attention(const Step& step, const OpCall& call, const Worker& worker) {
  const Batch& batch = *step.batch;
  Counter& counter = *step.counters_of(call);
  const int n_heads = call.attention.n_kv_heads;
  int first_item = 0, item = counter.take();
  // Later queries see more keys: the longest items of a sequence go first.
  for (int seq = 0; seq < batch.n_seqs(); ++seq) {
    const int n_queries = batch.query_start[static_cast<size_t>(seq) + 1] - batch.query_start[static_cast<size_t>(seq)];
    const int ranges = items_of(n_queries);
    for (; item < first_item + ranges * n_heads; item = counter.take()) {
      const int first = (ranges - 1 - (item - first_item) / n_heads) * kQueriesPerItem;
      attend(step, call, {seq, (item - first_item) % n_heads, first, std::min(kQueriesPerItem, n_queries - first)},
             step.thread_scratch(worker));
    }
    first_item += ranges * n_heads;
  }
}

}  // namespace octavo::cpu
