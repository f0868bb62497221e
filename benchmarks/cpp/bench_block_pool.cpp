// The block pool with thousands of sequences: handing out, giving back, and finding cached prefixes. ops/s counts
// blocks.
#include <string>
#include <vector>

#include "base/check.h"
#include "bench_util.h"
#include "engine/block_pool.h"

namespace octavo::bench {
namespace {

constexpr int kBlockTokens = 32;
constexpr int kBlocksPerSeq = 16;

// The full blocks of one sequence: tokens and the chain of hashes.
struct Prefix {
  std::vector<Token> tokens;
  std::vector<BlockHash> hashes;

  explicit Prefix(int number) {
    for (int i = 0; i < kBlocksPerSeq * kBlockTokens; ++i) tokens.push_back(number * 31 + i);
    BlockHash parent = root_hash("");
    for (int b = 0; b < kBlocksPerSeq; ++b) hashes.push_back(parent = next_hash(parent, block(b)));
  }

  std::span<const Token> block(int b) const {
    return std::span(tokens).subspan(static_cast<size_t>(b) * kBlockTokens, kBlockTokens);
  }
  BlockHash hash(int b) const { return hashes[static_cast<size_t>(b)]; }
  BlockHash parent(int b) const { return b == 0 ? root_hash("") : hash(b - 1); }
};

std::vector<Prefix> make_prefixes(int n_seqs) {
  std::vector<Prefix> prefixes;
  for (int s = 0; s < n_seqs; ++s) prefixes.emplace_back(s);
  return prefixes;
}

using Tables = std::vector<std::vector<int32_t>>;

Tables allocate(BlockPool& pool, int n_seqs) {
  Tables tables(static_cast<size_t>(n_seqs));
  for (int b = 0; b < kBlocksPerSeq; ++b)
    for (auto& table : tables) table.push_back(pool.allocate());
  return tables;
}

void fill_cache(BlockPool& pool, const Tables& tables, const std::vector<Prefix>& prefixes) {
  for (size_t s = 0; s < prefixes.size(); ++s)
    for (int b = 0; b < kBlocksPerSeq; ++b)
      pool.cache(tables[s][static_cast<size_t>(b)], prefixes[s].hash(b), prefixes[s].parent(b), prefixes[s].block(b));
}

void release(BlockPool& pool, const Tables& tables) {
  for (const auto& table : tables) pool.release(table);
}

template <class Pass>
void report(benchmark::State& state, int n_seqs, const Pass& pass) {
  const PassTimes times = time_passes(state, [&] {
    const double start = now();
    pass();
    return now() - start;
  });
  state.counters["ops/s"] = n_seqs * kBlocksPerSeq / times.mean();
  state.counters["s/op"] = times.mean() / (n_seqs * kBlocksPerSeq);
}

// Sequences grow block by block, side by side, and end: one op is one block's life.
void bench_allocate_release(benchmark::State& state, int n_seqs) {
  BlockPool pool(n_seqs * kBlocksPerSeq, kBlockTokens);
  report(state, n_seqs, [&] { release(pool, allocate(pool, n_seqs)); });
}

// The same with blocks that enter the cache and push older content out.
void bench_cache_evict(benchmark::State& state, int n_seqs) {
  const std::vector<Prefix> prefixes = make_prefixes(2 * n_seqs), even(prefixes.begin(), prefixes.begin() + n_seqs),
                            odd(prefixes.begin() + n_seqs, prefixes.end());
  BlockPool pool(n_seqs * kBlocksPerSeq, kBlockTokens);
  bool first = true;
  report(state, n_seqs, [&] {
    const Tables tables = allocate(pool, n_seqs);
    fill_cache(pool, tables, first ? even : odd);
    release(pool, tables);
    first = !first;
  });
}

// Every block is found, shared and given back.
void bench_prefix_hit(benchmark::State& state, int n_seqs) {
  const std::vector<Prefix> prefixes = make_prefixes(n_seqs);
  BlockPool pool(n_seqs * kBlocksPerSeq, kBlockTokens);
  const Tables tables = allocate(pool, n_seqs);
  fill_cache(pool, tables, prefixes);
  release(pool, tables);
  std::vector<int32_t> found;
  report(state, n_seqs, [&] {
    for (const Prefix& prefix : prefixes) {
      found.clear();
      for (int b = 0; b < kBlocksPerSeq; ++b) {
        found.push_back(pool.find(prefix.hash(b), prefix.parent(b), prefix.block(b)));
        pool.share(found.back());
      }
      pool.release(found);
    }
  });
}

void bench_hash(benchmark::State& state, int n_seqs) {
  const std::vector<Prefix> prefixes = make_prefixes(n_seqs);
  report(state, n_seqs, [&] {
    for (const Prefix& prefix : prefixes) {
      BlockHash hash = root_hash("");
      for (int b = 0; b < kBlocksPerSeq; ++b) hash = next_hash(hash, prefix.block(b));
      benchmark::DoNotOptimize(hash);
    }
  });
}

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  using namespace octavo;
  using Bench = void (*)(benchmark::State&, int);
  const std::pair<const char*, Bench> benches[] = {{"allocate_release", bench::bench_allocate_release},
                                                   {"cache_evict", bench::bench_cache_evict},
                                                   {"prefix_hit", bench::bench_prefix_hit},
                                                   {"hash", bench::bench_hash}};
  for (const auto& [what, function] : benches) {
    for (const int n_seqs : {256, 4096}) {
      const std::string name = concat("block_pool/", what, "/seqs:", n_seqs);
      benchmark::RegisterBenchmark(name.c_str(), function, n_seqs)->UseManualTime()->Unit(benchmark::kMillisecond);
    }
  }
  return bench::run(argc, argv);
}
