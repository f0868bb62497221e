"""Phi-3, 3.5 and 4: Llama with fused projections (https://arxiv.org/abs/2404.14219)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaAttention, LlamaLayer, LlamaMLP


class Phi3Attention(LlamaAttention):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        super().__init__(prefix, c, layer, rope, window=c.get("sliding_window", 0))
        sizes = [heads * c.head_dim for heads in (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads)]
        self.qkv = nn.FusedLinear(prefix, *stacked("qkv_proj", sizes))


class Phi3MLP(LlamaMLP):
    def __init__(self, prefix: str, c: nn.ModelConfig) -> None:
        super().__init__(prefix, c)
        self.gate_up = nn.FusedLinear(prefix, *stacked("gate_up_proj", [c.intermediate_size] * 2))


def stacked(name: str, sizes: list[int]) -> list[nn.Part]:
    """Linears of so many rows, one below the other in the tensor ``name``."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [nn.Part(name, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


class Phi3(Llama):
    defaults = {
        **Llama.defaults,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
    }

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        attention = Phi3Attention(f"{prefix}.self_attn", self.config, index, rope)
        return LlamaLayer(prefix, self.config, attention, Phi3MLP(f"{prefix}.mlp", self.config))
