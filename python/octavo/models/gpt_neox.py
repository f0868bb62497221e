"""GPT-NeoX and Pythia (https://arxiv.org/abs/2204.06745, https://arxiv.org/abs/2304.01373)."""

from __future__ import annotations

from octavo import nn


class GPTNeoXLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        heads, head_dim = c.num_attention_heads, c.head_dim
        self.is_parallel = c.use_parallel_residual
        self.attn_norm = nn.LayerNorm(f"{prefix}.input_layernorm", c.layer_norm_eps)
        parts = (nn.Part("query_key_value", nn.interleaved_rows(heads, head_dim, i)) for i in range(3))
        self.qkv = nn.FusedLinear(f"{prefix}.attention", *parts, bias=c.attention_bias)
        self.attn = nn.Attention(layer=layer, heads=heads, kv_heads=heads, head_dim=head_dim, rope=rope)
        self.dense = nn.Linear(f"{prefix}.attention.dense", bias=c.attention_bias)
        self.mlp_norm = nn.LayerNorm(f"{prefix}.post_attention_layernorm", c.layer_norm_eps)
        self.up = nn.Linear(f"{prefix}.mlp.dense_h_to_4h", bias=True)
        self.act = nn.activation(c.hidden_act)
        self.down = nn.Linear(f"{prefix}.mlp.dense_4h_to_h", bias=True)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        attended = x + self.dense(self.attn(*self.qkv(self.attn_norm(x))))
        mlp_input = x if self.is_parallel else attended
        return attended + self.down(self.act(self.up(self.mlp_norm(mlp_input))))


class GPTNeoX(nn.CausalLM):
    base_prefix = "gpt_neox"
    token_classifier = "classifier"
    renamed_prefixes = (("embed_out.", "lm_head."),)
    ignored = (*nn.Model.ignored, r".*\.attention\.(bias|masked_bias)")  # masks
    defaults = {
        "attention_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
    }

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        self.embed_in = nn.Embedding("gpt_neox.embed_in")
        self.layers = [GPTNeoXLayer(f"gpt_neox.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]
        self.norm = nn.LayerNorm("gpt_neox.final_layer_norm", c.layer_norm_eps)
        self.lm_head = nn.LMHead(c, "gpt_neox.embed_in")

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed_in(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        return self.norm(hidden)

    def logits(self, hidden: nn.Value) -> nn.Value:
        return self.lm_head(hidden)
