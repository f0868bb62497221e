// AVX-512 with VNNI, VBMI and BF16.
#define OCTAVO_SIMD_AVX512
#define OCTAVO_SIMD_VNNI
#define OCTAVO_SIMD_VBMI
#define OCTAVO_SIMD_BF16
#ifdef OCTAVO_EMULATE_AVX512
#define OCTAVO_TABLE kTableAvx512Bf16Emulated
#else
#define OCTAVO_TABLE kTableAvx512Bf16
#endif
#include "kernels/body/activation.inl"
#include "kernels/body/aqlm_search.inl"
#include "kernels/body/aqlm_table.inl"
#include "kernels/body/aqlm_vectors.inl"
#include "kernels/body/attention.inl"
#include "kernels/body/elementwise.inl"
#include "kernels/body/kv_bf16_dot.inl"
#include "kernels/body/linear_bf16_dot.inl"
#include "kernels/body/linear_entries.inl"
#include "kernels/body/linear_float.inl"
#include "kernels/body/linear_integers.inl"
#include "kernels/body/linear_panel.inl"
#include "kernels/body/linear_q8x256.inl"
#include "kernels/body/linear_q8x32.inl"
#include "kernels/body/quantize.inl"
#include "kernels/body/screen.inl"
#include "kernels/kernels.h"
#define OCTAVO_TABLE_ISA Isa::kAvx512Bf16
#define OCTAVO_BF16_KV Bf16DotKv
#define OCTAVO_LINEAR_BF16 \
  { ActFormat::kBF16, linear_bf16_dot }
#include "kernels/body/table_q8.inl"

// Emits the table.
#include "kernels/body/table.inl"
