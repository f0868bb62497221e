"""Qwen3-MoE (https://arxiv.org/abs/2505.09388): normalised queries and keys, and experts without a shared one."""

from __future__ import annotations

from octavo import nn


class Qwen3Mlp(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig) -> None:
        self.gate_up = nn.FusedLinear(prefix, "gate_proj", "up_proj")
        self.act = nn.activation(c.hidden_act)
        self.down_proj = nn.Linear(f"{prefix}.down_proj")

    def forward(self, x: nn.Value) -> nn.Value:
        gate, up = self.gate_up(x)
        return self.down_proj(self.act(gate) * up)


def experts_of(prefix: str, c: nn.ModelConfig) -> nn.MoE:
    """The mixture of experts of one layer."""
    n_experts = c.get("num_experts", None) or c.num_local_experts  # transformers 5 writes the second name
    experts = [f"{prefix}.experts.{e}" for e in range(n_experts)]
    return nn.MoE(
        f"{prefix}.gate",
        [(f"{e}.gate_proj", f"{e}.up_proj", f"{e}.down_proj") for e in experts],
        top_k=c.num_experts_per_tok,
        normalize=c.get("norm_topk_prob", False),
        activation=c.hidden_act,
    )


def is_sparse(c: nn.ModelConfig, layer: int) -> bool:
    """Whether a layer is a mixture of experts rather than one MLP."""
    dense: list[int] = c.get("mlp_only_layers", [])
    step: int = c.get("decoder_sparse_step", 1)
    return layer not in dense and (layer + 1) % step == 0


class Qwen3MoeLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        self.attn_norm = nn.RMSNorm(f"{prefix}.input_layernorm", c.rms_norm_eps)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj")
        self.q_norm = nn.RMSNorm(f"{prefix}.self_attn.q_norm", c.rms_norm_eps)  # (head_dim,)
        self.k_norm = nn.RMSNorm(f"{prefix}.self_attn.k_norm", c.rms_norm_eps)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            rope=rope,
            window=c.get("sliding_window", 0) if c.get("use_sliding_window", False) else 0,
        )
        self.o_proj = nn.Linear(f"{prefix}.self_attn.o_proj")
        self.mlp_norm = nn.RMSNorm(f"{prefix}.post_attention_layernorm", c.rms_norm_eps)
        self.mlp = experts_of(f"{prefix}.mlp", c) if is_sparse(c, layer) else Qwen3Mlp(f"{prefix}.mlp", c)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(self.attn_norm(x))
        x = x + self.o_proj(self.attn(self.q_norm(q), self.k_norm(k), v))
        return x + self.mlp(self.mlp_norm(x))


class Qwen3Moe(nn.CausalLM):
    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        self.embed = nn.Embedding("model.embed_tokens")
        self.layers = [Qwen3MoeLayer(f"model.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]
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
