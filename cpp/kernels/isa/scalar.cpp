// The x86-64 baseline, and the reference that the other tables are tested against.
#define OCTAVO_TABLE kTableScalar
#include "kernels/body/activation.inl"
#include "kernels/body/aqlm_search.inl"
#include "kernels/body/aqlm_table.inl"
#include "kernels/body/aqlm_vectors.inl"
#include "kernels/body/attention.inl"
#include "kernels/body/elementwise.inl"
#include "kernels/body/linear_float.inl"
#include "kernels/body/linear_integers_scalar.inl"
#include "kernels/body/linear_q8x256_scalar.inl"
#include "kernels/body/linear_q8x32_scalar.inl"
#include "kernels/body/quantize.inl"
#include "kernels/body/screen.inl"
#include "kernels/kernels.h"
#define OCTAVO_TABLE_ISA Isa::kScalar
#define OCTAVO_BF16_KV Bf16Kv
#define OCTAVO_LINEAR_BF16 \
  { ActFormat::kF32, linear_float<Bf16Planes> }
#define OCTAVO_LINEAR_Q2_K (scalar_kernel(scalar_q2_k))
#define OCTAVO_LINEAR_Q3_K (scalar_kernel(scalar_q3_k))
#define OCTAVO_LINEAR_IQ4_XS (scalar_kernel(scalar_iq4_xs))
#define OCTAVO_LINEAR_IQ4_NL scalar_iq4_nl
#define OCTAVO_LINEAR_MXFP4 scalar_mxfp4
#define OCTAVO_LINEAR_INTEGERS(sub, shift, max) (scalar_kernel(scalar_integers<(1 << shift)>))
#define OCTAVO_LINEAR_ENTRIES(name, sub, shift, max) OCTAVO_LINEAR_INTEGERS(sub, shift, max)
#define OCTAVO_LINEAR_Q4_0 scalar_q4_0
#define OCTAVO_LINEAR_Q4_1 scalar_q4_1
#define OCTAVO_LINEAR_Q5_0 scalar_q5_0
#define OCTAVO_LINEAR_Q5_1 scalar_q5_1
#define OCTAVO_LINEAR_Q8_0 scalar_q8_0
#define OCTAVO_LINEAR_Q4_K (scalar_kernel(scalar_q4_k))
#define OCTAVO_LINEAR_Q5_K (scalar_kernel(scalar_q5_k))
#define OCTAVO_LINEAR_Q6_K (scalar_kernel(scalar_q6_k))

// Emits the table.
#include "kernels/body/table.inl"
