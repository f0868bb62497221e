// Rotary embedding, the KV cache and paged attention.
#include <algorithm>

#include "base/memory.h"
#include "graph/cpu_linear.h"
#include "graph/cpu_ops.h"

namespace octavo::cpu {
namespace {

constexpr int64_t kUpcomingBytes = 6 << 20;  // of a thread: what its share of the last cache keeps
constexpr int kQueriesPerItem = 32;          // queries that one work item of attention serves

uint8_t* tile_of(const Step& step, const KvSlot& slot, int seq, int tile, int head) {
  const int64_t block = step.batch->block_tables[static_cast<size_t>(seq)][tile];
  return step.kv + block * step.plan->kv_block_bytes + slot.offset + head * 2 * slot.layout.tile_bytes();
}

// New tokens of one sequence that lie in one tile of its cache.
struct Run {
  int seq, token, n;
};

void rotate(const Step& step, const OpCall& call, int token, int head) {
  const AttentionOp& op = call.attention;
  const int group = op.n_heads / op.n_kv_heads;
  const auto half = static_cast<int>(step.plan->ropes[static_cast<size_t>(op.rope)].inv_freq.size());
  const float* cos = (*step.rope_tables)[static_cast<size_t>(op.rope)].data() + int64_t{token} * 2 * half;
  float* q = step.floats(call.in, token) + head * group * op.head_dim;
  for (int i = 0; i < group; ++i) step.kernels->rope(q + i * op.head_dim, cos, cos + half, half);
  step.kernels->rope(step.floats(call.second, token) + head * op.head_dim, cos, cos + half, half);
}

// Rotates the tokens' keys of one kv head and the queries that share it, and stores the keys and their values.
void store_run(const Step& step, const OpCall& call, const Run& run, int head) {
  const AttentionOp& op = call.attention;
  const KvSlot& slot = step.plan->kv[static_cast<size_t>(op.layer)];
  const int position = step.batch->positions[static_cast<size_t>(run.token)];
  for (int t = 0; op.rope >= 0 && t < run.n; ++t) rotate(step, call, run.token + t, head);
  const auto f32 = static_cast<size_t>(ActFormat::kF32);
  step.kernels->kv_write[static_cast<size_t>(slot.layout.type)]({
      .tile = tile_of(step, slot, run.seq, position / kKvTile, head),
      .k = step.floats(call.second, run.token) + head * op.head_dim,
      .v = step.floats(call.third, run.token) + head * op.head_dim,
      .k_stride = call.second[f32].stride / 4,
      .v_stride = call.third[f32].stride / 4,
      .slot = position % kKvTile,
      .n_tokens = run.n,
      .head_dim = op.head_dim,
  });
}

// f(run) for the new tokens of a sequence, tile by tile.
template <class F>
void for_runs(const Batch& batch, int seq, F f) {
  const int end = batch.query_start[static_cast<size_t>(seq) + 1];
  for (int token = batch.query_start[static_cast<size_t>(seq)]; token < end;) {
    const int slot = batch.positions[static_cast<size_t>(token)] % kKvTile;
    const Run run{seq, token, std::min(kKvTile - slot, end - token)};
    f(run);
    token += run.n;
  }
}

// Each thread stores what it has probably made itself.
void store_all(const Step& step, const OpCall& call, const Worker& worker) {
  const TokenRange own = TokenRange::part(step.n_rows, worker.id, worker.n_threads);
  for (int seq = 0; seq < step.batch->n_seqs(); ++seq)
    for_runs(*step.batch, seq, [&](const Run& run) {
      if (run.token < own.begin || run.token >= own.end) return;
      for (int head = 0; head < call.attention.n_kv_heads; ++head) store_run(step, call, run, head);
    });
}

int items_of(int n_queries) { return (n_queries + kQueriesPerItem - 1) / kQueriesPerItem; }

int n_queries_of(const Batch& batch, int seq) {
  return batch.query_start[static_cast<size_t>(seq) + 1] - batch.query_start[static_cast<size_t>(seq)];
}

// Whether no sequence's queries are cut: then the item that reads a head's new keys is the only one, and stores them.
bool items_own_heads(const Batch& batch) {
  for (int seq = 0; seq < batch.n_seqs(); ++seq)
    if (n_queries_of(batch, seq) > kQueriesPerItem) return false;
  return true;
}

struct AttendRange {
  int seq, head, first, n;
};

// The work of an attention call: ranges of queries, sequence by sequence, so that threads have tokens of their own.
class AttendItems {
 public:
  AttendItems(const Batch& batch, int n_heads) : batch_(batch), n_heads_(n_heads) {}

