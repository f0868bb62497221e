#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <vector>

#include "engine/block_hash.h"
#include "engine/philox.h"

using namespace octavo;

TEST_CASE("philox: known answers of the 4x32-10 generator") {
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == PhiloxCounter{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == PhiloxCounter{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
        PhiloxCounter{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("philox: uniform never reaches an end point, in double and as a race time") {
  CHECK(uniform(0) > 0.0);
  CHECK(uniform(~0u) < 1.0);
  CHECK(std::isfinite(-std::log1p(-uniform(~0u))));
  CHECK(-std::log1p(-uniform(0)) >= uniform(0));
}

TEST_CASE("philox: streams of different sequences and positions differ") {
  std::set<PhiloxCounter> seen;
  int n = 0;
  const auto add = [&](const NoiseKey& noise) {
    for (uint32_t position = 0; position < 3; ++position) {
      for (uint32_t group = 0; group < 3; ++group, ++n) seen.insert(noise_words(noise, position, group));
    }
  };
  for (uint64_t a : {0ull, 1ull, 7ull, 1ull << 32, 1ull << 40}) {
    add(seeded_noise(a, 0));
    for (uint64_t request : {0ull, 1ull, 1ull << 32, 1ull << 33}) {
      for (uint32_t child : {0u, 1u, 16383u}) add(engine_noise(a, request, child));
    }
  }
  CHECK(seen.size() == static_cast<size_t>(n));
  CHECK(seeded_noise(5, 3).key == seeded_noise(8, 0).key);  // child i of seed s is seed s + i
}

TEST_CASE("block_hash: a hash covers the tokens, their order, the parent and the salt") {
  const std::vector<Token> a = {1, 2, 3, 4}, b = {1, 2, 4, 3}, c = {1, 2, 3, 5};
  std::set<PhiloxCounter> seen;
  for (const char* salt : {"", "x", "xy"}) {
    const BlockHash root = root_hash(salt);
    for (const auto& tokens : {a, b, c}) {
      const BlockHash first = next_hash(root, tokens);
      seen.insert(first.words);
      for (const auto& second : {a, b, c}) seen.insert(next_hash(first, second).words);
    }
  }
  CHECK(seen.size() == 3 * 3 * 4);
  CHECK(next_hash(root_hash("x"), a) == next_hash(root_hash("x"), a));
}
