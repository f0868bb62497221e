// Chained 128-bit hashes that name the content of KV blocks: a block's hash covers every token before it too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "engine/philox.h"

namespace octavo {

using Token = int32_t;

struct BlockHash {
  PhiloxCounter words{};
  bool operator==(const BlockHash&) const = default;
};

struct BlockHashHasher {
  size_t operator()(const BlockHash& hash) const {
    return static_cast<size_t>(uint64_t{hash.words[0]} << 32 | hash.words[1]);
  }
};

// One compression step in Davies-Meyer form: the state is encrypted under the data, then added to the result.
constexpr void absorb(BlockHash& hash, PhiloxKey data) {
  const PhiloxCounter mixed = philox(hash.words, data);
  for (size_t i = 0; i < mixed.size(); ++i) hash.words[i] ^= mixed[i];
}

// What the first block of a sequence has as parent. Sequences share blocks only if their salts are equal.
inline BlockHash root_hash(std::string_view salt) {
  BlockHash hash;
  absorb(hash, {static_cast<uint32_t>(salt.size()), 0x6f637461u});
  for (const char byte : salt) absorb(hash, {static_cast<unsigned char>(byte), 1});
  return hash;
}

// The hash of the full block `tokens` that follows `parent`.
inline BlockHash next_hash(const BlockHash& parent, std::span<const Token> tokens) {
  BlockHash hash = parent;
  for (size_t i = 0; i < tokens.size(); i += 2) {
    const Token second = i + 1 < tokens.size() ? tokens[i + 1] : 0;
    absorb(hash, {static_cast<uint32_t>(tokens[i]), static_cast<uint32_t>(second)});
  }
  return hash;
}

}  // namespace octavo
