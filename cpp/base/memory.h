// Large anonymous memory: huge pages where the system grants them, returned in full on destruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace octavo {

inline constexpr size_t kCacheLine = 64;

inline size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// A zero-filled mapping aligned to 2 MiB. Pages are committed by first touch, so a reservation
// larger than what is used costs address space only.
class HugeBuffer {
 public:
  HugeBuffer() = default;
  explicit HugeBuffer(size_t bytes);
  ~HugeBuffer();
  HugeBuffer(HugeBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  HugeBuffer& operator=(HugeBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }

  template <class T>
  T* as(size_t byte_offset = 0) const {
    return reinterpret_cast<T*>(data_ + byte_offset);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Memory for many long-lived objects, handed out from huge slabs so that small ones do not cost a page each.
class SlabArena {
 public:
  // Zero-filled, aligned to a cache line; valid for the arena's life.
  uint8_t* take(size_t bytes);
  // Bytes handed out.
  size_t used() const { return used_; }

 private:
  std::vector<HugeBuffer> slabs_;
  size_t free_ = 0;  // at the end of the last slab
  size_t used_ = 0;
};

// Tells the kernel that the whole pages inside [data, data + bytes) of a file mapping are no longer needed.
void drop_file_pages(const void* data, size_t bytes);

// Bytes that this process may still allocate: the smaller of MemAvailable and the cgroup's headroom.
size_t available_memory();

}  // namespace octavo
