"""What a GGUF file says about its model, in the words of a Hugging Face ``config.json``.

A model file of octavo knows Hugging Face's names alone. This module gives it a config made from the GGUF metadata, and
tells under which name, and in which row order, the file stores each of its tensors. To add an architecture, add a row
to ``_ARCHITECTURES``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelError
from octavo.weights.gguf import GGUFFile

_FREQ_FACTORS = "rope_freqs.weight"  # (head_dim / 2,) divisors of the RoPE frequencies
_MAX_COUNT = 1 << 31


@dataclass(frozen=True)
class _Architecture:
    """How one GGUF architecture maps to its Hugging Face model."""

    hf_class: str
    model_type: str
    constants: Mapping[str, Any]  # config keys that the architecture implies
    tensors: Mapping[str, str]  # Hugging Face module -> GGUF tensor, outside the layers
    layer_tensors: Mapping[str, str]  # the same within "model.layers.N" and "blk.N"
    permuted: frozenset[str]  # layer modules whose rows are stored in the order of interleaved RoPE


_TENSORS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_ATTENTION = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
}
_MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
# All experts of a layer are one tensor (experts, rows, columns); see split_experts.
_EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}
_ROTATED = frozenset({"self_attn.q_proj", "self_attn.k_proj"})

_ARCHITECTURES: dict[str, _Architecture] = {
    "llama": _Architecture(
        hf_class="LlamaForCausalLM",
        model_type="llama",
        constants={"hidden_act": "silu"},
        tensors=_TENSORS,
        layer_tensors={**_ATTENTION, **_MLP},
        permuted=_ROTATED,
    ),
    "mixtral": _Architecture(  # a llama with experts
        hf_class="MixtralForCausalLM",
        model_type="mixtral",
        constants={"hidden_act": "silu"},
        tensors=_TENSORS,
        layer_tensors={
            **_ATTENTION,
            "block_sparse_moe.gate": "ffn_gate_inp",
            "block_sparse_moe.experts.w1": "ffn_gate_exps",
            "block_sparse_moe.experts.w3": "ffn_up_exps",
            "block_sparse_moe.experts.w2": "ffn_down_exps",
        },
        permuted=_ROTATED,
    ),
    "qwen2moe": _Architecture(
        hf_class="Qwen2MoeForCausalLM",
        model_type="qwen2_moe",
        constants={"hidden_act": "silu", "norm_topk_prob": False},
        tensors=_TENSORS,
        layer_tensors={
            **_ATTENTION,
            **_MLP,
            **_EXPERTS,
            "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
            "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
            "mlp.shared_expert.up_proj": "ffn_up_shexp",
            "mlp.shared_expert.down_proj": "ffn_down_shexp",
        },
        permuted=frozenset(),
    ),
    "qwen3moe": _Architecture(
        hf_class="Qwen3MoeForCausalLM",
        model_type="qwen3_moe",
        constants={"hidden_act": "silu", "norm_topk_prob": True},
        tensors=_TENSORS,
        layer_tensors={
            **_ATTENTION,
            **_MLP,
            **_EXPERTS,
            "self_attn.q_norm": "attn_q_norm",
            "self_attn.k_norm": "attn_k_norm",
        },
        permuted=frozenset(),
    ),
}

_BIAS_FLAGS = {"self_attn.": "attention_bias", "mlp.": "mlp_bias"}  # module prefix -> config key
_LAYER_NAME = re.compile(r"model\.layers\.\d+\.(?P<module>.+)\.(?:weight|bias)")


def hf_config(file: GGUFFile) -> dict[str, Any]:
    """Translate the metadata of ``file`` to the contents of a Hugging Face ``config.json``.

    ``rope_scaling`` may hold ``freq_factors``: the name of the GGUF tensor with the divisors of the RoPE frequencies,
    which stands in for the formula of ``rope_type`` "llama3".

    Raises:
        ModelError: the architecture is unknown, or a key it needs is missing or of the wrong type.
    """
    reader = _MetadataReader(file)
    is_mixtral = reader.name == "llama" and reader.number("expert_count", 0)
    architecture = _architecture("mixtral" if is_mixtral else reader.name, str(file.path))
    n_heads = reader.count("attention.head_count")
    hidden_size = reader.count("embedding_length")
    n_layers = reader.count("block_count")
    if n_layers > len(file.tensors):
        n_tensors = len(file.tensors)
        raise ModelError(f"{file.path} claims {n_layers} layers but holds {n_tensors} tensors; download it again.")
    return {
        "architectures": [architecture.hf_class],
        "model_type": architecture.model_type,
        **architecture.constants,
        "hidden_size": hidden_size,
        "intermediate_size": reader.count("feed_forward_length"),
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": reader.count("attention.head_count_kv", n_heads),
        "head_dim": reader.count("attention.key_length", hidden_size // n_heads),
        **_expert_config(reader, n_layers),
        "rms_norm_eps": reader.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": reader.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(reader),
        "max_position_embeddings": reader.count("context_length"),
        "vocab_size": _vocab_size(reader),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
    }


def _expert_config(reader: _MetadataReader, n_layers: int) -> dict[str, Any]:
    """The keys of a mixture of experts; none for a dense model."""
    if not reader.number("expert_count", 0):
        return {}
    n_experts = reader.count("expert_count")
    dense = [layer for layer in range(n_layers) if f"blk.{layer}.ffn_gate_inp.weight" not in reader.file.tensors]
    return {
        "num_experts": n_experts,
        "num_local_experts": n_experts,
        "num_experts_per_tok": reader.count("expert_used_count"),
        "mlp_only_layers": dense,
    }


def hf_tensor_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Map the Hugging Face name of every tensor of the model to its GGUF name; a tied ``lm_head`` is left out."""
    architecture = _architecture_of(config)
    names = {f"{module}.weight": f"{tensor}.weight" for module, tensor in architecture.tensors.items()}
    if config["tie_word_embeddings"]:
        del names["lm_head.weight"]
    for layer in range(config["num_hidden_layers"]):
        for module, tensor in architecture.layer_tensors.items():
            names[f"model.layers.{layer}.{module}.weight"] = f"blk.{layer}.{tensor}.weight"
            if _has_bias(module, config):
                names[f"model.layers.{layer}.{module}.bias"] = f"blk.{layer}.{tensor}.bias"
    return names


