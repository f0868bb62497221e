"""Writes Hugging Face folders as GGUF files, by the rules of llama.cpp's converter.

Tensors are renamed by the gguf package's own map. What else differs is here: rows for interleaved rotation, norms with
their 1, matrices the other way round, norms of heads in one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rules:
    """How a family is stored.

    Attributes:
        architecture: GGUF's name.
        metadata: Keys beyond those of every family, given the model's config.
        tensors: Tensors that come from the config.
    """

    architecture: str
    interleaved: bool = False
    shifted_norms: bool = False
    transposed: bool = False
    layer_norms: bool = False
    metadata: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    tensors: Callable[[Any], Mapping[str, Floats]] = field(default=lambda config: {})


def write_gguf(path: Path, folder: Path, rules: Rules) -> Path:
    """Writes the model of a Hugging Face folder, whose weights are float32."""
    import gguf
    from safetensors.numpy import load_file
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(path, rules.architecture)
    for key, value in {**_common(config, rules), **rules.metadata(config)}.items():
        _add(writer, f"{rules.architecture}.{key}", value)
    layers = config.num_hidden_layers
    names = gguf.get_tensor_name_map(_architecture(gguf, rules.architecture), layers)
    for name, values in _merged_head_norms(load_file(folder / "model.safetensors")).items():
        if "pooler." in name:
            continue
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name is not None, f"gguf knows no name for {name}"
        writer.add_tensor(gguf_name, np.ascontiguousarray(_stored(name, values, config, rules)))
    for name, values in rules.tensors(config).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _common(config: Any, rules: Rules) -> dict[str, Any]:
    heads = config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    epsilon = ("layer_norm_eps", "norm_epsilon", "layer_norm_epsilon") if rules.layer_norms else ("rms_norm_eps",)
    kind = "epsilon" if rules.layer_norms else "rms_epsilon"
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "attention.head_count": heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", heads),
        f"attention.layer_norm_{kind}": next(getattr(config, name) for name in epsilon if hasattr(config, name)),
        "rope.freq_base": rope.get("rope_theta"),
        "attention.key_length": getattr(config, "head_dim", None),
    }
    if "factor" in rope and rope["rope_type"] != "llama3":  # which becomes a tensor
        values |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
        values["rope.scaling.original_context_length"] = rope.get("original_max_position_embeddings")
    return {key: value for key, value in values.items() if value is not None}


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _architecture(gguf: Any, name: str) -> Any:
    return next(arch for arch, own in gguf.MODEL_ARCH_NAMES.items() if own == name)


def _merged_head_norms(state: Mapping[str, Floats]) -> dict[str, Floats]:
    """``x.norms.0.weight`` and on as the rows of ``x.weight``."""
    merged: dict[str, Any] = {}
    for name, values in state.items():
        part = re.fullmatch(r"(.+_layernorm)\.norms\.\d+(\.weight)", name)
        if part is None:
            merged[name] = values
        else:
            merged.setdefault("".join(part.groups()), []).append(values)
    return {name: np.stack(values) if isinstance(values, list) else values for name, values in merged.items()}


def _stored(name: str, values: Floats, config: Any, rules: Rules) -> Floats:
    if rules.shifted_norms and name.endswith("norm.weight"):
        return values + np.float32(1)
    if rules.transposed and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return values.T
    rotated = re.search(r"\.(q|k)_proj\.", name)
    if not rules.interleaved or rotated is None:
        return values
    heads = config.num_attention_heads if rotated[1] == "q" else config.num_key_value_heads
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
