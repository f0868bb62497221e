#include "base/numa.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/cpu.h"

namespace octavo {
namespace {

CpuList read_cpu_list(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return parse_cpu_list(line);
}

cpu_set_t cpu_set_of(const CpuList& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : cpus) CPU_SET(static_cast<size_t>(cpu), &set);
  return set;
}

}  // namespace

CpuList parse_cpu_list(const std::string& text) {
  CpuList cpus;
  std::istringstream ranges(text);
  for (int first; ranges >> first;) {
    int last = first;
    if (ranges.peek() == '-') ranges.ignore() >> last;
    for (int cpu = first; cpu <= last && cpu < CPU_SETSIZE; ++cpu) cpus.push_back(cpu);
    ranges.ignore();  // the comma
  }
  return cpus;
}

std::vector<CpuList> read_numa_nodes(const std::string& folder, const CpuList& allowed) {
  std::vector<CpuList> nodes;
  for (int node : read_cpu_list(folder + "/online")) {
    const CpuList all = read_cpu_list(folder + "/node" + std::to_string(node) + "/cpulist");
    CpuList cpus;
    std::set_intersection(all.begin(), all.end(), allowed.begin(), allowed.end(), std::back_inserter(cpus));
    if (!cpus.empty()) nodes.push_back(cpus);
  }
  if (nodes.empty()) nodes.push_back(allowed);
  return nodes;
}

const std::vector<CpuList>& numa_nodes() {
  static const std::vector<CpuList> nodes = read_numa_nodes("/sys/devices/system/node", affinity_cpus());
  return nodes;
}

RankAffinity::RankAffinity(int rank, int n_ranks) {
  if (n_ranks == 1 || numa_nodes().size() == 1) return;
  const size_t node = static_cast<size_t>(rank) * numa_nodes().size() / static_cast<size_t>(n_ranks);
  const cpu_set_t cpus = cpu_set_of(numa_nodes()[node]);
  pinned_ = sched_getaffinity(0, sizeof(before_), &before_) == 0 && sched_setaffinity(0, sizeof(cpus), &cpus) == 0;
}

RankAffinity::~RankAffinity() {
  if (pinned_) sched_setaffinity(0, sizeof(before_), &before_);
}

}  // namespace octavo
