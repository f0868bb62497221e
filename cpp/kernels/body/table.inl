// Emits the kernel table of the including unit as OCTAVO_TABLE.

namespace octavo {

extern const KernelTable OCTAVO_TABLE;
const KernelTable OCTAVO_TABLE = {
    .isa = OCTAVO_TABLE_ISA,
    .linear = {{
        {ActFormat::kF32, linear_float<F32Planes>},
        {ActFormat::kF32, linear_float<F16Planes>},
        OCTAVO_LINEAR_BF16,
        {ActFormat::kQ8x32, OCTAVO_LINEAR_Q4_0},
        {ActFormat::kQ8x32, OCTAVO_LINEAR_Q4_1},
        {ActFormat::kQ8x32, OCTAVO_LINEAR_Q5_0},
        {ActFormat::kQ8x32, OCTAVO_LINEAR_Q5_1},
        {ActFormat::kQ8x32, OCTAVO_LINEAR_Q8_0},
        OCTAVO_LINEAR_Q4_K,
        OCTAVO_LINEAR_Q5_K,
        OCTAVO_LINEAR_Q6_K,
        OCTAVO_LINEAR_Q2_K,
        OCTAVO_LINEAR_Q3_K,
        OCTAVO_LINEAR_IQ4_XS,
        OCTAVO_LINEAR_INTEGERS(32, 0, 2),  // TQ1_0
        OCTAVO_LINEAR_INTEGERS(32, 0, 3),  // TQ2_0
        OCTAVO_LINEAR_ENTRIES(IQ1_S, 32, 4, 25),
        OCTAVO_LINEAR_ENTRIES(IQ1_M, 16, 4, 25),
        OCTAVO_LINEAR_ENTRIES(IQ2_XXS, 32, 6, 107),
        OCTAVO_LINEAR_ENTRIES(IQ2_XS, 16, 6, 107),
        OCTAVO_LINEAR_ENTRIES(IQ2_S, 16, 6, 107),
        OCTAVO_LINEAR_ENTRIES(IQ3_XXS, 32, 6, 126),
        OCTAVO_LINEAR_ENTRIES(IQ3_S, 32, 4, 31),
        {ActFormat::kQ8x32, OCTAVO_LINEAR_IQ4_NL},
        {ActFormat::kQ8x32, OCTAVO_LINEAR_MXFP4},
    }},
    .aqlm_table = aqlm_table,
    .aqlm_decode = aqlm_decode,
    .aqlm_dot = aqlm_dot,
    .aqlm_search = aqlm_search,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .quantize_act = {{copy_f32, quantize_bf16, quantize_q8x32, quantize_q8x256}},
    .add = add_rows,
    .mul = mul_rows,
    .scale = scale_row,
    .soft_cap = soft_cap,
    .activate = {{activate<Silu>, activate<Gelu>, activate<GeluTanh>, activate<QuickGelu>, activate<Relu>,
                  activate<Relu2>, activate<Tanh>, activate<Sigmoid>}},
    .activate_mul = {{activate_mul<Silu>, activate_mul<Gelu>, activate_mul<GeluTanh>, activate_mul<QuickGelu>,
                      activate_mul<Relu>, activate_mul<Relu2>, activate_mul<Tanh>, activate_mul<Sigmoid>}},
    .rope = rope,
    .kv_write = {{F32Kv::write, OCTAVO_BF16_KV::write}},
    .attention = {{attention<F32Kv>, attention<OCTAVO_BF16_KV>}},
    .argmax = argmax,
    .screen = screen,
    .exp_sum = exp_sum,
};

}  // namespace octavo
