"""Llama 1 to 3.3 and what shares their shape (https://arxiv.org/abs/2407.21783)."""

from __future__ import annotations

from octavo import nn


class LlamaAttention(nn.Block):
    """Attention without biases, or with those of all four linears, as ``attention_bias`` says.

    Attributes:
        qkv_bias: Instead, whether queries, keys and values have biases, and the output none.
    """

    def __init__(
        self,
        prefix: str,
        c: nn.ModelConfig,
        layer: int,
        rope: nn.Rope | None,
        *,
        window: int = 0,
        scale: float | None = None,
        qkv_bias: bool | None = None,
    ) -> None:
        everywhere = qkv_bias is None and c.get("attention_bias", False)
        self.qkv = nn.FusedLinear(prefix, "q_proj", "k_proj", "v_proj", bias=qkv_bias or everywhere)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            rope=rope,
            window=window,
            scale=scale,
        )
        self.o_proj = nn.Linear(f"{prefix}.o_proj", bias=everywhere)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        return self.o_proj(self.attn(*self.qkv(x)))


class LlamaMLP(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig) -> None:
        bias = c.get("mlp_bias", False)
        self.gate_up = nn.FusedLinear(prefix, "gate_proj", "up_proj", bias=bias)
        self.act = nn.activation(c.hidden_act)
        self.down_proj = nn.Linear(f"{prefix}.down_proj", bias=bias)

    def forward(self, x: nn.Value) -> nn.Value:
        gate, up = self.gate_up(x)
        return self.down_proj(self.act(gate) * up)


class LlamaLayer(nn.Block):
    """A decoder layer with its norms in front, around the attention and the MLP that a family has."""

    def __init__(
        self, prefix: str, c: nn.ModelConfig, attention: nn.Block, mlp: nn.Block | nn.MoE | None = None
    ) -> None:
        self.attn_norm = nn.RMSNorm(f"{prefix}.input_layernorm", c.rms_norm_eps)
        self.attention = attention
        self.mlp_norm = nn.RMSNorm(f"{prefix}.post_attention_layernorm", c.rms_norm_eps)
        self.mlp = mlp or LlamaMLP(f"{prefix}.mlp", c)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        x = x + self.attention(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.CausalLM):
    defaults = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        self.embed = nn.Embedding("model.embed_tokens")
        self.layers = [self.layer(f"model.layers.{i}", i, rope) for i in range(c.num_hidden_layers)]
        self.norm = nn.RMSNorm("model.norm", c.rms_norm_eps)
        self.lm_head = nn.LMHead(c, "model.embed_tokens")

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        """One layer; a family of Llama's shape says here what it does differently."""
        return LlamaLayer(prefix, self.config, LlamaAttention(f"{prefix}.self_attn", self.config, index, rope))

    def embedded(self, tokens: nn.Trace) -> nn.Value:
        return self.embed(tokens)

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embedded(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        return self.norm(hidden)

    def logits(self, hidden: nn.Value) -> nn.Value:
        return self.lm_head(hidden)
