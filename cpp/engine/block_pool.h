// The KV blocks of an engine: reference counts, and a prefix cache over full blocks.
//
// Every block is in exactly one place: referenced (count > 0), in the free list, or never used yet. A freed block
// keeps its content's hash until it is handed out again, so the cache needs no eviction of its own. The free list is
//   head | blocks without a hash | hashed, least recently used ... most recently used | tail
// and blocks are handed out in this order: without a hash, never used, least recently used.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/block_hash.h"

namespace octavo {

class BlockPool {
 public:
  BlockPool(int n_blocks, int block_size, bool enable_caching = true);

  int n_blocks() const { return static_cast<int>(blocks_.size()); }
  int block_size() const { return block_size_; }
  bool caching() const { return caching_; }
  int n_free() const { return n_listed_ + n_blocks() - n_used_; }
  int n_cached() const { return static_cast<int>(cached_.size()); }
  int blocks_for(int n_tokens) const { return (n_tokens + block_size_ - 1) / block_size_; }
  bool is_free(int32_t block) const { return blocks_[static_cast<size_t>(block)].n_references == 0; }

  // A block with no other owner. There must be a free one.
  int32_t allocate();
  // One more owner for a block that find() gave.
  void share(int32_t block);
  // Drops one reference of each, last first, so that a prefix outlives its continuation.
  void release(std::span<const int32_t> blocks);

  // The block that holds the KV of `tokens` after `parent`, or -1. Verified by comparing the content.
  int32_t find(const BlockHash& hash, const BlockHash& parent, std::span<const Token> tokens) const;
  // Enters a referenced full block into the cache; does nothing when its content is there already.
  void cache(int32_t block, const BlockHash& hash, const BlockHash& parent, std::span<const Token> tokens);
  // Forgets all cached content; referenced blocks stay valid for their owners.
  void clear_cache();

  // Throws Error naming the broken invariant. references[b]: how many tables hold block b.
  void check_integrity(std::span<const int> references) const;

 private:
  struct Block {
    int n_references = 0;
    bool hashed = false;
    int32_t prev = -1;
    int32_t next = -1;
    BlockHash hash;
    BlockHash parent;
  };

  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& at(int32_t block) const { return blocks_[static_cast<size_t>(block)]; }
  std::span<Token> tokens_of(int32_t block) const;
  void push_head(int32_t block);
  void push_tail(int32_t block);
  void unlink(int32_t block);
  void forget(int32_t block);
  int check_list() const;
  void check_cache() const;

  int block_size_;
  bool caching_;
  std::vector<Block> blocks_;
  std::unique_ptr<Token[]> tokens_;  // (n_blocks, block_size), of hashed blocks
  std::unordered_map<BlockHash, int32_t, BlockHashHasher> cached_;
  int32_t head_ = -1;
  int32_t tail_ = -1;
  int n_listed_ = 0;
  int n_used_ = 0;  // blocks n_used_ .. n_blocks - 1 were never handed out
};

}  // namespace octavo