  int count() const {
    int n = 0;
    for (int seq = 0; seq < batch_.n_seqs(); ++seq) n += items_of(n_queries_of(batch_, seq)) * n_heads_;
    return n;
  }

  // Later queries see more keys: the longest items of a sequence go first.
  AttendRange at(int item) {
    if (item < first_) seq_ = first_ = 0;
    for (int n; item >= first_ + (n = items_of(n_queries_of(batch_, seq_)) * n_heads_); ++seq_) first_ += n;
    const int n_queries = n_queries_of(batch_, seq_);
    const int first = (items_of(n_queries) - 1 - (item - first_) / n_heads_) * kQueriesPerItem;
    return {seq_, (item - first_) % n_heads_, first, std::min(kQueriesPerItem, n_queries - first)};
  }

 private:
  const Batch& batch_;
  int n_heads_;
  int seq_ = 0, first_ = 0;  // a sequence and its first item
};

// What of a range lies between output tokens.
AttendRange output_part(const Batch& batch, const AttendRange& range) {
  const int start = batch.query_start[static_cast<size_t>(range.seq)];
  const auto from = std::ranges::lower_bound(batch.output_tokens, start + range.first);
  const auto to = std::ranges::lower_bound(from, batch.output_tokens.end(), start + range.first + range.n);
  if (from == to) return {range.seq, range.head, range.first, 0};
  return {range.seq, range.head, *from - start, *(to - 1) + 1 - *from};
}

// Columns [column, column + width) of the rows of n tokens, which lie far apart.
void fetch(const Step& step, const ValueRows& rows, int token, int n, int64_t column, int64_t width) {
  for (int t = token; t < token + n; ++t)
    for (int64_t i = 0; i < width; i += kCacheLine / 4) __builtin_prefetch(step.floats(rows, t) + column + i);
}

// Fetches the rows that a range will read.
void fetch_rows(const Step& step, const OpCall& call, const AttendRange& range, bool stores) {
  const AttentionOp& op = call.attention;
  const int token = step.batch->query_start[static_cast<size_t>(range.seq)] + range.first;
  const int64_t group = op.n_heads / op.n_kv_heads * int64_t{op.head_dim};
  fetch(step, call.in, token, range.n, range.head * group, group);
  if (!stores) return;
  fetch(step, call.second, token, range.n, int64_t{range.head} * op.head_dim, op.head_dim);
  fetch(step, call.third, token, range.n, int64_t{range.head} * op.head_dim, op.head_dim);
}

// The finished rows of one head in the formats that the consumers read.
void emit_heads(const Step& step, const OpCall& call, int first_token, int n, int column, int width) {
  if (!call.emits) return;
  ValueRows quantized = call.out;
  quantized[static_cast<size_t>(ActFormat::kF32)] = {};
  const auto f32 = static_cast<size_t>(ActFormat::kF32);
  const float* x = step.floats(call.out, first_token) + column;
  emit_segment(step, quantized, {first_token, n, x, call.out[f32].stride / 4, column, width, call.width});
}

int position_of(const Batch& batch, const AttendRange& range) {
  return batch.positions[static_cast<size_t>(batch.query_start[static_cast<size_t>(range.seq)] + range.first)];
}

const uint8_t* first_tile_of(const Step& step, const OpCall& call, const AttendRange& range) {
  const AttentionOp& op = call.attention;
  const int key = first_visible_key(position_of(*step.batch, range), op.window, op.causal);
  return tile_of(step, step.plan->kv[static_cast<size_t>(op.layer)], range.seq, key / kKvTile, range.head);
}

// next: the tile that the thread will read after the range's.
void attend(const Step& step, const OpCall& call, const AttendRange& range, const uint8_t* next, uint8_t* scratch) {
  const AttentionOp& op = call.attention;
  const KvSlot& slot = step.plan->kv[static_cast<size_t>(op.layer)];
  const Batch& batch = *step.batch;
  const int start = batch.query_start[static_cast<size_t>(range.seq)] + range.first;
  const int position = position_of(batch, range);
  const int n_keys = op.causal ? position + range.n : batch.end_position(range.seq);
  const int n_tiles = (n_keys - 1) / kKvTile + 1;
  auto** tiles = reinterpret_cast<const uint8_t**>(scratch);
  for (int tile = 0; tile < n_tiles; ++tile) tiles[tile] = tile_of(step, slot, range.seq, tile, range.head);
  tiles[n_tiles] = next;
  const int group = op.n_heads / op.n_kv_heads;
  const int64_t column = int64_t{range.head} * group * op.head_dim;
  const auto f32 = static_cast<size_t>(ActFormat::kF32);
  const float* bias =
      call.bias == nullptr ? nullptr : call.bias + range.head * group * relative_bias_width(call.bias_length);
  auto* floats = reinterpret_cast<float*>(scratch + round_up(static_cast<size_t>(n_tiles + 1) * sizeof(void*), 64));
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
  emit_heads(step, call, start, range.n, static_cast<int>(column), group * op.head_dim);
}

// Lists what the thread will read at the next layer, as far as the last cache keeps it, where many sequences have one
// new token each: then most of what attention reads comes from memory, which linears leave idle.
void list_upcoming(const Step& step, const OpCall& call, const Worker& worker) {
  const Batch& batch = *step.batch;
  const auto layer = static_cast<size_t>(call.attention.layer) + 1;
  if (step.upcoming == nullptr) return;
  auto& [pieces, upcoming] = step.upcoming[worker.id];
  pieces.clear();
  const bool many = are_many(batch.n_seqs(), worker.n_threads) && batch.n_tokens() == batch.n_seqs();
  if (many && call.weight_bytes_after > 0 && layer < step.plan->kv.size()) {
    const KvSlot& slot = step.plan->kv[layer];
    const int64_t bytes = 2 * slot.layout.tile_bytes();
    const auto most = static_cast<size_t>(kUpcomingBytes / bytes);
    const TokenRange own = TokenRange::part(batch.n_seqs(), worker.id, worker.n_threads);
    for (int seq = own.begin; seq < own.end && pieces.size() < most; ++seq)
      for (int head = 0; head < slot.layout.n_kv_heads; ++head)
        for (int tile = 0; tile <= (batch.end_position(seq) - 1) / kKvTile; ++tile)
          pieces.push_back(tile_of(step, slot, seq, tile, head));
    const auto n = static_cast<int64_t>(pieces.size());
    upcoming = {.lines = static_cast<int>(bytes / kCacheLine),
                .rate = static_cast<int>(n * bytes * Upcoming::kWeightLines / call.weight_bytes_after)};
  }
  upcoming.next = pieces.data();
  upcoming.end = pieces.data() + pieces.size();
}

}  // namespace

int64_t attention_scratch_bytes(const AttentionOp& op, int max_context) {
  const int64_t tiles = max_context / kKvTile + 2;
  return static_cast<int64_t>(round_up(static_cast<size_t>(tiles) * sizeof(void*), 64)) +
         attention_scratch(op.head_dim) * 4;
}

void attention(const Step& step, const OpCall& call, const Worker& worker) {
  const Batch& batch = *step.batch;
  const bool own = items_own_heads(batch);
  if (!own) {
    store_all(step, call, worker);
    worker.barrier();
  }
  AttendItems items(batch, call.attention.n_kv_heads);
  const int n_items = items.count();
  ChunkFeed feed(step.counters_of(call), worker, n_items);
  for (int item; (item = feed.take()) >= 0;) {
    const AttendRange range = items.at(item);
    const AttendRange after = item + 1 < n_items ? items.at(item + 1) : range;  // probably the thread's next
    fetch_rows(step, call, after, own);
    if (own) for_runs(batch, range.seq, [&](const Run& run) { store_run(step, call, run, range.head); });
    const AttendRange asked = call.last ? output_part(batch, range) : range;
    if (asked.n > 0) attend(step, call, asked, first_tile_of(step, call, after), step.thread_scratch(worker));
  }
  list_upcoming(step, call, worker);
}

}  // namespace octavo::cpu
