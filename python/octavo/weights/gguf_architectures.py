"""How each GGUF architecture maps to its Hugging Face model: names of tensors, and what its metadata says.

To add an architecture, add a row to ``ARCHITECTURES``. Source of the names: tensor_mapping.py and constants.py of the
gguf package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octavo.weights.gguf_metadata import MetadataReader

_RMS = ("rms_norm_eps", "attention.layer_norm_rms_epsilon")


@dataclass(frozen=True)
class Architecture:
    """One of GGUF's architectures.

    Attributes:
        constants: Config keys that the architecture implies.
        layer_tensors: Hugging Face module -> GGUF tensor, within ``layers``.N and blk.N.
        tensors: The same outside the layers.
        norm: The config key of the norms' epsilon and its metadata key.
        permuted: Layer modules whose rows are stored in the order of interleaved RoPE.
        shifted_norms: Whether norms are stored with the 1 that Hugging Face's model adds.
        transposed: Layer modules that Hugging Face stores as (in, out), and GGUF as (out, in).
        extra: More of the config, from the metadata.
    """

    hf_class: str
    model_type: str
    layer_tensors: Mapping[str, str]
    tensors: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    norm: tuple[str, str] = _RMS
    layers: str = "model.layers"
    permuted: frozenset[str] = frozenset()
    shifted_norms: bool = False
    transposed: frozenset[str] = frozenset()
    extra: Callable[[MetadataReader], dict[str, Any]] = lambda reader: {}


_TENSORS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_QKV = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_ATTENTION = {**_NORMS, **_QKV, "self_attn.o_proj": "attn_output"}
_MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
# All experts of a layer are one tensor (experts, rows, columns).
_EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}
_ROTATED = frozenset({"self_attn.q_proj", "self_attn.k_proj"})
_SILU = {"hidden_act": "silu"}
_NORMS_AFTER = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
_GEMMA2_LAYER = {**_ATTENTION, **_MLP, **_NORMS_AFTER, "pre_feedforward_layernorm": "ffn_norm"}
_LAYER_NORM = "attention.layer_norm_epsilon"


def _sliding(reader: MetadataReader) -> dict[str, Any]:
    """The window of sliding attention; 0 and no key mean none."""
    return {"sliding_window": reader.count("attention.sliding_window", 0, least=0) or None}


def _gemma(reader: MetadataReader, largest: int) -> dict[str, Any]:
    """Scales, caps and windows; the ``largest`` model, of so many layers, scales by the width of a head's share."""
    heads, hidden = reader.count("attention.head_count"), reader.count("embedding_length")
    width = hidden // heads if reader.count("block_count") == largest else reader.count("attention.key_length", 256)
    return {
        **_sliding(reader),
        "query_pre_attn_scalar": width,
        "attn_logit_softcapping": reader.number("attn_logit_softcapping", 0.0) or None,
        "final_logit_softcapping": reader.number("final_logit_softcapping", 0.0) or None,
    }


def _gemma3(reader: MetadataReader) -> dict[str, Any]:
    return {**_gemma(reader, largest=62), "rope_local_base_freq": reader.number("rope.freq_base_swa", 10000.0)}


def _granite(reader: MetadataReader) -> dict[str, Any]:
    keys = {
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "attention_multiplier": "attention.scale",
        "logits_scaling": "logit_scale",
    }
    return {hf_key: reader.number(key) for hf_key, key in keys.items() if reader.has(key)}


def _rotary_fraction(reader: MetadataReader) -> dict[str, Any]:
    """The share of a head that is rotated."""
    head_dim = reader.count("embedding_length") // reader.count("attention.head_count")
    return {"partial_rotary_factor": reader.count("rope.dimension_count", head_dim) / head_dim}


def _stablelm(reader: MetadataReader) -> dict[str, Any]:
    return {
        **_rotary_fraction(reader),
        "use_parallel_residual": reader.flag("use_parallel_residual", False),
        "qk_layernorm": "blk.0.attn_q_norm.weight" in reader.file.tensors,
    }


