"""Mixtral (https://arxiv.org/abs/2401.04088): a Mistral whose every MLP is a mixture of experts."""

from __future__ import annotations

from octavo import nn


class MixtralLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        self.attn_norm = nn.RMSNorm(f"{prefix}.input_layernorm", c.rms_norm_eps)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj")
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            rope=rope,
            window=c.get("sliding_window", 0),
        )
        self.o_proj = nn.Linear(f"{prefix}.self_attn.o_proj")
        self.mlp_norm = nn.RMSNorm(f"{prefix}.post_attention_layernorm", c.rms_norm_eps)
        moe = f"{prefix}.block_sparse_moe"
        experts = [f"{moe}.experts.{e}" for e in range(c.num_local_experts)]
        self.moe = nn.MoE(
            f"{moe}.gate",
            [(f"{e}.w1", f"{e}.w3", f"{e}.w2") for e in experts],
            top_k=c.num_experts_per_tok,
            normalize=True,
            activation=c.hidden_act,
        )

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(self.attn_norm(x))
        x = x + self.o_proj(self.attn(q, k, v))
        return x + self.moe(self.mlp_norm(x))


class Mixtral(nn.CausalLM):
    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        self.embed = nn.Embedding("model.embed_tokens")
        self.layers = [MixtralLayer(f"model.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]
        self.norm = nn.RMSNorm("model.norm", c.rms_norm_eps)
        self.lm_head = nn.LMHead(c, "model.embed_tokens")

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        return self.norm(hidden)

    def logits(self, hidden: nn.Value) -> nn.Value:
        return self.lm_head(hidden)
