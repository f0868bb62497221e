// The five legacy formats of the vector ISAs.
#define OCTAVO_LINEAR_Q4_0 (linear_q8x32<Nibbles<false, false, 8>>)
#define OCTAVO_LINEAR_Q4_1 (linear_q8x32<Nibbles<false, true, 0>>)
#define OCTAVO_LINEAR_Q5_0 (linear_q8x32<Nibbles<true, false, 16>>)
#define OCTAVO_LINEAR_Q5_1 (linear_q8x32<Nibbles<true, true, 0>>)
#define OCTAVO_LINEAR_Q8_0 linear_q8x32<Bytes>
