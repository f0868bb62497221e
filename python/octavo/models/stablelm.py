"""StableLM 2, StableLM Zephyr and Stable Code (https://arxiv.org/abs/2402.17834)."""

from __future__ import annotations

from octavo import nn


class StableLmLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        self.is_parallel = c.use_parallel_residual
        self.attn_norm = nn.LayerNorm(f"{prefix}.input_layernorm", c.layer_norm_eps)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj", bias=c.use_qkv_bias)
        self.q_norm = self.k_norm = None
        if c.qk_layernorm:
            self.q_norm = nn.HeadLayerNorm(
                f"{prefix}.self_attn.q_layernorm.norms", c.num_attention_heads, c.layer_norm_eps
            )
            self.k_norm = nn.HeadLayerNorm(
                f"{prefix}.self_attn.k_layernorm.norms", c.num_key_value_heads, c.layer_norm_eps
            )
        self.attn = nn.Attention(
            layer=layer, heads=c.num_attention_heads, kv_heads=c.num_key_value_heads, head_dim=c.head_dim, rope=rope
        )
        self.o_proj = nn.Linear(f"{prefix}.self_attn.o_proj")
        self.mlp_norm = nn.LayerNorm(f"{prefix}.post_attention_layernorm", c.layer_norm_eps)
        self.gate_up = nn.FusedLinear(f"{prefix}.mlp", "gate_proj", "up_proj")
        self.act = nn.activation(c.hidden_act)
        self.down_proj = nn.Linear(f"{prefix}.mlp.down_proj")

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        normed = self.attn_norm(x)
        x = x + self.o_proj(self.attend(normed))
        gate, up = self.gate_up(normed if self.is_parallel else self.mlp_norm(x))
        return x + self.down_proj(self.act(gate) * up)

    def attend(self, x: nn.Value) -> nn.Value:
        q, k, v = self.qkv(x)
        if self.q_norm and self.k_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return self.attn(q, k, v)


class StableLm(nn.CausalLM):
    defaults = {
        "hidden_act": "silu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "partial_rotary_factor": 0.25,
        "qk_layernorm": False,
        "use_parallel_residual": False,
        "use_qkv_bias": False,
    }

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        self.embed = nn.Embedding("model.embed_tokens")
        self.layers = [StableLmLayer(f"model.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]
        self.norm = nn.LayerNorm("model.norm", c.layer_norm_eps)
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
