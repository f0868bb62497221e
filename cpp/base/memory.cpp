#include "base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "base/check.h"

namespace octavo {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSlabBytes = size_t{32} << 20;

size_t read_size(const char* path) {
  std::ifstream file(path);
  size_t value = 0;
  return file >> value ? value : std::numeric_limits<size_t>::max();
}

size_t cgroup_headroom() {
  const size_t limit = read_size("/sys/fs/cgroup/memory.max");
  const size_t used = read_size("/sys/fs/cgroup/memory.current");
  if (limit == std::numeric_limits<size_t>::max() || used == limit) return std::numeric_limits<size_t>::max();
  return limit > used ? limit - used : 0;
}

size_t system_available() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  size_t kib = 0;
  std::string unit;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
  return static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

HugeBuffer::HugeBuffer(size_t bytes) : bytes_(round_up(std::max<size_t>(bytes, 1), kHugePage)) {
  const size_t reserved = bytes_ + kHugePage;
  void* raw = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  OCTAVO_CHECK(raw != MAP_FAILED, "octavo could not reserve ", bytes_ >> 20,
               " MiB of memory; free some memory or ask for less.");
  auto* start = static_cast<uint8_t*>(raw);
  const size_t head = round_up(reinterpret_cast<uintptr_t>(start), kHugePage) - reinterpret_cast<uintptr_t>(start);
  if (head != 0) munmap(start, head);
  if (head != kHugePage) munmap(start + head + bytes_, kHugePage - head);
  data_ = start + head;
  madvise(data_, bytes_, MADV_HUGEPAGE);
}

HugeBuffer::~HugeBuffer() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

uint8_t* SlabArena::take(size_t bytes) {
  bytes = round_up(bytes, kCacheLine);
  if (bytes > free_) {
    slabs_.emplace_back(std::max(bytes, kSlabBytes));
    free_ = slabs_.back().size();
  }
  uint8_t* start = slabs_.back().data() + slabs_.back().size() - free_;
  free_ -= bytes;
  used_ += bytes;
  return start;
}

void drop_file_pages(const void* data, size_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = round_up(reinterpret_cast<uintptr_t>(data), page);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

size_t available_memory() { return std::min(system_available(), cgroup_headroom()); }

}  // namespace octavo
