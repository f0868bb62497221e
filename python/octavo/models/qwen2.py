"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values, and sliding windows from some layer on
(https://arxiv.org/abs/2407.10671)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaAttention, LlamaLayer


class Qwen2(Llama):
    defaults = {
        **Llama.defaults,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        window = sliding_window(self.config, index)
        attention = LlamaAttention(f"{prefix}.self_attn", self.config, index, rope, window=window, qkv_bias=True)
        return LlamaLayer(prefix, self.config, attention)


def sliding_window(c: nn.ModelConfig, layer: int) -> int:
    """The window of a layer, 0 for none."""
    kinds = c.get("layer_types", None)
    slides = kinds[layer] == "sliding_attention" if kinds else layer >= c.max_window_layers
    width: int = c.get("sliding_window", 0)
    return width if c.use_sliding_window and slides else 0
