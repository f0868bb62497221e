// AVX-512 F, BW, DQ, VL.
#define OCTAVO_SIMD_AVX512
#ifdef OCTAVO_EMULATE_AVX512
#define OCTAVO_TABLE kTableAvx512Emulated
#else
#define OCTAVO_TABLE kTableAvx512
#endif
#include "kernels/body/activation.inl"
#include "kernels/body/aqlm_search.inl"
#include "kernels/body/aqlm_table.inl"
#include "kernels/body/aqlm_vectors.inl"
#include "kernels/body/attention.inl"
#include "kernels/body/elementwise.inl"
#include "kernels/body/kernels_q8x256.inl"
#include "kernels/body/linear_entries.inl"
#include "kernels/body/linear_float.inl"
#include "kernels/body/linear_integers.inl"
#include "kernels/body/linear_q8x256.inl"
#include "kernels/body/linear_q8x32.inl"
#include "kernels/body/quantize.inl"
#include "kernels/body/screen.inl"
#include "kernels/kernels.h"
#define OCTAVO_TABLE_ISA Isa::kAvx512
#define OCTAVO_BF16_KV Bf16Kv
#define OCTAVO_LINEAR_BF16 \
  { ActFormat::kF32, linear_float<Bf16Planes> }
#include "kernels/body/table_q8.inl"

// Emits the table.
#include "kernels/body/table.inl"
