#include "base/thread_pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/cpu.h"
#include "base/numa.h"

namespace octavo {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);
constexpr unsigned kDefaultMxcsr = 0x1f80;  // all exceptions masked, round to nearest, denormals kept

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
}

// Waits until word differs from seen: spins for at most `spin`, then sleeps.
void wait_change(std::atomic<uint32_t>& word, uint32_t seen, std::atomic<int>& sleepers,
                 std::chrono::microseconds spin) {
  const auto deadline = std::chrono::steady_clock::now() + spin;
  while (true) {
    for (int i = 0; i < 64; ++i) {
      if (word.load(std::memory_order_acquire) != seen) return;
      _mm_pause();
    }
    if (std::chrono::steady_clock::now() >= deadline) break;
  }
  sleepers.fetch_add(1);
  while (word.load(std::memory_order_seq_cst) == seen) futex_wait(word, seen);
  sleepers.fetch_sub(1);
}

void announce(std::atomic<uint32_t>& word, std::atomic<int>& sleepers) {
  word.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst) > 0) futex_wake_all(word);
}

struct MxcsrScope {
  unsigned saved = _mm_getcsr();
  MxcsrScope() { _mm_setcsr(kDefaultMxcsr); }
  ~MxcsrScope() { _mm_setcsr(saved); }
};

}  // namespace

class Team {
 public:
  explicit Team(int size) : spin_(size <= usable_cpus() ? kSpin : kSpin / 10) {
    try {
      for (int id = 1; id < size; ++id) threads_.emplace_back([this, id] { serve(id); });
    } catch (const std::system_error&) {
      stop();
      fail("The system refused to start ", size, " threads; ask for fewer with num_threads.");
    }
  }

  ~Team() { stop(); }

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // The first threads take part; the caller is thread 0.
  void run(const Crew& crew, const Job& job) {
    job_ = &job;
    n_active_ = crew.n_threads;
    n_ranks_ = crew.n_ranks;
    failed_ = false;
    error_ = nullptr;
    arrived_ = 0;
    running_.store(static_cast<uint32_t>(threads_.size()));
    announce(start_, start_sleepers_);
    participate(0);
    wait_done();
    if (error_) std::rethrow_exception(error_);
  }

  void barrier() {
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (failed_.load(std::memory_order_acquire)) throw Cancelled{};
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_active_) {
      arrived_.store(0, std::memory_order_relaxed);
      announce(phase_, phase_sleepers_);
    } else {
      wait_change(phase_, phase, phase_sleepers_, spin_);
    }
    if (failed_.load(std::memory_order_acquire)) throw Cancelled{};
  }

 private:
  void stop() {
    stopping_ = true;
    announce(start_, start_sleepers_);
    for (auto& thread : threads_) thread.join();
  }

  void serve(int id) {
    for (uint32_t seen = 0;; ++seen) {
      wait_change(start_, seen, start_sleepers_, spin_);
      if (stopping_) return;
      if (id < n_active_) participate(id);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) announce(done_, done_sleepers_);
    }
  }

  void participate(int id) {
    const MxcsrScope mxcsr;
    const Worker worker{id, n_active_, n_ranks_, this};
    const RankAffinity affinity(worker.rank(), n_ranks_);
    try {
      (*job_)(worker);
    } catch (const Cancelled&) {
      return;  // a partner failed and has recorded why
    } catch (...) {
      record_failure();
    }
  }

  // Moving the phase frees partners that wait; failed_ stops those that have yet to arrive.
  void record_failure() {
    {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    failed_.store(true, std::memory_order_release);
    announce(phase_, phase_sleepers_);
  }

  void wait_done() {
    while (true) {
      const uint32_t seen = done_.load(std::memory_order_acquire);
      if (running_.load(std::memory_order_acquire) == 0) return;
      wait_change(done_, seen, done_sleepers_, spin_);
    }
  }

  std::chrono::microseconds spin_;
  const Job* job_ = nullptr;
  int n_active_ = 1, n_ranks_ = 1;
  std::atomic<bool> stopping_{false};
  std::mutex error_mutex_;
  std::exception_ptr error_;
  alignas(64) std::atomic<bool> failed_{false};
  alignas(64) std::atomic<uint32_t> start_{0};
  std::atomic<int> start_sleepers_{0};
  alignas(64) std::atomic<uint32_t> running_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  std::atomic<int> done_sleepers_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::atomic<int> phase_sleepers_{0};
  std::vector<std::thread> threads_;  // last: threads start when everything else exists
};

void Worker::barrier() const {
  if (n_threads > 1) team->barrier();
}

namespace {

// A lock given in order of arrival, so that a busy model cannot starve another.
class Turns {
 public:
  void lock() {
    std::unique_lock guard(mutex_);
    const uint64_t mine = next_++;
    turn_.wait(guard, [&] { return mine == serving_; });
  }
  bool try_lock() {
    const std::lock_guard guard(mutex_);
    if (next_ != serving_) return false;
    ++next_;
    return true;
  }
  void unlock() {
    {
      const std::lock_guard guard(mutex_);
      ++serving_;
    }
    turn_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  uint64_t next_ = 0;
  uint64_t serving_ = 0;
};

struct Pool {
  Turns turns;
  std::unique_ptr<Team> team;
};

// A forked child has none of the parent's threads and must not touch its locks: it starts afresh. Set up when the
// library is loaded, so that no fork can fall into it.
Pool* g_pool = [] {
  pthread_atfork(nullptr, nullptr, [] { g_pool = new Pool; });
  return new Pool;
}();

void run_alone(const Job& job) {
  const MxcsrScope mxcsr;
  job(Worker{});
}

void run_on(Pool& shared, const Crew& crew, const Job& job) {
  if (!shared.team || shared.team->size() < crew.n_threads) {
    shared.team.reset();
    shared.team = std::make_unique<Team>(crew.n_threads);
  }
  shared.team->run(crew, job);
}

}  // namespace

void run_job(const Crew& crew, const Job& job) {
  if (crew.n_threads == 1) return run_alone(job);
  Pool& shared = *g_pool;
  const std::lock_guard lock(shared.turns);
  run_on(shared, crew, job);
}

void run_job_unless_busy(const Crew& crew, const Job& job) {
  if (crew.n_threads == 1) return run_alone(job);
  Pool& shared = *g_pool;
  const std::unique_lock lock(shared.turns, std::try_to_lock);
  if (!lock) return run_alone(job);
  run_on(shared, crew, job);
}

}  // namespace octavo
