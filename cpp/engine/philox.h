// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011),
// and the names of sampling noise. A random word is a pure function of (key, position, id): nothing is stored.
#pragma once

#include <array>
#include <cstdint>

namespace octavo {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter philox(const PhiloxCounter& counter, const PhiloxKey& key) {
  auto [c0, c1, c2, c3] = counter;
  auto [k0, k1] = key;
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c0;
    const uint64_t b = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// Uniform in (0, 1), never an end point. All 32 bits count: 24 would make tokens below 6e-8 unreachable.
constexpr double uniform(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

// The noise of one sequence.
struct NoiseKey {
  PhiloxKey key{};
  std::array<uint32_t, 2> stream{};
};

// For a request with its own seed: the same wherever and whenever the request runs.
constexpr NoiseKey seeded_noise(uint64_t seed, uint32_t child) {
  const uint64_t key = seed + child;
  return {{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)}, {0, 0}};
}

// For a request without one. The set top bit keeps these streams apart from the seeded ones; child < 2^16.
constexpr NoiseKey engine_noise(uint64_t engine_seed, uint64_t request, uint32_t child) {
  const uint32_t high = 0x80000000u | static_cast<uint32_t>((request >> 32) & 0x7fffu) << 16 | (child & 0xffffu);
  return {{static_cast<uint32_t>(engine_seed), static_cast<uint32_t>(engine_seed >> 32)},
          {static_cast<uint32_t>(request), high}};
}

// The words of token ids 4 * group .. 4 * group + 3 at one output position.
constexpr PhiloxCounter noise_words(const NoiseKey& noise, uint32_t position, uint32_t group) {
  return philox({group, position, noise.stream[0], noise.stream[1]}, noise.key);
}

}  // namespace octavo
