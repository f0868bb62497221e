// What one step of a plan reads: the ragged batch and the memory that ops work in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "graph/plan.h"

namespace octavo {

// One ragged batch: the sequences' new tokens side by side on one axis.
struct Batch {
  std::vector<int32_t> token_ids;    // (n_tokens)
  std::vector<int32_t> positions;    // (n_tokens)
  std::vector<int32_t> query_start;  // (n_seqs + 1): tokens [query_start[s], query_start[s + 1]) are of sequence s
  std::vector<const int32_t*> block_tables;  // (n_seqs): KV blocks of sequence s, enough for its last position
  std::vector<int32_t> output_tokens;        // (n_outputs), ascending: tokens whose rows the body gives out
  std::vector<int32_t> gather;               // (n_rows): which of these rows a head plan reads
  std::vector<int32_t> token_types;          // (n_tokens), or empty: all 0
  std::vector<const float*> embeds;          // (n_tokens): a row instead of the token's own, or null; or empty
  std::vector<int32_t> rope_lengths;         // (n_seqs): tokens that a sequence may grow to; or empty: as they are

  int n_tokens() const { return static_cast<int>(token_ids.size()); }
  int n_seqs() const { return static_cast<int>(block_tables.size()); }
  int token_type(int token) const { return token_types.empty() ? 0 : token_types[static_cast<size_t>(token)]; }
  const float* embed(int token) const { return embeds.empty() ? nullptr : embeds[static_cast<size_t>(token)]; }
  int sequence_of(int token) const {
    const auto after = std::upper_bound(query_start.begin(), query_start.end(), token);
    return static_cast<int>(after - query_start.begin()) - 1;
  }
  // One past the last position of a sequence's new tokens.
  int end_position(int seq) const {
    return positions[static_cast<size_t>(query_start[static_cast<size_t>(seq) + 1]) - 1] + 1;
  }
  int rope_length(int token) const {
    const int seq = sequence_of(token);
    return rope_lengths.empty() ? end_position(seq) : rope_lengths[static_cast<size_t>(seq)];
  }
};

constexpr int counters_per_call(int n_threads) { return 2 * n_threads; }

// What a thread will read at the next attention.
struct alignas(kCacheLine) ThreadUpcoming {
  std::vector<const uint8_t*> pieces;
  Upcoming upcoming;
};

struct Step {
  const KernelTable* kernels;
  const Plan* plan;
  const Batch* batch;
  int n_rows;             // tokens of a body (from first_output_call on those it gives out), gathered rows of a head
  const int32_t* gather;  // (n_rows), heads only
  Logits logits;          // heads only
  int32_t* largest;       // (n_rows): with Logits::kLargest, which is
  const float* hidden;    // the body's output, heads only
  int64_t hidden_stride;  // bytes
  uint8_t* arena;
  uint8_t* scratch;  // n_threads * plan->scratch_bytes
  uint8_t* kv;       // KV block 0
  int n_threads;
  Counter* counters;                             // (n_calls, counters_per_call(n_threads)), at zero
  ThreadUpcoming* upcoming;                      // (n_threads), or null
  std::vector<std::vector<float>>* rope_tables;  // by rope: (n_tokens, 2, half): cos, sin

  template <class T>
  T* row(const Rows& rows, int64_t index) const {
    return reinterpret_cast<T*>(arena + rows.offset + index * rows.stride);
  }
  float* floats(const ValueRows& rows, int64_t index) const {
    return row<float>(rows[static_cast<size_t>(ActFormat::kF32)], index);
  }
  // A call's counters, one per thread for a ChunkFeed, or the first alone; and those for what comes before its barrier.
  Counter* counters_of(const OpCall& call) const { return counters + call.index * counters_per_call(n_threads); }
  Counter* first_counters(const OpCall& call) const { return counters_of(call) + n_threads; }
  // Null where there is nothing.
  Upcoming* upcoming_of(const Worker& worker) const {
    if (upcoming == nullptr) return nullptr;
    Upcoming& own = upcoming[worker.id].upcoming;
    return own.next == own.end ? nullptr : &own;
  }
  uint8_t* thread_scratch(const Worker& worker) const { return scratch + worker.id * plan->scratch_bytes; }
};

}  // namespace octavo
