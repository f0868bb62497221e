// What this machine can do at most, measured in the same run as the benchmarks that are held against it: bytes read
// from memory per second, and multiply-adds per second of the instructions that the selected kernels are made of.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace octavo::bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The shortest of n_tries: from the first thread's start to the last one's end.
inline double fastest_seconds(int n_threads, int n_tries, const std::function<void(const Worker&)>& work) {
  struct alignas(64) Span {
    double start, end;
  };
  std::vector<Span> spans(static_cast<size_t>(n_threads));
  double best = 1e30;
  for (int i = 0; i < n_tries; ++i) {
    run_job(n_threads, [&](const Worker& worker) {
      worker.barrier();
      Span& span = spans[static_cast<size_t>(worker.id)];
      span.start = now();
      work(worker);
      span.end = now();
    });
    const auto by_start = [](const Span& a, const Span& b) { return a.start < b.start; };
    const auto by_end = [](const Span& a, const Span& b) { return a.end < b.end; };
    const double start = std::min_element(spans.begin(), spans.end(), by_start)->start;
    best = std::min(best, std::max_element(spans.begin(), spans.end(), by_end)->end - start);
  }
  return best;
}

// ---- loops ----
//
// Independent accumulators hide the latency. Registers pass through an empty asm, so that nothing is computed ahead or
// left out, and GCC does not move accumulators about.

inline constexpr int kChains = 12;

#define OCTAVO_PEAK_UNROLL _Pragma("GCC unroll 12")  // kChains

inline void mul_add_f32_sse2(int64_t rounds) {
  __m128 sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m128& sum : sums) sum = _mm_setzero_ps();
  for (__m128 a = _mm_set1_ps(0.5f); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m128& sum : sums) {
      sum = _mm_add_ps(sum, _mm_mul_ps(a, a));
      asm volatile("" : "+x"(sum), "+x"(a));
    }
  }
}

__attribute__((target("avx2,fma"))) inline void mul_add_f32_avx2(int64_t rounds) {
  __m256 sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m256& sum : sums) sum = _mm256_setzero_ps();
  for (__m256 a = _mm256_set1_ps(0.5f); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m256& sum : sums) {
      sum = _mm256_fmadd_ps(a, a, sum);
      asm volatile("" : "+x"(sum), "+x"(a));
    }
  }
}

__attribute__((target("avx512f"))) inline void mul_add_f32_avx512(int64_t rounds) {
  __m512 sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (__m512 a = _mm512_set1_ps(0.5f); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m512& sum : sums) {
      sum = _mm512_fmadd_ps(a, a, sum);
      asm volatile("" : "+v"(sum), "+v"(a));
    }
  }
}

inline void mul_add_i8_sse2(int64_t rounds) {
  __m128i sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m128i& sum : sums) sum = _mm_setzero_si128();
  for (__m128i a = _mm_set1_epi16(3); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m128i& sum : sums) {
      sum = _mm_add_epi32(sum, _mm_madd_epi16(a, a));
      asm volatile("" : "+x"(sum), "+x"(a));
    }
  }
}

__attribute__((target("avx2"))) inline void mul_add_i8_avx2(int64_t rounds) {
  __m256i sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (__m256i a = _mm256_set1_epi8(3); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m256i& sum : sums) {
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, a));
      asm volatile("" : "+x"(sum), "+x"(a));
    }
  }
}

__attribute__((target("avx512f,avx512bw"))) inline void mul_add_i8_avx512(int64_t rounds) {
  __m512i sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (__m512i a = _mm512_set1_epi8(3); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m512i& sum : sums) {
      sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(a, a));
      asm volatile("" : "+v"(sum), "+v"(a));
    }
  }
}

__attribute__((target("avx512f,avx512vnni"))) inline void mul_add_i8_vnni(int64_t rounds) {
  __m512i sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (__m512i a = _mm512_set1_epi32(0x03030303); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m512i& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, a, a);
      asm volatile("" : "+v"(sum), "+v"(a));
    }
  }
}

__attribute__((target("avx512f,avx512bf16"))) inline void mul_add_bf16(int64_t rounds) {
  __m512 sums[kChains];
  OCTAVO_PEAK_UNROLL for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (__m512i a = _mm512_set1_epi32(0x3f003f00); rounds > 0; --rounds) {
    OCTAVO_PEAK_UNROLL for (__m512& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)a);
      asm volatile("" : "+v"(sum), "+v"(a));
    }
  }
}

