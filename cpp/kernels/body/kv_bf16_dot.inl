// bf16 keys and values by vdpbf16ps: queries and softmax weights are rounded to bf16 as well, pairs are one step of a
// chain.

#pragma once

#include "kernels/body/kv.inl"

namespace octavo {
namespace {

struct Bf16DotKv : Bf16Kv {
  using Query = uint16_t;

  static const Query* query(float* scratch, const float* q, int head_dim) {
    auto* rounded = reinterpret_cast<uint16_t*>(scratch);
    round_row(rounded, q, head_dim);
    return rounded;
  }

  template <int kRows>
  static void score(float (*scores)[kKvTile], const uint8_t* tile, const Query* const* q, int head_dim,
                    const Ahead& ahead) {
    constexpr int kVectors = kKvTile / kLanes;
    const auto* k = reinterpret_cast<const uint16_t*>(tile);
    Vf acc[kRows][kVectors];
    for (auto& row : acc)
      for (Vf& v : row) v = zero();
    for (int d = 0; d < head_dim; d += 2)
      for (int i = 0; i < kVectors; ++i) {
        ahead.fetch((d * kKvTile + i * kLanes * 2) * 2);
        for (int r = 0; r < kRows; ++r)
          acc[r][i] = dot_bf16(acc[r][i], load_bytes(k + d * kKvTile + i * kLanes * 2), q[r] + d);
      }
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kVectors; ++i) store(scores[r] + i * kLanes, acc[r][i]);
  }

  static void store_weights(float* weights, int key, Vf p) {
    store_bf16(reinterpret_cast<uint16_t*>(weights) + key, p);
  }

  template <int kRows, int kCols>
  static void weigh(Vf (&acc)[kRows][kCols], const uint8_t* values, const float (*p)[kKvTile], int first, int n,
                    int dim, int head_dim, const Ahead& ahead) {
    const auto* v = reinterpret_cast<const uint16_t*>(values) + dim * 2;
    const auto add_pair = [&](int c, const uint16_t* pairs, int key) {
      for (int r = 0; r < kRows; ++r)
        acc[r][c] = dot_bf16(acc[r][c], load_bytes(pairs), reinterpret_cast<const uint16_t*>(p[r]) + key);
    };
    int key = first;
    if (head_dim - dim >= kCols * kLanes)
      for (; key + 2 <= n; key += 2)
        for (int c = 0; c < kCols; ++c) {
          ahead.fetch((int64_t{key} * head_dim + (dim + c * kLanes) * 2) * 2);
          add_pair(c, v + int64_t{key} * head_dim + c * kLanes * 2, key);
        }
    // Columns that are not there; or the pair's second token, which does not exist yet and may hold anything.
    for (; key < n; key += 2)
      for (int c = 0; c < kCols; ++c) {
        uint32_t pairs[kLanes] = {};
        const int left = head_dim - dim - c * kLanes, lanes = left < kLanes ? left : kLanes;
        __builtin_memcpy(pairs, v + int64_t{key} * head_dim + c * kLanes * 2,
                         static_cast<size_t>(lanes) * sizeof(*pairs));
        if (key + 1 == n)
          for (uint32_t& pair : pairs) pair &= 0xffff;
        add_pair(c, reinterpret_cast<const uint16_t*>(pairs), key);
      }
  }
};

}  // namespace
}  // namespace octavo
