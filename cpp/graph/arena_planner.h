// Where the buffers of a plan lie in its arena.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace octavo {

// First-fit placement of buffers whose lifetimes overlap.
class ArenaPlanner {
 public:
  int64_t take(int64_t bytes) {
    bytes = static_cast<int64_t>(round_up(static_cast<size_t>(bytes), kCacheLine));
    int64_t offset = 0;
    auto at = live_.begin();
    for (; at != live_.end() && at->first - offset < bytes; ++at) offset = at->first + at->second;
    live_.insert(at, {offset, bytes});
    peak_ = std::max(peak_, offset + bytes);
    return offset;
  }
  void release(int64_t offset) {
    std::erase_if(live_, [&](const auto& buffer) { return buffer.first == offset; });
  }
  int64_t peak() const { return peak_; }

 private:
  std::vector<std::pair<int64_t, int64_t>> live_;  // (offset, bytes), ascending
  int64_t peak_ = 0;
};

}  // namespace octavo
