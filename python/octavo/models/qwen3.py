"""Qwen 3: queries and keys are normalised, each head by itself, and nothing has biases
(https://arxiv.org/abs/2505.09388)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import LlamaAttention, LlamaLayer
from octavo.models.qwen2 import Qwen2, sliding_window


class NormedAttention(LlamaAttention):
    """Attention with RMS norms of queries and keys before they are rotated."""

    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope, *, window: int = 0) -> None:
        super().__init__(prefix, c, layer, rope, window=window)
        self.q_norm = nn.RMSNorm(f"{prefix}.q_norm", c.rms_norm_eps)
        self.k_norm = nn.RMSNorm(f"{prefix}.k_norm", c.rms_norm_eps)

    def forward(self, x: nn.Value) -> nn.Value:
        q, k, v = self.qkv(x)
        return self.o_proj(self.attn(self.q_norm(q), self.k_norm(k), v))


class Qwen3(Qwen2):
    defaults = {**Qwen2.defaults, "head_dim": 128}

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        window = sliding_window(self.config, index)
        attention = NormedAttention(f"{prefix}.self_attn", self.config, index, rope, window=window)
        return LlamaLayer(prefix, self.config, attention)
