"""Mixtures of experts in GGUF files, written by the gguf package, against transformers with the same weights."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from moe_folders import MOE_SPECS, MoeSpec, make_moe
from octavo import LLM
from raw_runs import RAW_LOGITS, all_logits
from reference import from_folder

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}


@dataclass(frozen=True)
class Case:
    spec: MoeSpec
    architecture: str
    rotated: bool  # rows of queries and keys are stored for interleaved rotation


CASES = {
    "mixtral": Case(MOE_SPECS["mixtral"], "llama", True),
    "qwen2moe": Case(
        MoeSpec("Qwen2Moe", {**MOE_SPECS["qwen2_moe"].config, "norm_topk_prob": False, "moe_intermediate_size": 64}),
        "qwen2moe",
        False,
    ),
    "qwen3moe": Case(MoeSpec("Qwen3Moe", MOE_SPECS["qwen3_moe"].config), "qwen3moe", False),
}


def write_gguf(path, model, case, quantise):
    """Writes the transformers model, which takes over the values of what is quantised: the experts, in Q8_0."""
    import gguf
    import torch

    c = model.config
    writer = gguf.GGUFWriter(path, case.architecture)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_expert_count(c.num_experts)
    writer.add_expert_used_count(c.num_experts_per_tok)
    if getattr(c, "head_dim", None):
        writer.add_key_length(c.head_dim)
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        if quantise and ".experts." in name:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            weight.copy_(torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)))
        for gguf_name, part in gguf_tensors(name, weight.numpy(), c, case):
            if quantise and "_exps" in gguf_name:
                packed = gguf.quants.quantize(part, gguf.GGMLQuantizationType.Q8_0)
                writer.add_tensor(gguf_name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            else:
                writer.add_tensor(gguf_name, np.ascontiguousarray(part))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(name, values, c, case):
    """(name, values) of what a tensor of transformers becomes."""
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+?)(?:\.(weight|bias))?", name)
    if layer is None:
        return [(f"{_NAMES[name.removesuffix('.weight')]}.weight", values)]
    number, module, kind = layer.groups()
    prefix, suffix = f"blk.{number}.", f".{kind or 'weight'}"
    if module == "mlp.experts.gate_up_proj":  # (experts, gate and up, hidden)
        gate, up = np.split(values, 2, axis=1)
        return [(f"{prefix}ffn_gate_exps{suffix}", gate), (f"{prefix}ffn_up_exps{suffix}", up)]
    if case.rotated and module in ("self_attn.q_proj", "self_attn.k_proj"):
        heads = c.num_attention_heads if "q_proj" in module else c.num_key_value_heads
        values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    return [(f"{prefix}{_NAMES[module]}{suffix}", values)]


@pytest.mark.parametrize("quantise", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gguf(name, quantise, tmp_path):
    case = CASES[name]
    reference = from_folder(make_moe(tmp_path / "hf", case.spec))
    path = tmp_path / f"{name}.gguf"
    write_gguf(path, reference.model, case, quantise)
    prompt = np.random.default_rng(1).integers(0, 320, 50).tolist()
    options = {"skip_tokenizer_init": True, "kv_cache_memory_bytes": "16M", **RAW_LOGITS}
    logits = all_logits(LLM(path, dtype="float32", **options), prompt)
    assert np.abs(logits - reference.logits(prompt)).max() <= 1e-3
    stored = LLM(path, **options)
    assert stored._model.formats.get("Q8_0", 0) > 0 if quantise else "Q8_0" not in stored._model.formats
    left = LLM(path, cpu_offload_gb=1, **options)
    np.testing.assert_array_equal(all_logits(stored, prompt), all_logits(left, prompt))
