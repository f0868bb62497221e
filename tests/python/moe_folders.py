"""Small random mixtures of experts in Hugging Face folders, made by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SMALL = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class MoeSpec:
    """One model.

    Attributes:
        family: Name of its transformers classes, without Config and ForCausalLM.
        config: What differs from a small model.
        dtype: What the checkpoint is stored in.
    """

    family: str
    config: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


MOE_SPECS = {
    "mixtral": MoeSpec("Mixtral", {"num_local_experts": 5, "sliding_window": None}),
    "mixtral_window_bf16": MoeSpec("Mixtral", {"num_local_experts": 3, "sliding_window": 40}, dtype="bfloat16"),
    "qwen2_moe": MoeSpec(
        "Qwen2Moe",
        {
            "num_hidden_layers": 4,
            "num_experts": 12,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 48,
            "shared_expert_intermediate_size": 80,
            "mlp_only_layers": [1],
            "decoder_sparse_step": 2,
        },
    ),
    "qwen2_moe_window": MoeSpec(
        "Qwen2Moe",
        {
            "num_hidden_layers": 3,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 64,
            "norm_topk_prob": True,
            "use_sliding_window": True,
            "sliding_window": 36,
            "max_window_layers": 3,
        },
    ),
    "qwen3_moe": MoeSpec(
        "Qwen3Moe",
        {
            "num_hidden_layers": 3,
            "head_dim": 40,
            "num_experts": 16,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
        },
        dtype="bfloat16",
    ),
}


def make_moe(folder: Path, spec: MoeSpec, seed: int = 0) -> Path:
    """Writes the model into ``folder``."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{spec.family}Config")(**{**_SMALL, **spec.config})
    model = getattr(transformers, f"{spec.family}ForCausalLM")(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _enliven(name, weight)
    model.to(getattr(torch, spec.dtype)).save_pretrained(folder)
    return folder


def _enliven(name: str, weight: Any) -> None:
    """Weights with which activations stay near unit variance, logits and the shares of experts lie far apart."""
    if name.endswith("norm.weight"):
        weight.uniform_(0.8, 1.2)
    elif name.endswith("bias"):
        weight.normal_(std=0.3)
    elif "embed_tokens" in name:
        weight.normal_()
    else:
        scale = 3.0 if "lm_head" in name or name.endswith(".gate.weight") else 1.0
        weight.normal_(std=scale * weight.shape[-1] ** -0.5)
