"""Mistral: Llama with a sliding window, or without one since version 0.2 (https://arxiv.org/abs/2310.06825)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaAttention, LlamaLayer


class Mistral(Llama):
    defaults = {
        **Llama.defaults,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    }

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        c = self.config
        attention = LlamaAttention(f"{prefix}.self_attn", c, index, rope, window=c.get("sliding_window", 0))
        return LlamaLayer(prefix, c, attention)
