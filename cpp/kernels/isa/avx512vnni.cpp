// AVX-512 with VNNI and VBMI.
#define OCTAVO_SIMD_AVX512
#define OCTAVO_SIMD_VNNI
#define OCTAVO_SIMD_VBMI
#ifdef OCTAVO_EMULATE_AVX512
#define OCTAVO_TABLE kTableAvx512VnniEmulated
#else
#define OCTAVO_TABLE kTableAvx512Vnni
#endif
#include "kernels/body/activation.inl"
#include "kernels/body/aqlm_search.inl"
#include "kernels/body/aqlm_table.inl"
#include "kernels/body/aqlm_vectors.inl"
#include "kernels/body/attention.inl"
#include "kernels/body/elementwise.inl"
#include "kernels/body/linear_entries.inl"
#include "kernels/body/linear_float.inl"
#include "kernels/body/linear_integers.inl"
#include "kernels/body/linear_panel.inl"
#include "kernels/body/linear_q8x256.inl"
#include "kernels/body/linear_q8x32.inl"
#include "kernels/body/quantize.inl"
#include "kernels/body/screen.inl"
#include "kernels/kernels.h"
#define OCTAVO_TABLE_ISA Isa::kAvx512Vnni
#define OCTAVO_BF16_KV Bf16Kv
#define OCTAVO_LINEAR_BF16 \
  { ActFormat::kF32, linear_float<Bf16Planes> }
#include "kernels/body/table_q8.inl"

// Emits the table.
#include "kernels/body/table.inl"
