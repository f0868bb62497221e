// The process's one thread pool. A job runs the same function on every participating thread; inside it
// threads meet at barriers and share work through Counter. Waiting threads spin briefly, then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace octavo {

class Team;

// One participant's view of a running job.
struct Worker {
  int id = 0;
  int n_threads = 1;
  Team* team = nullptr;

  // All participants meet. Throws Cancelled when another participant failed.
  void barrier() const;
};

// Thrown out of barrier() so that a failed participant's partners leave the job too.
struct Cancelled {};

// Hands out chunk numbers 0, 1, 2, ... to whichever thread asks first.
struct alignas(64) Counter {
  std::atomic<int> next{0};
  int take() { return next.fetch_add(1, std::memory_order_relaxed); }
};

using Job = std::function<void(const Worker&)>;

// Runs job on n_threads threads (the caller is worker 0) and returns when all are done. Jobs of several
// callers take turns, in order of arrival. The first exception of any participant is rethrown in the caller.
// Every participant computes with the default MXCSR. Works after fork(): the child starts its own threads.
void run_job(int n_threads, const Job& job);

// The same, but alone in the calling thread when the pool is at work for somebody else.
void run_job_unless_busy(int n_threads, const Job& job);

}  // namespace octavo
