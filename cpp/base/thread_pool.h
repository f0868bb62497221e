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

// Chunks 0 .. n_chunks - 1 of one job. Each worker has a contiguous part and takes it in order, so that it reads on in
// memory where it stopped; when that is done it helps the others. parts: one Counter per worker, all at zero.
class ChunkFeed {
 public:
  ChunkFeed(Counter* parts, const Worker& worker, int n_chunks)
      : parts_(parts), owner_(worker.id), n_threads_(worker.n_threads), n_chunks_(n_chunks) {}

  // The next chunk, or -1 when none is left.
  int take() {
    for (; n_done_ < n_threads_; ++n_done_, owner_ = (owner_ + 1) % n_threads_) {
      const int chunk = begin(owner_) + parts_[owner_].take();
      if (chunk < begin(owner_ + 1)) return chunk;
    }
    return -1;
  }

 private:
  int begin(int part) const { return static_cast<int>(int64_t{n_chunks_} * part / n_threads_); }

  Counter* parts_;
  int owner_;  // whose part is being taken from
  int n_threads_;
  int n_chunks_;
  int n_done_ = 0;  // parts found empty
};

using Job = std::function<void(const Worker&)>;

// Runs job on n_threads threads (the caller is worker 0) and returns when all are done. Jobs of several
// callers take turns, in order of arrival. The first exception of any participant is rethrown in the caller.
// Every participant computes with the default MXCSR. Works after fork(): the child starts its own threads.
void run_job(int n_threads, const Job& job);

// The same, but alone in the calling thread when the pool is at work for somebody else.
void run_job_unless_busy(int n_threads, const Job& job);

}  // namespace octavo
