"""SmolLM3: Llama of which every fourth layer knows no positions (https://huggingface.co/blog/smollm3)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaAttention, LlamaLayer


class SmolLM3(Llama):
    defaults = {
        **Llama.defaults,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
    }

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        c, rotates = self.config, self._rotates(index)
        window = self._window(index, rotates)
        attention = LlamaAttention(f"{prefix}.self_attn", c, index, rope if rotates else None, window=window)
        return LlamaLayer(prefix, c, attention)

    def _rotates(self, layer: int) -> bool:
        given = self.config.get("no_rope_layers", None)  # 1 where there is rope
        return bool(given[layer] if given else (layer + 1) % self.config.no_rope_layer_interval)

    def _window(self, layer: int, rotates: bool) -> int:
        kinds = self.config.get("layer_types", None)
        slides = kinds[layer] == "sliding_attention" if kinds else not rotates
        width: int = self.config.get("sliding_window", 0)
        return width if self.config.use_sliding_window and slides else 0