#undef OCTAVO_PEAK_UNROLL

// Reads [p, p + bytes), a multiple of 256.
inline void read_sse2(const uint8_t* p, int64_t bytes) {
  for (const uint8_t* end = p + bytes; p < end; p += 64) {
    const auto* line = reinterpret_cast<const __m128i*>(p);
    const __m128i low = _mm_or_si128(line[0], line[1]), high = _mm_or_si128(line[2], line[3]);
    asm volatile("" : : "x"(low), "x"(high));
  }
}

__attribute__((target("avx2"))) inline void read_avx2(const uint8_t* p, int64_t bytes) {
  constexpr int kAhead = 4096;
  for (const uint8_t* end = p + bytes; p < end; p += 128) {
    const auto* half = reinterpret_cast<const __m256i*>(p);
    _mm_prefetch(p + kAhead, _MM_HINT_T0);
    _mm_prefetch(p + kAhead + 64, _MM_HINT_T0);
    const __m256i low = _mm256_or_si256(half[0], half[1]), high = _mm256_or_si256(half[2], half[3]);
    asm volatile("" : : "x"(low), "x"(high));
  }
}

// ---- what benchmarks ask for; each is measured once per number of threads ----

enum class Multiply : uint8_t { kF32, kBf16, kInt8 };

// What the kernels of this activation format multiply with.
constexpr Multiply multiply_of(ActFormat act) {
  switch (act) {
    case ActFormat::kF32: return Multiply::kF32;
    case ActFormat::kBF16: return Multiply::kBf16;
    case ActFormat::kQ8x32:
    case ActFormat::kQ8x256: return Multiply::kInt8;
  }
  return Multiply::kF32;
}

struct PeakLoop {
  void (*run)(int64_t rounds);
  int per_instruction;  // multiply-adds
};

inline PeakLoop peak_loop(Multiply multiply, Isa isa) {
  if (multiply == Multiply::kBf16 && isa >= Isa::kAvx512Bf16) return {mul_add_bf16, 32};
  if (multiply == Multiply::kInt8) {
    if (isa >= Isa::kAvx512Vnni) return {mul_add_i8_vnni, 64};
    if (isa >= Isa::kAvx512) return {mul_add_i8_avx512, 64};
    if (isa >= Isa::kAvx2) return {mul_add_i8_avx2, 32};
    return {mul_add_i8_sse2, 8};
  }
  if (isa >= Isa::kAvx512) return {mul_add_f32_avx512, 16};
  if (isa >= Isa::kAvx2) return {mul_add_f32_avx2, 8};
  return {mul_add_f32_sse2, 4};
}

// Operations per second, two for a multiply-add, with the instructions of the selected ISA.
inline double multiply_peak(Multiply multiply, int n_threads) {
  static std::map<std::pair<Multiply, int>, double> known;
  double& rate = known[{multiply, n_threads}];
  if (rate > 0) return rate;
  constexpr int64_t kRounds = 50'000;  // less than a time slice, so that a busy machine lets some through
  const PeakLoop loop = peak_loop(multiply, kernels().isa);
  const double seconds = fastest_seconds(n_threads, 150, [&](const Worker&) { loop.run(kRounds); });
  return rate = 2.0 * kRounds * kChains * loop.per_instruction * n_threads / seconds;
}

// Bytes per second read from 256 MiB, which no cache holds.
inline double read_bandwidth(int n_threads) {
  static std::map<int, double> known;
  double& rate = known[n_threads];
  if (rate > 0) return rate;
  constexpr int64_t kBytes = int64_t{256} << 20;
  const HugeBuffer memory(kBytes);
  for (int64_t i = 0; i < kBytes; i += 4096) memory.data()[i] = 1;
  const int64_t share = kBytes / n_threads / 256 * 256;
  const auto read = kernels().isa >= Isa::kAvx2 ? read_avx2 : read_sse2;
  const double seconds =
      fastest_seconds(n_threads, 20, [&](const Worker& worker) { read(memory.data() + worker.id * share, share); });
  return rate = static_cast<double>(share) * n_threads / seconds;
}

}  // namespace octavo::bench
