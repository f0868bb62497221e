"""Granite 3: Llama with multipliers for the embedding, the residuals, the scores and the logits
(https://github.com/ibm-granite/granite-3.0-language-models)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaAttention, LlamaLayer


class GraniteLayer(LlamaLayer):
    def __init__(self, prefix: str, c: nn.ModelConfig, attention: nn.Block) -> None:
        super().__init__(prefix, c, attention)
        self.multiplier: float = c.residual_multiplier

    def forward(self, x: nn.Value) -> nn.Value:
        x = x + self.attention(self.attn_norm(x)) * self.multiplier
        return x + self.mlp(self.mlp_norm(x)) * self.multiplier


class Granite(Llama):
    defaults = {
        **Llama.defaults,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "logits_scaling": 1.0,
    }

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        c = self.config
        attention = LlamaAttention(f"{prefix}.self_attn", c, index, rope, scale=c.attention_multiplier)
        return GraniteLayer(prefix, c, attention)

    def embedded(self, tokens: nn.Trace) -> nn.Value:
        multiplier: float = self.config.embedding_multiplier
        return super().embedded(tokens) * multiplier

    def logits(self, hidden: nn.Value) -> nn.Value:
        scaling: float = self.config.logits_scaling
        return super().logits(hidden * (1.0 / scaling))
