#include "text/merges.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace octavo {
namespace {

constexpr uint64_t kBase = 0x9E3779B97F4A7C15;  // odd, so that its powers never vanish

// Polynomial hashes, which grow by a byte at either end.
uint64_t value(char byte) { return static_cast<uint8_t>(byte) + uint64_t{1}; }
uint64_t extended(uint64_t hash, char byte) { return hash * kBase + value(byte); }

uint64_t hash_of(std::string_view text) {
  uint64_t hash = 0;
  for (const char byte : text) hash = extended(hash, byte);
  return hash;
}

bool starts_character(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; }

// Token -> id; of equal tokens the last one's.
class TokenIds {
 public:
  explicit TokenIds(std::span<const std::string_view> tokens)
      : tokens_(tokens), slots_(std::bit_ceil(2 * tokens.size())) {
    for (size_t id = 0; id < tokens.size(); ++id) {
      const uint64_t hash = hash_of(tokens[id]);
      slots_[find(hash, tokens[id])] = {tag(hash), static_cast<int32_t>(id)};
    }
  }

  // -1 where there is no such token.
  int32_t id(uint64_t hash, std::string_view token) const { return slots_[find(hash, token)].id; }

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };

  // What is compared before the texts; the place in the table comes from other bits too.
  static uint32_t tag(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

  // The slot of the token, or the empty one where it would be.
  size_t find(uint64_t hash, std::string_view token) const {
    const size_t mask = slots_.size() - 1;
    size_t at = (hash ^ hash >> 40) & mask;
    while (slots_[at].id >= 0 && (slots_[at].tag != tag(hash) || tokens_[slots_[at].id] != token)) at = (at + 1) & mask;
    return at;
  }

  std::span<const std::string_view> tokens_;
  std::vector<Slot> slots_;
};

std::vector<int32_t> best_first(std::span<const float> scores) {
  const auto key = [&](int32_t id) {
    return std::isnan(scores[id]) ? -std::numeric_limits<float>::infinity() : scores[id];
  };
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater{}, key);
  return order;
}

// Finds the cuts of one token after another; its buffer is kept between them.
class Cutter {
 public:
  explicit Cutter(const TokenIds& ids) : ids_(ids) {}

  void append_cuts(std::vector<Merge>& out, std::string_view token) {
    hash_beginnings(token);
    const auto n_before = static_cast<std::ptrdiff_t>(out.size());
    uint64_t right_hash = 0, power = 1;
    for (size_t at = token.size(); at-- > 1; power *= kBase) {
      right_hash += power * value(token[at]);
      if (!starts_character(token[at])) continue;
      const int32_t left = ids_.id(beginnings_[at], token.substr(0, at));
      const int32_t right = left < 0 ? -1 : ids_.id(right_hash, token.substr(at));
      if (right >= 0) out.push_back({left, right});
    }
    std::sort(out.begin() + n_before, out.end());
  }

 private:
  void hash_beginnings(std::string_view token) {
    beginnings_.assign(1, 0);
    for (const char byte : token) beginnings_.push_back(extended(beginnings_.back(), byte));
  }

  const TokenIds& ids_;
  std::vector<uint64_t> beginnings_;  // by length in bytes
};

}  // namespace

std::vector<Merge> merges_from_scores(std::span<const std::string_view> tokens, std::span<const float> scores) {
  OCTAVO_CHECK(tokens.size() == scores.size(), tokens.size(), " tokens have ", scores.size(), " scores.");
  const TokenIds ids(tokens);
  std::vector<Merge> merges;
  Cutter cutter(ids);
  for (const int32_t id : best_first(scores)) cutter.append_cuts(merges, tokens[id]);
  return merges;
}

}  // namespace octavo
