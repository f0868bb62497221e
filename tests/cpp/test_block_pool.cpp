#include <doctest/doctest.h>

#include <random>
#include <set>
#include <vector>

#include "base/check.h"
#include "engine/block_pool.h"

using namespace octavo;

namespace {

constexpr int kSize = 4;

std::vector<Token> block_tokens(Token first) { return {first, first + 1, first + 2, first + 3}; }

// Caches `tokens` in a fresh block as the first of its sequence.
int32_t cached_block(BlockPool& pool, Token first) {
  const int32_t block = pool.allocate();
  const std::vector<Token> tokens = block_tokens(first);
  pool.cache(block, next_hash(root_hash(""), tokens), root_hash(""), tokens);
  return block;
}

int32_t find(const BlockPool& pool, Token first) {
  const std::vector<Token> tokens = block_tokens(first);
  return pool.find(next_hash(root_hash(""), tokens), root_hash(""), tokens);
}

void release(BlockPool& pool, std::vector<int32_t> blocks) { pool.release(blocks); }

}  // namespace

TEST_CASE("block_pool: blocks without content are reused first, then fresh ones, then the least recently used") {
  BlockPool pool(6, kSize);
  const int32_t a = cached_block(pool, 10), b = cached_block(pool, 20), plain = pool.allocate();
  release(pool, {a});
  release(pool, {plain});
  release(pool, {b});
  CHECK(pool.n_free() == 6);
  CHECK(pool.allocate() == plain);
  for (int i = 0; i < 3; ++i) CHECK(pool.allocate() == 3 + i);
  CHECK(find(pool, 10) == a);
  CHECK(pool.allocate() == a);
  CHECK(find(pool, 10) == -1);
  CHECK(find(pool, 20) == b);
  CHECK(pool.allocate() == b);
  CHECK_THROWS_AS(pool.allocate(), Error);
}

TEST_CASE("block_pool: the tail of a sequence is evicted before its head") {
  BlockPool pool(3, kSize);
  std::vector<int32_t> blocks;
  for (Token first : {10, 20, 30}) blocks.push_back(cached_block(pool, first));
  pool.release(blocks);
  CHECK(pool.allocate() == blocks[2]);
  CHECK(pool.allocate() == blocks[1]);
  CHECK(find(pool, 10) == blocks[0]);
}

TEST_CASE("block_pool: sharing revives a free block and counts owners") {
  BlockPool pool(2, kSize);
  const int32_t a = cached_block(pool, 10);
  release(pool, {a});
  CHECK(pool.is_free(a));
  pool.share(a);
  pool.share(a);
  CHECK(pool.n_free() == 1);
  const std::vector<int> two = {2, 0};
  pool.check_integrity(two);
  release(pool, {a});
  CHECK(!pool.is_free(a));
  release(pool, {a});
  CHECK(pool.n_free() == 2);
  CHECK_THROWS_AS(release(pool, {a}), Error);
}

TEST_CASE("block_pool: a hit is verified, the first of two equal blocks is the cached one") {
  BlockPool pool(4, kSize);
  const int32_t a = cached_block(pool, 10), twin = cached_block(pool, 10);
  CHECK(find(pool, 10) == a);
  const std::vector<Token> tokens = block_tokens(10), other = block_tokens(11);
  const BlockHash root = root_hash(""), hash = next_hash(root, tokens);
  CHECK(pool.find(hash, root, other) == -1);                // same hash, other tokens
  CHECK(pool.find(hash, root_hash("salt"), tokens) == -1);  // same hash, other past
  release(pool, {twin, a});
  CHECK(pool.n_cached() == 1);
  CHECK(pool.allocate() == twin);
}

TEST_CASE("block_pool: without caching nothing is found; clear_cache forgets") {
  BlockPool off(2, kSize, false);
  cached_block(off, 10);
  CHECK(find(off, 10) == -1);
  BlockPool pool(3, kSize);
  const int32_t a = cached_block(pool, 10), b = cached_block(pool, 20);
  release(pool, {a});
  pool.clear_cache();
  CHECK(find(pool, 10) == -1);
  CHECK(find(pool, 20) == -1);
  std::vector<int> references(3);
  references[static_cast<size_t>(b)] = 1;
  pool.check_integrity(references);
  CHECK(pool.allocate() == a);
}

TEST_CASE("block_pool: check_integrity notices a lost reference") {
  BlockPool pool(2, kSize);
  pool.allocate();
  const std::vector<int> none = {0, 0}, wrong = {0, 1};
  CHECK_THROWS_AS(pool.check_integrity(none), Error);
  CHECK_THROWS_AS(pool.check_integrity(wrong), Error);
}

TEST_CASE("block_pool: random traffic keeps every invariant") {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    BlockPool pool(5 + static_cast<int>(seed % 7), kSize, seed % 5 != 0);
    std::vector<std::vector<int32_t>> tables;
    std::vector<int> references(static_cast<size_t>(pool.n_blocks()));
    for (int step = 0; step < 500; ++step) {
      const Token first = static_cast<Token>(random() % 12);
      switch (random() % 4) {
        case 0:
          if (pool.n_free() > 0) tables.push_back({pool.allocate()});
          break;
        case 1:
          if (pool.n_free() > 0) tables.push_back({cached_block(pool, first)});
          break;
        case 2:
          if (const int32_t block = find(pool, first); block >= 0) {
            pool.share(block);
            tables.push_back({block});
          }
          break;
        default:
          if (tables.empty()) break;
          std::swap(tables[random() % tables.size()], tables.back());
          pool.release(tables.back());
          tables.pop_back();
      }
      if (random() % 100 == 0) pool.clear_cache();
      std::fill(references.begin(), references.end(), 0);
      for (const auto& table : tables) {
        for (const int32_t block : table) ++references[static_cast<size_t>(block)];
      }
      REQUIRE_NOTHROW(pool.check_integrity(references));
    }
  }
}
