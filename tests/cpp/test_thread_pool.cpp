#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <vector>

#include "base/thread_pool.h"

using namespace octavo;

TEST_CASE("thread pool: every worker runs once and barriers order their writes") {
  for (const int n_threads : {1, 2, 3, 5}) {
    std::vector<int> rounds(static_cast<size_t>(n_threads), 0);
    bool ordered = true;
    run_job(n_threads, [&](const Worker& worker) {
      for (int round = 1; round <= 200; ++round) {
        rounds[static_cast<size_t>(worker.id)] = round;
        worker.barrier();
        for (const int other : rounds)
          if (other != round) ordered = false;
        worker.barrier();
      }
    });
    CHECK(ordered);
    CHECK(rounds == std::vector<int>(static_cast<size_t>(n_threads), 200));
  }
}

TEST_CASE("thread pool: a counter hands out each chunk once") {
  Counter counter;
  std::vector<std::atomic<int>> taken(1000);
  run_job(3, [&](const Worker&) {
    for (int i; (i = counter.take()) < 1000;) ++taken[static_cast<size_t>(i)];
  });
  for (const auto& count : taken) CHECK(count == 1);
}

TEST_CASE("thread pool: a feed hands out each chunk once, to any crew") {
  for (const Crew& crew : {Crew(1), Crew(3), Crew(3, 2), Crew(5, 3), Crew(4, 9)}) {
    std::vector<Counter> parts(static_cast<size_t>(crew.n_threads));
    std::vector<std::atomic<int>> taken(101);
    run_job(crew, [&](const Worker& worker) {
      ChunkFeed feed(parts.data(), worker, 101);
      for (int i; (i = feed.take()) >= 0;) ++taken[static_cast<size_t>(i)];
    });
    for (const auto& count : taken) CHECK(count == 1);
  }
}

TEST_CASE("thread pool: a worker takes its own part, then its rank's, then the others'") {
  const Worker worker{.id = 4, .n_threads = 6, .n_ranks = 2, .team = nullptr};
  CHECK(worker.rank() == 1);
  CHECK(worker.rank_begin(1) == 3);
  std::vector<Counter> parts(6);
  ChunkFeed feed(parts.data(), worker, 12);
  std::vector<int> order;
  for (int i; (i = feed.take()) >= 0;) order.push_back(i);
  CHECK(order == std::vector<int>{8, 9, 10, 11, 6, 7, 0, 1, 2, 3, 4, 5});
}

TEST_CASE("thread pool: an exception of any worker reaches the caller and frees the others from their barrier") {
  for (int thrower = 0; thrower < 3; ++thrower) {
    CHECK_THROWS_WITH_AS(run_job(3,
                                 [&](const Worker& worker) {
                                   if (worker.id == thrower) throw std::runtime_error("broken");
                                   for (int i = 0; i < 100; ++i) worker.barrier();
                                 }),
                         "broken", std::runtime_error);
  }
  int n_workers = 0;
  run_job(1, [&](const Worker&) { ++n_workers; });
  CHECK(n_workers == 1);
}

TEST_CASE("thread pool: a forked child starts its own threads") {
  run_job(2, [](const Worker& worker) { worker.barrier(); });
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int> n{0};
    run_job(2, [&](const Worker& worker) {
      worker.barrier();
      ++n;
    });
    _exit(n == 2 ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