def rows_permuted(hf_name: str, config: Mapping[str, Any]) -> bool:
    """Whether the file stores the rows of this tensor in the order that ``unpermute_rows`` undoes."""
    name = _LAYER_NAME.fullmatch(hf_name)
    return name is not None and name["module"] in _architecture_of(config).permuted


def unpermute_rows(n_heads: int, head_dim: int) -> npt.NDArray[np.int64]:
    """Row indices with ``hf_rows = gguf_rows[indices]`` for a query or key projection.

    Hugging Face rotates dimension j of a head with dimension j + head_dim / 2; a GGUF llama stores each such pair side
    by side. ``n_heads`` counts the heads of this tensor (key heads for a key projection).

    Returns:
        (n_heads * head_dim,) indices.
    """
    stored = np.arange(n_heads * head_dim, dtype=np.int64).reshape(n_heads, head_dim // 2, 2)
    indices: npt.NDArray[np.int64] = stored.swapaxes(1, 2).reshape(-1)
    return indices


class _MetadataReader:
    """Looks up the keys of the file's own architecture and checks their types."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.name = self._architecture_name()

    def _architecture_name(self) -> str:
        name = self.file.metadata.get("general.architecture")
        if not isinstance(name, str):
            raise ModelError(f"{self.file.path} lacks the metadata key 'general.architecture'; download it again.")
        return name

    def number(self, key: str, default: float | None = None) -> float:
        """The number at ``{architecture}.{key}``; without a default the key must be there."""
        full_key = f"{self.name}.{key}"
        value = self.file.metadata.get(full_key, default)
        if value is None:
            raise ModelError(f"{self.file.path} lacks the metadata key {full_key!r}; download or convert it again.")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ModelError(f"{self.file.path} holds no number at the metadata key {full_key!r}; convert it again.")
        return _shortest(value) if isinstance(value, float) else value

    def count(self, key: str, default: int | None = None) -> int:
        """The size at ``{architecture}.{key}``, at least 1."""
        value = self.number(key, default)
        if not isinstance(value, int) or not 0 < value <= _MAX_COUNT:
            raise ModelError(
                f"{self.file.path} holds {value} as '{self.name}.{key}', which is no size; download it again."
            )
        return value

    def text(self, key: str, default: str) -> str:
        """The string at ``{architecture}.{key}``."""
        value = self.file.metadata.get(f"{self.name}.{key}", default)
        return value if isinstance(value, str) else default


def _shortest(value: float) -> float:
    """The float with the fewest digits that is the same in 32 bits: 1e-05 instead of 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _architecture(name: str, path: str) -> _Architecture:
    if name not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise ModelError(f"{path} is of the architecture {name!r}, but octavo runs GGUF files of: {known}.")
    return _ARCHITECTURES[name]


def _architecture_of(config: Mapping[str, Any]) -> _Architecture:
    return next(row for row in _ARCHITECTURES.values() if row.model_type == config["model_type"])


def _has_bias(module: str, config: Mapping[str, Any]) -> bool:
    return any(module.startswith(prefix) and config[flag] for prefix, flag in _BIAS_FLAGS.items())


def _vocab_size(reader: _MetadataReader) -> int:
    """The rows of the embedding, or what the metadata says where the file has no tensors."""
    embedding = reader.file.tensors.get("token_embd.weight")
    if embedding is not None:
        return embedding.shape[0]
    tokens = reader.file.metadata.get("tokenizer.ggml.tokens")
    return reader.count("vocab_size", len(tokens) if isinstance(tokens, list) else None)


def _rope_scaling(reader: _MetadataReader) -> dict[str, Any] | None:
    kind = reader.text("rope.scaling.type", "none")
    if _FREQ_FACTORS in reader.file.tensors:
        return {"rope_type": "llama3", "freq_factors": _FREQ_FACTORS}
    if kind == "none":
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": float(reader.number("rope.scaling.factor", 1.0))}
    optional = {
        "original_max_position_embeddings": "rope.scaling.original_context_length",
        "attention_factor": "rope.scaling.attn_factor",
        "beta_fast": "rope.scaling.yarn_beta_fast",
        "beta_slow": "rope.scaling.yarn_beta_slow",
    }
    for hf_key, key in optional.items():
        if f"{reader.name}.{key}" in reader.file.metadata:
            scaling[hf_key] = reader.number(key)
    return scaling
