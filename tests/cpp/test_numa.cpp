#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "base/cpu.h"
#include "base/numa.h"

using namespace octavo;

TEST_CASE("numa: lists of CPUs are read as the kernel writes them") {
  CHECK(parse_cpu_list("0-3,8,10-11") == CpuList{0, 1, 2, 3, 8, 10, 11});
  CHECK(parse_cpu_list("5") == CpuList{5});
  CHECK(parse_cpu_list("").empty());
  CHECK(parse_cpu_list("none").empty());
}

TEST_CASE("numa: nodes hold the CPUs that the process may use") {
  const auto folder = std::filesystem::temp_directory_path() / "octavo_numa_nodes";
  const auto write = [&](const std::string& name, const char* text) {
    std::filesystem::create_directories((folder / name).parent_path());
    std::ofstream(folder / name) << text << "\n";
  };
  write("online", "0-2");
  write("node0/cpulist", "0-3");
  write("node1/cpulist", "4-7");
  write("node2/cpulist", "");  // memory without CPUs
  CHECK(read_numa_nodes(folder, {1, 2, 6}) == std::vector<CpuList>{{1, 2}, {6}});
  CHECK(read_numa_nodes(folder, {4, 5}) == std::vector<CpuList>{{4, 5}});
  std::filesystem::remove_all(folder);
  CHECK(read_numa_nodes(folder, {0, 1}) == std::vector<CpuList>{{0, 1}});
}

TEST_CASE("numa: a thread has its CPUs back when it leaves its rank") {
  const std::vector<int> before = affinity_cpus();
  CHECK(!numa_nodes().empty());
  for (int rank = 0; rank < 2; ++rank) {
    const RankAffinity affinity(rank, 2);
    CHECK(affinity_cpus().size() <= before.size());
  }
  CHECK(affinity_cpus() == before);
}
