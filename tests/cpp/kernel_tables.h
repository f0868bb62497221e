// What the kernel tests share: the tables to test, memory that ends where reading faults, numbers to compute with.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace octavo {

#ifdef OCTAVO_HAVE_EMULATED_AVX512
extern const KernelTable kTableAvx512Emulated, kTableAvx512VnniEmulated, kTableAvx512Bf16Emulated;
#endif

struct TestedTable {
  std::string name;
  const KernelTable& kernels;
};

// Every table that this CPU can run, and the emulated ones where they are built.
inline const std::vector<TestedTable>& tested_tables() {
  static const std::vector<TestedTable> tables = [] {
    std::vector<TestedTable> found;
    for (int isa = 0; isa <= static_cast<int>(detect_isa()); ++isa)
      if (const KernelTable* table = kernel_table(static_cast<Isa>(isa)))
        found.push_back({isa_name(static_cast<Isa>(isa)), *table});
#ifdef OCTAVO_HAVE_EMULATED_AVX512
    found.push_back({"avx512 (emulated)", kTableAvx512Emulated});
    found.push_back({"avx512vnni (emulated)", kTableAvx512VnniEmulated});
    found.push_back({"avx512bf16 (emulated)", kTableAvx512Bf16Emulated});
#endif
    return found;
  }();
  return tables;
}

// Memory whose last byte is the last before a page that cannot be touched.
template <class T>
class PageEnd {
 public:
  explicit PageEnd(size_t capacity) : capacity_(capacity) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t body = (capacity * sizeof(T) + page - 1) / page * page;
    mapped_ = body + page;
    map_ = static_cast<uint8_t*>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(map_ != MAP_FAILED);
    REQUIRE(mprotect(map_ + body, page, PROT_NONE) == 0);
    end_ = reinterpret_cast<T*>(map_ + body);
  }
  explicit PageEnd(const std::vector<T>& values) : PageEnd(values.size()) { put(values); }
  PageEnd(const PageEnd&) = delete;
  PageEnd& operator=(const PageEnd&) = delete;
  ~PageEnd() { munmap(map_, mapped_); }

  T* data() const { return end_ - capacity_; }
  T* last(size_t n) const { return end_ - n; }
  // Copies the values to the end and returns where they start.
  T* put(const std::vector<T>& values) const {
    if (!values.empty()) std::memcpy(last(values.size()), values.data(), values.size() * sizeof(T));
    return last(values.size());
  }

 private:
  size_t capacity_, mapped_ = 0;
  uint8_t* map_ = nullptr;
  T* end_ = nullptr;
};

inline std::vector<float> normal_floats(size_t n, uint32_t seed, float spread = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

template <class T>
bool same_bits(const T* a, const T* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(T)) == 0;
}

// Lengths with every tail of every vector width, and the hidden size of a small model.
inline std::vector<int> row_lengths() {
  std::vector<int> lengths;
  for (int n = 1; n <= 70; ++n) lengths.push_back(n);
  lengths.push_back(576);
  return lengths;
}

inline constexpr double kUnit = 0x1p-24;  // relative error of one correctly rounded float operation

}  // namespace octavo
