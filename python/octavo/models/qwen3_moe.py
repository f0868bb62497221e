"""Qwen3-MoE: normalised queries and keys, and experts without a shared one (https://arxiv.org/abs/2505.09388)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaLayer
from octavo.models.qwen2_moe import MOE_DEFAULTS, experts, is_sparse
from octavo.models.qwen3 import NormedAttention


class Qwen3Moe(Llama):
    defaults = {**MOE_DEFAULTS, "num_key_value_heads": 4, "num_experts_per_tok": 8}

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        c = self.config
        window: int = c.get("sliding_window", 4096) if c.use_sliding_window else 0
        attention = NormedAttention(f"{prefix}.self_attn", c, index, rope, window=window)
        return LlamaLayer(prefix, c, attention, experts(f"{prefix}.mlp", c) if is_sparse(c, index) else None)
