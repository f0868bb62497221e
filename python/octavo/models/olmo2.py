"""OLMo 2: norms behind attention and MLP, and over all queries and keys together (https://arxiv.org/abs/2501.00656)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaMLP
from octavo.models.qwen3 import NormedAttention


class Olmo2Layer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, index: int, rope: nn.Rope) -> None:
        self.attention = NormedAttention(f"{prefix}.self_attn", c, index, rope)
        self.attn_norm = nn.RMSNorm(f"{prefix}.post_attention_layernorm", c.rms_norm_eps)
        self.mlp = LlamaMLP(f"{prefix}.mlp", c)
        self.mlp_norm = nn.RMSNorm(f"{prefix}.post_feedforward_layernorm", c.rms_norm_eps)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        x = x + self.attn_norm(self.attention(x))
        return x + self.mlp_norm(self.mlp(x))


class Olmo2(Llama):
    defaults = {**Llama.defaults, "rms_norm_eps": 1e-5}

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        return Olmo2Layer(prefix, self.config, index, rope)
