// What this processor can run and how many of its cores this process may use.
#pragma once

#include <string>
#include <vector>

namespace octavo {

// Kernel tables, in rising order; each level includes the ones before it.
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16 };
inline constexpr int kIsaCount = 5;

const char* isa_name(Isa isa);

// The highest level that both the CPU (cpuid) and the system (XCR0) support.
Isa detect_isa();

// detect_isa(), or the lower level that OCTAVO_ISA forces. Throws Error when the forced level is unknown
// or not supported here.
Isa selected_isa();

// min(affinity mask, cgroup CPU quota rounded up), at least 1.
int usable_cpus();

// The CPUs of the affinity mask, ascending.
std::vector<int> affinity_cpus();

// The brand string, e.g. for a bug report.
std::string cpu_name();

}  // namespace octavo
