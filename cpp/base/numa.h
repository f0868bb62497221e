// NUMA nodes: memory lies on the node of the thread that first touches it, so a rank's threads stay on one.
#pragma once

#include <sched.h>

#include <string>
#include <vector>

namespace octavo {

using CpuList = std::vector<int>;  // ascending

// "0-3,8" as the kernel writes sets of CPUs; empty where the text is none.
CpuList parse_cpu_list(const std::string& text);

// Those of `allowed` that each node under `folder` (as /sys/devices/system/node) has; nodes with none are left out.
std::vector<CpuList> read_numa_nodes(const std::string& folder, const CpuList& allowed);

// The nodes of this machine that the process may use, read once; one where the system does not tell.
const std::vector<CpuList>& numa_nodes();

// Keeps the calling thread on its rank's node while it lives; does nothing where there is one rank or one node.
class RankAffinity {
 public:
  RankAffinity(int rank, int n_ranks);
  ~RankAffinity();
  RankAffinity(const RankAffinity&) = delete;
  RankAffinity& operator=(const RankAffinity&) = delete;

 private:
  bool pinned_ = false;
  cpu_set_t before_;
};

}  // namespace octavo
