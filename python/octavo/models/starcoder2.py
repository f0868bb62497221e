"""StarCoder2 (https://arxiv.org/abs/2402.19173)."""

from __future__ import annotations

from octavo import nn


class Starcoder2Layer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        self.attn_norm = nn.LayerNorm(f"{prefix}.input_layernorm", c.norm_epsilon)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj", bias=c.use_bias)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            rope=rope,
            window=c.get("sliding_window", 0),
        )
        self.o_proj = nn.Linear(f"{prefix}.self_attn.o_proj", bias=c.use_bias)
        self.mlp_norm = nn.LayerNorm(f"{prefix}.post_attention_layernorm", c.norm_epsilon)
        self.fc = nn.Linear(f"{prefix}.mlp.c_fc", bias=c.use_bias)
        self.act = nn.activation(c.hidden_act)
        self.mlp_proj = nn.Linear(f"{prefix}.mlp.c_proj", bias=c.use_bias)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        x = x + self.o_proj(self.attn(*self.qkv(self.attn_norm(x))))
        return x + self.mlp_proj(self.act(self.fc(self.mlp_norm(x))))


class Starcoder2(nn.CausalLM):
    defaults = {
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "use_bias": True,
    }

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        self.embed = nn.Embedding("model.embed_tokens")
        self.layers = [Starcoder2Layer(f"model.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]
        self.norm = nn.LayerNorm("model.norm", c.norm_epsilon)
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
