// Counters and times that the engine keeps.
#pragma once

#include <chrono>
#include <cstdint>

namespace octavo {

using Clock = std::chrono::steady_clock;

// Seconds on the steady clock; 0: not yet.
struct SequenceTimes {
  double queued = 0;
  double scheduled = 0;
  double first_token = 0;
  double last_token = 0;
};

inline double now_seconds() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

struct EngineStats {
  int64_t n_steps = 0;
  int64_t n_prompt_tokens = 0;  // computed, not taken from the cache
  int64_t n_output_tokens = 0;
  int64_t n_cached_tokens = 0;
  int64_t n_preemptions = 0;
  int n_running = 0;
  int n_waiting = 0;
  int n_blocks = 0;
  int n_free_blocks = 0;
};

}  // namespace octavo
