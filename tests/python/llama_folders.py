"""Small random Llama models in Hugging Face folders, made by transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}

SMALL = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class LlamaSpec:
    """One model.

    Attributes:
        config: What differs from a small Llama.
        dtype: What the checkpoint is stored in.
        save: "safetensors", "shards" (several of them) or "bin" (PyTorch's).
        old_config: Spell config.json as transformers 4 did.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    save: str = "safetensors"
    old_config: bool = False


def make_llama(folder: Path, spec: LlamaSpec, seed: int = 0) -> Path:
    """Writes the model into ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**SMALL, **spec.config}))
    _enliven(model)
    _SAVE[spec.save](model.to(getattr(torch, spec.dtype)), folder)
    if spec.old_config:
        write_old_config(folder / "config.json")
    return folder


def _enliven(model: Any) -> None:
    """Weights with which activations stay near unit variance, so that logits are far apart and every op counts."""
    import torch

    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.8, 1.2)
            elif name.endswith("bias"):
                weight.normal_(std=0.3)
            else:
                is_embedding = "embed_tokens" in name
                scale = 3.0 if "lm_head" in name or (is_embedding and tied) else 1.0
                weight.normal_(std=1.0 if is_embedding and not tied else scale * weight.shape[1] ** -0.5)


def _save_bin(model: Any, folder: Path) -> None:
    import torch

    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")  # as these files do, it holds a tied matrix twice


_SAVE: dict[str, Callable[[Any, Path], None]] = {
    "safetensors": lambda model, folder: model.save_pretrained(folder),
    "shards": lambda model, folder: model.save_pretrained(folder, max_shard_size="300KB"),
    "bin": _save_bin,
}


def write_old_config(path: Path) -> None:
    """Spells a config.json as transformers 4 did."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else {"type": rope["rope_type"], **rope}
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))
