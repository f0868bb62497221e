// How one token's activations lie in memory for each ActFormat. Rows start at multiples of 64 bytes.
//
//   kF32     float x[k]
//   kBF16    uint16 x[k], k rounded up to even, padded with zero
//   kQ8x32   int8 q[k] | float d[k/32] | float s[k/32] | int32 sum[k/32]
//            d = amax/127, q = round_half_even(x * (127/amax)), sum = sum of q, s = d * sum;
//            q = 0 where 127/amax overflows
//   kQ8x256  int8 q[k] | float d[k/256] | int16 sum[k/16] | int16 sum32[k/32] | uint8 u[k], from a multiple of 64 on
//            as above, with sums of 16 and of 32; u = q + 128
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace octavo {

inline constexpr int kActGroup = 32;
inline constexpr int kActSuperGroup = 256;

// Byte offsets of the parts that follow q in a row of k values. (Inlined always: kernels export no code.)
struct Q8x32Layout {
  int64_t d, s, sum, bytes;
  [[gnu::always_inline]] explicit constexpr Q8x32Layout(int64_t k)
      : d((k + 63) / 64 * 64),
        s(d + k / kActGroup * 4),
        sum(s + k / kActGroup * 4),
        bytes((sum + k / kActGroup * 4 + 63) / 64 * 64) {}
};

struct Q8x256Layout {
  int64_t d, sum, sum32, u, bytes;
  [[gnu::always_inline]] explicit constexpr Q8x256Layout(int64_t k)
      : d((k + 63) / 64 * 64),
        sum(d + k / kActSuperGroup * 4),
        sum32(sum + k / 16 * 2),
        u((sum32 + k / 32 * 2 + 63) / 64 * 64),
        bytes((u + k + 63) / 64 * 64) {}
};

// Bytes from one token's row to the next.
constexpr int64_t act_row_bytes(ActFormat format, int64_t k) {
  switch (format) {
    case ActFormat::kF32: return (k * 4 + 63) / 64 * 64;
    case ActFormat::kBF16: return (k * 2 + 63) / 64 * 64;
    case ActFormat::kQ8x32: return Q8x32Layout(k).bytes;
    case ActFormat::kQ8x256: return Q8x256Layout(k).bytes;
  }
  return 0;
}

constexpr bool is_quantized(ActFormat format) { return format == ActFormat::kQ8x32 || format == ActFormat::kQ8x256; }

}  // namespace octavo
