// The largest of many floats without sorting them: a radix search over the order-preserving bits of a float.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace octavo {

// a < b  <=>  order_key(a) < order_key(b). Both zeros are equal; NaN lies below everything.
inline uint32_t order_key(float x) {
  if (std::isnan(x)) return 0;
  const auto bits = std::bit_cast<uint32_t>(x + 0.0f);
  return bits ^ (static_cast<uint32_t>(-static_cast<int32_t>(bits >> 31)) | 0x80000000u);
}

// The inverse of order_key for keys of numbers.
inline float from_order_key(uint32_t key) {
  return std::bit_cast<float>((key & 0x80000000u) ? key ^ 0x80000000u : ~key);
}

// The last value that is kept when values are taken from the largest down while the weight taken is below a limit.
struct Cut {
  uint32_t key = 0;  // of that value; 0: all are kept
  int n_equal = 0;   // how many values equal to it are taken
};

// Each value weighs 1 (kByCount), or its own size, in double (kByMass; values >= 0).
enum class Weigh { kByCount, kByMass };

namespace detail {

inline constexpr int kDigitBits = 11;
inline constexpr std::array<int, 3> kDigitShift = {21, 10, 0};

template <Weigh kWeigh>
double weight_of(uint32_t key) {
  return kWeigh == Weigh::kByCount ? 1.0 : static_cast<double>(from_order_key(key));
}

inline size_t digit_of(uint32_t key, size_t level) {
  const int n_bits = level == 2 ? 10 : kDigitBits;
  return (key >> kDigitShift[level]) & ((1u << n_bits) - 1);
}

}  // namespace detail

// Linear in the number of values. keys is scratch. The result depends on the values and their order alone.
template <Weigh kWeigh>
Cut find_cut(std::span<const float> values, double limit, std::vector<uint32_t>& keys) {
  keys.resize(values.size());
  std::transform(values.begin(), values.end(), keys.begin(), order_key);
  double taken = 0;  // weight of the values above the bucket that is being searched
  for (size_t level = 0; level < 3; ++level) {
    std::array<double, 1 << detail::kDigitBits> weights{};
    for (const uint32_t key : keys) weights[detail::digit_of(key, level)] += detail::weight_of<kWeigh>(key);
    size_t lowest = 0;  // the last bucket seen with anything in it
    bool found = false;
    for (size_t bucket = weights.size(); bucket-- > 0 && !found;) {
      if (weights[bucket] == 0) continue;
      lowest = bucket;
      found = taken + weights[bucket] >= limit;
      if (!found) taken += weights[bucket];
    }
    if (!found && level == 0) return {};
    // Only by rounding: the parts of a bucket add up to a little less than the bucket did.
    if (!found) taken -= weights[lowest];
    std::erase_if(keys, [&](uint32_t key) { return detail::digit_of(key, level) != lowest; });
  }
  const uint32_t key = keys.front();
  const double n_more = std::ceil((limit - taken) / detail::weight_of<kWeigh>(key));
  const double n_equal = std::clamp(n_more, 1.0, static_cast<double>(keys.size()));
  return {key, static_cast<int>(n_equal)};
}

}  // namespace octavo
