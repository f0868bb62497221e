"""What a GGUF file says about its model, in the words of a Hugging Face ``config.json``.

A model file of octavo knows Hugging Face's names alone. This module gives it a config made from the GGUF metadata, and
tells under which name, and in which order of rows, the file stores each of its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.checks import shown
from octavo.errors import ModelError
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_architectures import ARCHITECTURES, Architecture
from octavo.weights.gguf_metadata import MetadataReader

_FREQ_FACTORS = "rope_freqs.weight"  # (head_dim / 2,) divisors of the RoPE frequencies
_LONG_ROPE = {"long_factor": "rope_factors_long.weight", "short_factor": "rope_factors_short.weight"}
_POOLINGS = {0: None, 1: "MEAN", 2: "CLS", 3: "LAST"}
_LAYER_NAME = re.compile(r".+?\.\d+\.(?P<module>.+)\.(?:weight|bias)")
_F32 = 0  # ggml type


def hf_config(file: GGUFFile) -> dict[str, Any]:
    """Translate the metadata of ``file`` to the contents of a Hugging Face ``config.json``.

    ``rope_scaling`` may hold ``freq_factors``: the name of the GGUF tensor with the divisors of the RoPE frequencies,
    which stands in for the formula of ``rope_type`` "llama3". ``gguf_architecture`` is the row of ``ARCHITECTURES`` by
    which the file is laid out, ``gguf_pooling`` the pooling that an embedding model was made for.

    Raises:
        ModelError: the architecture is unknown, or a key it needs is missing or of the wrong type.
    """
    reader = MetadataReader(file)
    is_mixtral = reader.name == "llama" and reader.number("expert_count", 0)
    name = "mixtral" if is_mixtral else reader.name
    architecture = _architecture(name, str(file.path))
    n_heads = reader.count("attention.head_count")
    hidden_size = reader.count("embedding_length")
    n_layers = reader.count("block_count")
    if n_layers > len(file.tensors):
        n_tensors = len(file.tensors)
        raise ModelError(f"{file.path} claims {n_layers} layers but holds {n_tensors} tensors; download it again.")
    norm_key, norm = architecture.norm
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
        **_bias_config(file),
        norm_key: reader.number(norm),
        "rope_theta": reader.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(reader),
        "max_position_embeddings": reader.count("context_length"),
        "vocab_size": _vocab_size(reader),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "gguf_architecture": name,
        "gguf_pooling": _POOLINGS.get(reader.count("pooling_type", 0, least=0)),
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
        **architecture.extra(reader),
    }


def _expert_config(reader: MetadataReader, n_layers: int) -> dict[str, Any]:
    """The keys of a mixture of experts; none for a dense model."""
    if not reader.number("expert_count", 0):
        return {}
    n_experts = reader.count("expert_count")
    routers = {layer: reader.file.tensors.get(f"blk.{layer}.ffn_gate_inp.weight") for layer in range(n_layers)}
    dense = [layer for layer, router in routers.items() if router is None]
    rows = {router.shape[0] for router in routers.values() if router is not None}
    if rows != {n_experts}:
        found = f"claims {n_experts} experts, but its routers have {sorted(rows)} rows"
        raise ModelError(f"{reader.file.path} {found}; download it again.")
    return {
        "num_experts": n_experts,
        "num_local_experts": n_experts,
        "num_experts_per_tok": reader.count("expert_used_count"),
        "mlp_only_layers": dense,
    }


_FILE_FACTS = ("tie_word_embeddings", "vocab_size", "gguf_architecture", "gguf_pooling")
_ATTENTION_BIAS = ("attention_bias", "qkv_bias", "use_bias", "use_qkv_bias")  # as families call it


def file_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``hf_config`` a GGUF knows better than a config.json from elsewhere: how its tensors are laid out."""
    return {key: config[key] for key in (*_FILE_FACTS, *_ATTENTION_BIAS, "mlp_bias")}


def _bias_config(file: GGUFFile) -> dict[str, bool]:
    """Whether linears have biases, in each family's word for it: what no metadata tells, but the first layer."""
    attention = "blk.0.attn_q.bias" in file.tensors
    return {**dict.fromkeys(_ATTENTION_BIAS, attention), "mlp_bias": "blk.0.ffn_up.bias" in file.tensors}


