// What the benchmarks share: random weights, how many threads, counters with their share of the machine's peak.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "graph/weights.h"
#include "peak.h"
#include "quant/format.h"
#include "quant/planes.h"

namespace octavo::bench {

// One thread, and all that this process may use.
inline std::vector<int> thread_counts() {
  if (usable_cpus() == 1) return {1};
  return {1, usable_cpus()};
}

// A matrix of random weights. Its rows repeat, so that a large one is made quickly; its bytes are read all the same.
struct RandomMatrix {
  Format format;
  int64_t n, k;
  std::vector<uint8_t> rows;

  RandomMatrix(Format f, int64_t n_rows, int64_t n_columns, float deviation = 0.02f)
      : format(f), n(n_rows), k(n_columns), rows(row_bytes(f, n_columns) * static_cast<size_t>(n_rows)) {
    constexpr int64_t kDistinct = 32;
    std::mt19937 random(7);
    std::normal_distribution<float> weight(0.0f, deviation);
    std::vector<float> floats(static_cast<size_t>(k));
    const size_t bytes = row_bytes(format, k), distinct = static_cast<size_t>(std::min(n, kDistinct)) * bytes;
    const FormatRow& row = format_row(format);
    for (size_t at = 0; at < distinct; at += bytes) {
      std::generate(floats.begin(), floats.end(), [&] { return weight(random); });
      if (row.quantize != nullptr)
        row.quantize(rows.data() + at, floats.data(), k);
      else  // small random bits; a half that they make is no infinity
        std::generate_n(rows.data() + at, bytes, [&] { return static_cast<uint8_t>(random() & 0x3b); });
    }
    for (size_t at = distinct; at < rows.size(); at += distinct)
      std::copy_n(rows.data(), std::min(distinct, rows.size() - at), rows.data() + at);
  }

  SourceMatrix source() const { return {"random", format, n, k, rows.data(), rows.size()}; }
};

// The same in AQLM.
struct RandomCodes {
  int64_t n, k;
  int n_codebooks, bits;
  std::vector<uint8_t> codes;
  std::vector<float> codebooks, scales;

  RandomCodes(int64_t n_rows, int64_t n_columns, int books, int code_bits)
      : n(n_rows), k(n_columns), n_codebooks(books), bits(code_bits), scales(static_cast<size_t>(n_rows), 0.02f) {
    std::mt19937 random(7);
    std::normal_distribution<float> weight;
    codes.resize(static_cast<size_t>(n * k / kGroup * n_codebooks * (bits > 8 ? 2 : 1)));
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random());
    codebooks.resize(static_cast<size_t>(n_codebooks * kGroup) << bits);
    for (float& value : codebooks) value = weight(random);
  }

  AqlmMatrix matrix() const {
    return {"random",
            n,
            k,
            kGroup,
            n_codebooks,
            bits,
            codes.data(),
            codes.size(),
            codebooks.data(),
            codebooks.size(),
            scales.data(),
            scales.size()};
  }

 private:
  static constexpr int kGroup = 8;
};

// Bytes of a linear's weights as they lie in memory, padding included.
inline int64_t stored_bytes(const Weight& weight) {
  if (weight.aqlm != nullptr) return static_cast<int64_t>(weight.aqlm->code_bytes);
  if (weight.planes) return n_strips(weight.n) * plane_layout(weight.format, weight.k).bytes;
  return weight.n * static_cast<int64_t>(row_bytes(weight.format, weight.k));
}

// What the kernels of a format multiply with here; those without a kernel are dequantised to floats.
inline Multiply multiply_of(Format format) {
  const LinearKernel& kernel = kernels().linear[static_cast<size_t>(format)];
  return kernel.run == nullptr ? Multiply::kF32 : multiply_of(kernel.act);
}

inline void count_bytes(benchmark::State& state, double bytes_per_second, int n_threads) {
  state.counters["GB/s"] = bytes_per_second / 1e9;
  state.counters["read_%"] = 100 * bytes_per_second / read_bandwidth(n_threads);
}

inline void count_operations(benchmark::State& state, double per_second, Multiply multiply, int n_threads) {
  state.counters["GOP/s"] = per_second / 1e9;
  state.counters["multiply_%"] = 100 * per_second / multiply_peak(multiply, n_threads);
}

// Seconds of repeated passes; each pass times itself.
struct PassTimes {
  double seconds = 0;
  int64_t passes = 0;
  double mean() const { return seconds / static_cast<double>(std::max<int64_t>(passes, 1)); }
};

// Runs `pass` for as long as the benchmark wants; it returns the seconds that count. For benchmarks with UseManualTime.
template <class Pass>
PassTimes time_passes(benchmark::State& state, const Pass& pass) {
  PassTimes times;
  for ([[maybe_unused]] auto _ : state) {
    const double seconds = pass();
    state.SetIterationTime(seconds);
    times.seconds += seconds;
    ++times.passes;
  }
  return times;
}

// The peaks go into the report's context, so that a JSON file holds them beside the rows.
inline void add_peak_context() {
  const auto put = [](const std::string& name, double per_second) {
    benchmark::AddCustomContext(name, std::to_string(per_second / 1e9));
  };
  benchmark::AddCustomContext("cpu", cpu_name());
  benchmark::AddCustomContext("isa", isa_name(kernels().isa));
  for (const int n : thread_counts()) {
    const std::string threads = "_" + std::to_string(n) + "_threads";
    put("read_GB/s" + threads, read_bandwidth(n));
    put("fp32_GOP/s" + threads, multiply_peak(Multiply::kF32, n));
    put("int8_GOP/s" + threads, multiply_peak(Multiply::kInt8, n));
    if (kernels().isa >= Isa::kAvx512Bf16) put("bf16_GOP/s" + threads, multiply_peak(Multiply::kBf16, n));
  }
}

// main() after the benchmarks have been registered. A row takes 0.1 s unless --benchmark_min_time says otherwise.
inline int run(int argc, char** argv) {
  std::string min_time = "--benchmark_min_time=0.1";
  std::vector<char*> args = {argv[0], min_time.data()};
  args.insert(args.end(), argv + 1, argv + argc);
  int n_args = static_cast<int>(args.size());
  benchmark::Initialize(&n_args, args.data());
  if (benchmark::ReportUnrecognizedArguments(n_args, args.data())) return 1;
  add_peak_context();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace octavo::bench
