// The process's one thread pool. A job runs the same function on every participating thread; inside it
// threads meet at barriers and share work through Counter. Waiting threads spin briefly, then sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace octavo {

class Team;

// Who takes part in a job: threads in groups, at most one for each thread, that stay on one NUMA node each.
struct Crew {
  int n_threads;
  int n_ranks;
  Crew(int threads, int ranks = 1)
      : n_threads(threads), n_ranks(std::min(ranks, threads)) {}  // NOLINT: a number of threads is a crew
};

// One participant's view of a running job.
struct Worker {
  int id = 0;
  int n_threads = 1;
  int n_ranks = 1;
  Team* team = nullptr;

  // Threads [rank_begin(r), rank_begin(r + 1)) are of rank r.
  int rank_begin(int rank) const { return static_cast<int>((int64_t{n_threads} * rank + n_ranks - 1) / n_ranks); }
  int rank() const { return static_cast<int>(int64_t{id} * n_ranks / n_threads); }

  // All participants meet. Throws Cancelled when another participant failed.
  void barrier() const;
};

// Thrown out of barrier() so that a failed participant's partners leave the job too.
struct Cancelled {};

// Hands out chunk numbers 0, 1, 2, ... to whichever thread asks first.
struct alignas(64) Counter {
  std::atomic<int> next{0};
  int take(int n = 1) { return next.fetch_add(n, std::memory_order_relaxed); }
};

// Chunks 0 .. n_chunks - 1 of one job. Each worker has a contiguous part and takes it in order, so that it reads on in
// memory where it stopped; when that is done it helps the others, first those of its own rank. An atomic operation
// waits for all loads before it, so of its own part a worker takes half of what is left at once. parts: one Counter per
// worker, all at zero.
class ChunkFeed {
 public:
  ChunkFeed(Counter* parts, const Worker& worker, int n_chunks)
      : parts_(parts),
        id_(worker.id),
        first_(worker.rank_begin(worker.rank())),
        size_(worker.rank_begin(worker.rank() + 1) - first_),
        n_threads_(worker.n_threads),
        n_chunks_(n_chunks) {}

  // The next chunk, or -1 when none is left.
  int take() {
    if (next_ < end_) return next_++;
    for (; n_done_ < n_threads_; ++n_done_) {
      const int owner = owner_after(n_done_);
      const int n = n_done_ == 0 ? std::max(1, left_of(owner) / 2) : 1;
      next_ = begin(owner) + parts_[owner].take(n);
      end_ = std::min(next_ + n, begin(owner + 1));
      if (next_ < end_) return next_++;
    }
    return -1;
  }

 private:
  // Whose part comes after n others: the rank's, from the worker's own on, then those of the other ranks.
  int owner_after(int n) const { return n < size_ ? first_ + (id_ - first_ + n) % size_ : (first_ + n) % n_threads_; }
  int begin(int part) const { return static_cast<int>(int64_t{n_chunks_} * part / n_threads_); }
  int left_of(int part) const {
    return begin(part + 1) - begin(part) - parts_[part].next.load(std::memory_order_relaxed);
  }

  Counter* parts_;
  int id_;
  int first_, size_;  // threads of the worker's rank
  int n_threads_;
  int n_chunks_;
  int n_done_ = 0;          // parts found empty
  int next_ = 0, end_ = 0;  // chunks that are taken
};

using Job = std::function<void(const Worker&)>;

// Runs job on the crew's threads (the caller is worker 0) and returns when all are done. Jobs of several
// callers take turns, in order of arrival. The first exception of any participant is rethrown in the caller.
// Every participant computes with the default MXCSR. Works after fork(): the child starts its own threads.
void run_job(const Crew& crew, const Job& job);

// The same, but alone in the calling thread when the pool is at work for somebody else.
void run_job_unless_busy(const Crew& crew, const Job& job);

}  // namespace octavo