def hf_tensor_names(config: Mapping[str, Any], present: Container[str]) -> dict[str, str]:
    """Map the Hugging Face name of every tensor of the model to its GGUF name; a tied ``lm_head`` is left out.

    Args:
        present: GGUF names that the file has; a bias is the model's where it is there.
    """
    architecture = _architecture_of(config)
    modules = dict(architecture.tensors)
    if config["tie_word_embeddings"]:
        modules.pop("lm_head", None)
    for layer in range(config["num_hidden_layers"]):
        for module, tensor in architecture.layer_tensors.items():
            modules[f"{architecture.layers}.{layer}.{module}"] = f"blk.{layer}.{tensor}"
    names = {f"{module}.weight": f"{tensor}.weight" for module, tensor in modules.items()}
    biases = {f"{module}.bias": f"{tensor}.bias" for module, tensor in modules.items()}
    return names | {name: tensor for name, tensor in biases.items() if tensor in present}


def ignored_tensors(config: Mapping[str, Any]) -> frozenset[str]:
    """GGUF names of tensors that the config has taken in, or says itself."""
    long = frozenset(_LONG_ROPE.values()) if config["gguf_architecture"] == "phi3" else frozenset()
    return long if "freq_factors" in (config.get("rope_parameters") or {}) else long | {_FREQ_FACTORS}


def rows_permuted(hf_name: str, config: Mapping[str, Any]) -> bool:
    """Whether the file stores the rows of this tensor in the order that ``unpermute_rows`` undoes."""
    return _module(hf_name) in _architecture_of(config).permuted


def is_transposed(hf_name: str, config: Mapping[str, Any]) -> bool:
    """Whether the file stores this matrix as (out, in), where Hugging Face has (in, out)."""
    return hf_name.endswith(".weight") and _module(hf_name) in _architecture_of(config).transposed


def is_shifted_norm(hf_name: str, config: Mapping[str, Any]) -> bool:
    """Whether this is a norm's weight stored with the 1 that Hugging Face's model adds itself."""
    return _architecture_of(config).shifted_norms and hf_name.endswith("norm.weight")


def _module(hf_name: str) -> str | None:
    name = _LAYER_NAME.fullmatch(hf_name)
    return None if name is None else name["module"]


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


def _architecture(name: str, path: str) -> Architecture:
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(f"{path} is of the architecture {shown(name)}, but octavo runs GGUF files of: {known}.")
    return ARCHITECTURES[name]


def _architecture_of(config: Mapping[str, Any]) -> Architecture:
    return ARCHITECTURES[config["gguf_architecture"]]


def _vocab_size(reader: MetadataReader) -> int:
    """The rows of the embedding, or what the metadata says where the file has no tensors."""
    embedding = reader.file.tensors.get("token_embd.weight")
    if embedding is not None:
        return embedding.shape[0]
    tokens = reader.file.metadata.get("tokenizer.ggml.tokens")
    return reader.count("vocab_size", len(tokens) if isinstance(tokens, list) else None)


def _rope_scaling(reader: MetadataReader) -> dict[str, Any] | None:
    kind = reader.text("rope.scaling.type", "none")
    if _FREQ_FACTORS in reader.file.tensors:
        return {"rope_type": "llama3", "freq_factors": _FREQ_FACTORS}
    if all(name in reader.file.tensors for name in _LONG_ROPE.values()):
        kind = "longrope"
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
    if kind == "longrope":
        del scaling["factor"]  # what max_position_embeddings makes of it
        scaling |= {key: _floats(reader.file, name) for key, name in _LONG_ROPE.items()}
    return scaling


def _floats(file: GGUFFile, name: str) -> list[float]:
    tensor = file.tensors.get(name)
    if tensor is None or tensor.type_id != _F32:
        found = "lacks" if tensor is None else "does not store as F32"
        raise ModelError(f"{file.path} {found} the tensor {name!r}; download or convert it again.")
    values: list[float] = np.frombuffer(tensor.data, np.float32).tolist()
    return values
