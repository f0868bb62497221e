"""Gemma 2: norms before and after, windows in every other layer, soft caps (https://arxiv.org/abs/2408.00118)."""

from __future__ import annotations

from octavo import nn
from octavo.models.gemma import Gemma, GemmaMLP, norm


class Gemma2Layer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope, kind: str) -> None:
        self.attn_norm = norm(f"{prefix}.input_layernorm", c)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj", bias=c.attention_bias)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            rope=rope,
            window=c.get("sliding_window", 0) if kind == "sliding_attention" else 0,
            scale=c.query_pre_attn_scalar**-0.5,
            soft_cap=c.get("attn_logit_softcapping", 0.0),
            causal=not c.get("use_bidirectional_attention", False),
        )
        self.o_proj = nn.Linear(f"{prefix}.self_attn.o_proj", bias=c.attention_bias)
        self.attn_norm_after = norm(f"{prefix}.post_attention_layernorm", c)
        self.mlp_norm = norm(f"{prefix}.pre_feedforward_layernorm", c)
        self.mlp = GemmaMLP(f"{prefix}.mlp", c)
        self.mlp_norm_after = norm(f"{prefix}.post_feedforward_layernorm", c)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        x = x + self.attn_norm_after(self.attend(self.attn_norm(x)))
        return x + self.mlp_norm_after(self.mlp(self.mlp_norm(x)))

    def attend(self, x: nn.Value) -> nn.Value:
        return self.o_proj(self.attn(*self.qkv(x)))


def layer_kinds(c: nn.ModelConfig, every: int) -> list[str]:
    """What each layer attends to; where the config does not say, every such layer to everything."""
    kinds = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(c.num_hidden_layers)]
    named: list[str] = c.get("layer_types", kinds)
    return named


class Gemma2(Gemma):
    defaults = {
        **Gemma.defaults,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    }

    def make_layers(self) -> list[nn.Block]:
        c = self.config
        c.require("use_bidirectional_attention", False)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        kinds = layer_kinds(c, every=2)
        return [Gemma2Layer(f"model.layers.{i}", c, i, rope, kind) for i, kind in enumerate(kinds)]
