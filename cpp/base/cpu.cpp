#include "base/cpu.h"

#include <cpuid.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "base/check.h"
#include "base/env.h"

namespace octavo {
namespace {

constexpr std::array<const char*, kIsaCount> kNames = {"scalar", "avx2", "avx512", "avx512vnni", "avx512bf16"};

struct CpuidLeaf {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

CpuidLeaf cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidLeaf regs;
  __get_cpuid_count(leaf, subleaf, &regs.a, &regs.b, &regs.c, &regs.d);
  return regs;
}

bool has(uint32_t reg, std::initializer_list<int> bits) {
  return std::all_of(bits.begin(), bits.end(), [&](int bit) { return (reg >> bit) & 1; });
}

// Extended control register 0: which register states the operating system saves.
uint64_t xcr0() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

int cgroup_cpus() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 1 << 20;
  return std::max(1, static_cast<int>(std::stod(quota) / period + 0.999));
}

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

Isa detect_isa() {
  const CpuidLeaf one = cpuid(1, 0);
  if (!has(one.c, {12, 27, 28, 29})) return Isa::kScalar;  // FMA, OSXSAVE, AVX, F16C
  const uint64_t state = xcr0();
  const CpuidLeaf seven = cpuid(7, 0);
  if ((state & 0x6) != 0x6 || !has(seven.b, {5, 8})) return Isa::kScalar;            // AVX2, BMI2
  if ((state & 0xe6) != 0xe6 || !has(seven.b, {16, 17, 30, 31})) return Isa::kAvx2;  // AVX-512 F, DQ, BW, VL
  if (!has(seven.c, {1, 11})) return Isa::kAvx512;                                   // VBMI, VNNI
  return has(cpuid(7, 1).a, {5}) ? Isa::kAvx512Bf16 : Isa::kAvx512Vnni;
}

Isa selected_isa() {
  const Isa best = detect_isa();
  const auto forced = env("ISA");
  if (!forced) return best;
  const auto found = std::find_if(kNames.begin(), kNames.end(), [&](const char* name) { return *forced == name; });
  OCTAVO_CHECK(found != kNames.end(), "OCTAVO_ISA is '", *forced,
               "'; expected one of scalar, avx2, avx512, avx512vnni, avx512bf16.");
  const auto isa = static_cast<Isa>(found - kNames.begin());
  OCTAVO_CHECK(isa <= best, "OCTAVO_ISA is '", *forced, "', which this CPU cannot run; its best is ", isa_name(best),
               ".");
  return isa;
}

std::vector<int> affinity_cpus() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  }
  return cpus;
}

int usable_cpus() { return std::max(1, std::min(static_cast<int>(affinity_cpus().size()), cgroup_cpus())); }

std::string cpu_name() {
  std::array<char, 49> brand{};
  for (uint32_t i = 0; i < 3; ++i) {
    const CpuidLeaf regs = cpuid(0x80000002u + i, 0);
    std::memcpy(brand.data() + 16 * i, &regs, sizeof(regs));
  }
  return brand.data();
}

}  // namespace octavo
