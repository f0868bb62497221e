"""Mixtral: a Mistral whose every MLP is a mixture of experts (https://arxiv.org/abs/2401.04088)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaAttention, LlamaLayer


class Mixtral(Llama):
    defaults = {
        **Llama.defaults,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        c = self.config
        attention = LlamaAttention(f"{prefix}.self_attn", c, index, rope, window=c.get("sliding_window", 0))
        moe = f"{prefix}.block_sparse_moe"
        experts = [f"{moe}.experts.{e}" for e in range(c.num_local_experts)]
        mlp = nn.MoE(
            f"{moe}.gate",
            [(f"{e}.w1", f"{e}.w3", f"{e}.w2") for e in experts],
            top_k=c.num_experts_per_tok,
            normalize=True,
            activation=c.hidden_act,
        )
        return LlamaLayer(prefix, c, attention, mlp)
