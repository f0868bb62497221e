// The quantised formats of the vector ISAs.
#define OCTAVO_LINEAR_Q4_0 (linear_q8x32<Nibbles<false, false, 8>>)
#define OCTAVO_LINEAR_Q4_1 (linear_q8x32<Nibbles<false, true, 0>>)
#define OCTAVO_LINEAR_Q5_0 (linear_q8x32<Nibbles<true, false, 16>>)
#define OCTAVO_LINEAR_Q5_1 (linear_q8x32<Nibbles<true, true, 0>>)
#define OCTAVO_LINEAR_Q8_0 linear_q8x32<Bytes>
#define OCTAVO_LINEAR_Q4_K (planes_kernel<Q4_KPlanes>())
#define OCTAVO_LINEAR_Q5_K (planes_kernel<Q5_KPlanes>())
#define OCTAVO_LINEAR_Q6_K (planes_kernel<Q6_KPlanes>())
#define OCTAVO_LINEAR_Q2_K (planes_kernel<Q2_KPlanes>())
#define OCTAVO_LINEAR_Q3_K (planes_kernel<Q3_KPlanes>())
#define OCTAVO_LINEAR_IQ4_XS (planes_kernel<IQ4_XSPlanes>())
#define OCTAVO_LINEAR_IQ4_NL linear_q8x32<IQ4_NLPlanes>
#define OCTAVO_LINEAR_MXFP4 linear_q8x32<MXFP4Planes>
#define OCTAVO_LINEAR_INTEGERS(sub, shift, max) (integers_kernel<Integers<sub, shift, max>>())
#define OCTAVO_LINEAR_ENTRIES(name, sub, shift, max) (entries_kernel<Block##name, Integers<sub, shift, max>>())