def _positions(reader: MetadataReader) -> dict[str, Any]:
    return {"n_positions": reader.count("context_length"), "type_vocab_size": 2}


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        "LlamaForCausalLM", "llama", {**_ATTENTION, **_MLP}, _TENSORS, constants=_SILU, permuted=_ROTATED
    ),
    "mixtral": Architecture(  # a llama with experts
        "MixtralForCausalLM",
        "mixtral",
        {
            **_ATTENTION,
            "block_sparse_moe.gate": "ffn_gate_inp",
            "block_sparse_moe.experts.w1": "ffn_gate_exps",
            "block_sparse_moe.experts.w3": "ffn_up_exps",
            "block_sparse_moe.experts.w2": "ffn_down_exps",
        },
        _TENSORS,
        constants=_SILU,
        permuted=_ROTATED,
    ),
    "qwen2": Architecture("Qwen2ForCausalLM", "qwen2", {**_ATTENTION, **_MLP}, _TENSORS, constants=_SILU),
    "qwen2moe": Architecture(
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        {
            **_ATTENTION,
            **_MLP,
            **_EXPERTS,
            "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
            "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
            "mlp.shared_expert.up_proj": "ffn_up_shexp",
            "mlp.shared_expert.down_proj": "ffn_down_shexp",
        },
        _TENSORS,
        constants={**_SILU, "norm_topk_prob": False},
    ),
    "qwen3": Architecture(
        "Qwen3ForCausalLM", "qwen3", {**_ATTENTION, **_HEAD_NORMS, **_MLP}, _TENSORS, constants=_SILU
    ),
    "qwen3moe": Architecture(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        {**_ATTENTION, **_HEAD_NORMS, **_MLP, **_EXPERTS},
        _TENSORS,
        constants={**_SILU, "norm_topk_prob": True},
    ),
    "phi3": Architecture(
        "Phi3ForCausalLM",
        "phi3",
        {
            **_NORMS,
            "self_attn.qkv_proj": "attn_qkv",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        },
        _TENSORS,
        constants=_SILU,
        extra=lambda reader: {**_sliding(reader), **_rotary_fraction(reader)},
    ),
    "gemma": Architecture(
        "GemmaForCausalLM",
        "gemma",
        {**_ATTENTION, **_MLP},
        _TENSORS,
        constants={"hidden_activation": "gelu_pytorch_tanh"},
        shifted_norms=True,
    ),
    "gemma2": Architecture(
        "Gemma2ForCausalLM",
        "gemma2",
        _GEMMA2_LAYER,
        _TENSORS,
        constants={"hidden_activation": "gelu_pytorch_tanh"},
        shifted_norms=True,
        extra=lambda reader: _gemma(reader, largest=46),
    ),
    "gemma3": Architecture(
        "Gemma3ForCausalLM",
        "gemma3_text",
        {**_GEMMA2_LAYER, **_HEAD_NORMS},
        _TENSORS,
        constants={"hidden_activation": "gelu_pytorch_tanh"},
        shifted_norms=True,
        extra=_gemma3,
    ),
    "granite": Architecture(
        "GraniteForCausalLM",
        "granite",
        {**_ATTENTION, **_MLP},
        _TENSORS,
        constants=_SILU,
        permuted=_ROTATED,
        extra=_granite,
    ),
    "smollm3": Architecture(
        "SmolLM3ForCausalLM", "smollm3", {**_ATTENTION, **_MLP}, _TENSORS, constants=_SILU, permuted=_ROTATED
    ),
    "olmo2": Architecture(
        "Olmo2ForCausalLM",
        "olmo2",
        {**_QKV, **_HEAD_NORMS, "self_attn.o_proj": "attn_output", **_MLP, **_NORMS_AFTER},
        _TENSORS,
        constants=_SILU,
    ),
    "starcoder2": Architecture(
        "Starcoder2ForCausalLM",
        "starcoder2",
        {**_ATTENTION, "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
        _TENSORS,
        constants={"hidden_act": "gelu_pytorch_tanh"},
        norm=("norm_epsilon", _LAYER_NORM),
        extra=_sliding,
    ),
    "stablelm": Architecture(
        "StableLmForCausalLM",
        "stablelm",
        {
            **_ATTENTION,
            **_MLP,
            "self_attn.q_layernorm.norms": "attn_q_norm",
            "self_attn.k_layernorm.norms": "attn_k_norm",
        },
        _TENSORS,
        constants=_SILU,
        norm=("layer_norm_eps", _LAYER_NORM),
        extra=_stablelm,
    ),
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        "gpt2",
        {
            "ln_1": "attn_norm",
            "attn.c_attn": "attn_qkv",
            "attn.c_proj": "attn_output",
            "ln_2": "ffn_norm",
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
        {
            "transformer.wte": "token_embd",
            "transformer.wpe": "position_embd",
            "transformer.ln_f": "output_norm",
            "lm_head": "output",
        },
        norm=("layer_norm_epsilon", _LAYER_NORM),
        layers="transformer.h",
        transposed=frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
        extra=_positions,
    ),
    "bert": Architecture(
        "BertModel",
        "bert",
        {
            "attention.self.query": "attn_q",
            "attention.self.key": "attn_k",
            "attention.self.value": "attn_v",
            "attention.output.dense": "attn_output",
            "attention.output.LayerNorm": "attn_output_norm",
            "intermediate.dense": "ffn_up",
            "output.dense": "ffn_down",
            "output.LayerNorm": "layer_output_norm",
        },
        {
            "bert.embeddings.word_embeddings": "token_embd",
            "bert.embeddings.position_embeddings": "position_embd",
            "bert.embeddings.token_type_embeddings": "token_types",
            "bert.embeddings.LayerNorm": "token_embd_norm",
        },
        constants={"hidden_act": "gelu"},
        norm=("layer_norm_eps", _LAYER_NORM),
        layers="bert.encoder.layer",
        extra=_positions,
    ),
    "nomic-bert": Architecture(
        "NomicBertModel",
        "nomic_bert",
        {
            "attn.Wqkv": "attn_qkv",
            "attn.out_proj": "attn_output",
            "norm1": "attn_output_norm",
            "mlp.fc11": "ffn_up",
            "mlp.fc12": "ffn_gate",
            "mlp.fc2": "ffn_down",
            "norm2": "layer_output_norm",
        },
        {
            "nomic_bert.embeddings.word_embeddings": "token_embd",
            "nomic_bert.embeddings.token_type_embeddings": "token_types",
            "nomic_bert.emb_ln": "token_embd_norm",
        },
        constants=_SILU,
        norm=("layer_norm_eps", _LAYER_NORM),
        layers="nomic_bert.encoder.layers",
    ),
}
