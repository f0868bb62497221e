// The merges of a BPE vocabulary that stores scores in their place, as SentencePiece's does.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace octavo {

struct Merge {
  int32_t left;  // ids of the halves
  int32_t right;
  auto operator<=>(const Merge&) const = default;
};

// Every way to cut a token (n_tokens, UTF-8) into two tokens, best first: by the whole token's score, highest first,
// then its id, then the ids of the halves. Linear in the bytes of all tokens, however long one is.
std::vector<Merge> merges_from_scores(std::span<const std::string_view> tokens, std::span<const float> scores);

}  // namespace octavo
