#include "engine/block_pool.h"

#include <algorithm>

#include "base/check.h"

namespace octavo {

BlockPool::BlockPool(int n_blocks, int block_size, bool enable_caching)
    : block_size_(block_size), caching_(enable_caching) {
  OCTAVO_CHECK(n_blocks > 0 && block_size > 0, "[block_pool] needs at least one block of at least one token, got ",
               n_blocks, " of ", block_size);
  blocks_.resize(static_cast<size_t>(n_blocks));
  // Left uninitialised: a pool that is never filled costs address space only.
  if (caching_) tokens_.reset(new Token[static_cast<size_t>(n_blocks) * static_cast<size_t>(block_size)]);
}

int32_t BlockPool::allocate() {
  const bool list_first = head_ >= 0 && (!at(head_).hashed || n_used_ == n_blocks());
  int32_t block = head_;
  if (list_first) {
    unlink(block);
    if (at(block).hashed) forget(block);
  } else {
    OCTAVO_CHECK(n_used_ < n_blocks(), "[block_pool] no free block");
    block = n_used_++;
  }
  at(block).n_references = 1;
  return block;
}

void BlockPool::share(int32_t block) {
  if (at(block).n_references++ == 0) unlink(block);
}

void BlockPool::release(std::span<const int32_t> blocks) {
  for (size_t i = blocks.size(); i-- > 0;) {
    Block& block = at(blocks[i]);
    OCTAVO_CHECK(block.n_references > 0, "[block_pool] block ", blocks[i], " was released twice");
    if (--block.n_references > 0) continue;
    block.hashed ? push_tail(blocks[i]) : push_head(blocks[i]);
  }
}

int32_t BlockPool::find(const BlockHash& hash, const BlockHash& parent, std::span<const Token> tokens) const {
  const auto found = cached_.find(hash);
  if (found == cached_.end()) return -1;
  const int32_t block = found->second;
  const bool same = at(block).parent == parent && std::ranges::equal(tokens_of(block), tokens);
  return same ? block : -1;
}

void BlockPool::cache(int32_t block, const BlockHash& hash, const BlockHash& parent, std::span<const Token> tokens) {
  if (!caching_ || at(block).hashed) return;
  if (!cached_.emplace(hash, block).second) return;
  at(block).hashed = true;
  at(block).hash = hash;
  at(block).parent = parent;
  std::ranges::copy(tokens, tokens_of(block).begin());
}

void BlockPool::clear_cache() {
  for (const auto& [hash, block] : cached_) at(block).hashed = false;
  cached_.clear();
}

std::span<Token> BlockPool::tokens_of(int32_t block) const {
  const size_t size = static_cast<size_t>(block_size_);
  return {tokens_.get() + static_cast<size_t>(block) * size, size};
}

void BlockPool::push_head(int32_t block) {
  at(block).prev = -1;
  at(block).next = head_;
  (head_ < 0 ? tail_ : at(head_).prev) = block;
  head_ = block;
  ++n_listed_;
}

void BlockPool::push_tail(int32_t block) {
  at(block).prev = tail_;
  at(block).next = -1;
  (tail_ < 0 ? head_ : at(tail_).next) = block;
  tail_ = block;
  ++n_listed_;
}

void BlockPool::unlink(int32_t block) {
  const auto [prev, next] = std::pair(at(block).prev, at(block).next);
  (prev < 0 ? head_ : at(prev).next) = next;
  (next < 0 ? tail_ : at(next).prev) = prev;
  --n_listed_;
}

void BlockPool::forget(int32_t block) {
  cached_.erase(at(block).hash);
  at(block).hashed = false;
}

void BlockPool::check_integrity(std::span<const int> references) const {
  int n_referenced = 0;
  for (int32_t b = 0; b < n_blocks(); ++b) {
    const int expected = references[static_cast<size_t>(b)];
    OCTAVO_CHECK(at(b).n_references == expected, "[block_pool] block ", b, " counts ", at(b).n_references,
                 " references, tables hold ", expected);
    OCTAVO_CHECK(expected == 0 || b < n_used_, "[block_pool] block ", b, " is referenced but was never handed out");
    n_referenced += expected > 0;
  }
  OCTAVO_CHECK(check_list() == n_listed_, "[block_pool] the free list's length differs from its count ", n_listed_);
  OCTAVO_CHECK(n_listed_ + n_referenced == n_used_, "[block_pool] ", n_listed_, " free and ", n_referenced,
               " referenced blocks are not the ", n_used_, " used ones");
  check_cache();
}

// Walks the free list; returns its length.
int BlockPool::check_list() const {
  int n = 0;
  bool hashed = false;
  int32_t prev = -1;
  for (int32_t b = head_; b >= 0; prev = b, b = at(b).next) {
    OCTAVO_CHECK(++n <= n_blocks(), "[block_pool] the free list has a cycle");
    OCTAVO_CHECK(at(b).prev == prev, "[block_pool] block ", b, " has a wrong back link");
    OCTAVO_CHECK(at(b).n_references == 0, "[block_pool] block ", b, " is referenced and in the free list");
    OCTAVO_CHECK(at(b).hashed >= hashed, "[block_pool] block ", b, " without a hash lies behind a hashed one");
    hashed = at(b).hashed;
  }
  OCTAVO_CHECK(tail_ == prev, "[block_pool] the free list does not end at its tail");
  return n;
}

void BlockPool::check_cache() const {
  for (const auto& [hash, block] : cached_) {
    OCTAVO_CHECK(at(block).hashed && at(block).hash == hash, "[block_pool] block ", block,
                 " is cached under a hash not its own");
    OCTAVO_CHECK(next_hash(at(block).parent, tokens_of(block)) == hash, "[block_pool] block ", block,
                 " has tokens that do not give its hash");
  }
  const auto n_hashed = std::ranges::count_if(blocks_, [](const Block& block) { return block.hashed; });
  OCTAVO_CHECK(n_hashed == n_cached(), "[block_pool] ", n_hashed, " blocks have a hash, the cache knows ", n_cached());
}

}  // namespace octavo
