// The kernels of the formats of 256 weights, with panels in the formats' own integers where activations must be signed.

#pragma once

#include "kernels/body/linear_entries.inl"
#include "kernels/body/linear_integers.inl"
#include "kernels/body/linear_q8x256.inl"

namespace octavo {
namespace {

// More tokens than come at once (cpu::kTokenTile).
constexpr int kPanelFrom = 49;

template <class Planes>
constexpr LinearKernel planes_kernel() {
  return {ActFormat::kQ8x256, linear_q8x256<Planes>};
}

template <class Planes>
constexpr LinearKernel with_unpacked(void (*run)(const LinearTask&)) {
  return {ActFormat::kQ8x256,     run, kPanelFrom, sizeof(IntegerBlock<Planes>), unpack_integers<Planes>,
          linear_unpacked<Planes>};
}

template <class Planes>
constexpr LinearKernel integers_kernel() {
  return with_unpacked<Planes>(linear_integers<Planes>);
}

template <class Block, class Planes>
constexpr LinearKernel entries_kernel() {
  return with_unpacked<Planes>(linear_entries<Block, Planes>);
}

}  // namespace
}  // namespace octavo
