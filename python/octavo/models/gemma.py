"""Gemma (https://arxiv.org/abs/2403.08295)."""

from __future__ import annotations

from octavo import nn


def norm(name: str, c: nn.ModelConfig) -> nn.RMSNorm:
    """Gemma's weights are stored as their distance from 1."""
    return nn.RMSNorm(name, c.rms_norm_eps, offset=1.0)


def activation_name(c: nn.ModelConfig) -> str:
    """Of the MLP; the first configs say gelu where the tanh approximation is meant."""
    name: str = c.get("hidden_activation", c.get("hidden_act", "gelu_pytorch_tanh"))
    return "gelu_pytorch_tanh" if name == "gelu" else name


class GemmaMLP(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig) -> None:
        self.gate_up = nn.FusedLinear(prefix, "gate_proj", "up_proj")
        self.act = nn.activation(activation_name(c))
        self.down_proj = nn.Linear(f"{prefix}.down_proj")

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        gate, up = self.gate_up(x)
        return self.down_proj(self.act(gate) * up)


class GemmaLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        self.attn_norm = norm(f"{prefix}.input_layernorm", c)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj", bias=c.attention_bias)
        self.attn = nn.Attention(
            layer=layer, heads=c.num_attention_heads, kv_heads=c.num_key_value_heads, head_dim=c.head_dim, rope=rope
        )
        self.o_proj = nn.Linear(f"{prefix}.self_attn.o_proj", bias=c.attention_bias)
        self.mlp_norm = norm(f"{prefix}.post_attention_layernorm", c)
        self.mlp = GemmaMLP(f"{prefix}.mlp", c)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        x = x + self.o_proj(self.attn(*self.qkv(self.attn_norm(x))))
        y: nn.Value = self.mlp(self.mlp_norm(x))
        return x + y


class Gemma(nn.CausalLM):
    defaults = {
        "attention_bias": False,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "num_key_value_heads": 16,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    }

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        self.embed = nn.Embedding("model.embed_tokens", scale=c.hidden_size**0.5)
        self.layers = self.make_layers()
        self.norm = norm("model.norm", c)
        self.lm_head = nn.LMHead(c, "model.embed_tokens")

    def make_layers(self) -> list[nn.Block]:
        """The layers, which is where Gemma's successors differ."""
        c = self.config
        c.require("use_bidirectional_attention", False)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        return [GemmaLayer(f"model.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        return self.norm(hidden)

    def logits(self, hidden: nn.Value) -> nn.Value:
        cap = self.config.get("final_logit_softcapping", 0.0)
        logits = self.lm_head(hidden)
        return nn.soft_cap(logits, cap) if cap else logits
