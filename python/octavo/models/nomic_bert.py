"""Nomic BERT (https://arxiv.org/abs/2402.01613): BERT's order of norms with rotary embeddings and a gated MLP."""

from __future__ import annotations

from octavo import nn

_GATES = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}


class NomicBertLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        eps = c.get("layer_norm_eps", c.get("layer_norm_epsilon", 1e-12))
        attention_bias = c.get("qkv_proj_bias", False)
        width = c.num_attention_heads * c.head_dim
        parts = [nn.Part("Wqkv", slice(i * width, (i + 1) * width)) for i in range(3)]
        self.qkv = nn.FusedLinear(f"{prefix}.attn", *parts, bias=attention_bias)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_attention_heads,
            head_dim=c.head_dim,
            rope=rope,
            causal=False,
        )
        self.o_proj = nn.Linear(f"{prefix}.attn.out_proj", bias=attention_bias)
        self.attn_norm = nn.LayerNorm(f"{prefix}.norm1", eps)
        self.gate_up = nn.FusedLinear(f"{prefix}.mlp", "fc12", "fc11", bias=c.get("mlp_fc1_bias", False))
        self.act = nn.activation(_gate(c))
        self.down_proj = nn.Linear(f"{prefix}.mlp.fc2", bias=c.get("mlp_fc2_bias", False))
        self.mlp_norm = nn.LayerNorm(f"{prefix}.norm2", eps)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(x)
        x = self.attn_norm(x + self.o_proj(self.attn(q, k, v)))
        gate, up = self.gate_up(x)
        return self.mlp_norm(x + self.down_proj(self.act(gate) * up))


def _gate(c: nn.ModelConfig) -> str:
    """The activation of the gate: the checkpoints' own configs name the gated unit instead."""
    unit = c.get("activation_function", None)
    act: str = c.get("hidden_act", "silu") if unit is None else _GATES.get(unit, unit)
    return act


class NomicBert(nn.Model):
    base_prefix = "nomic_bert"
    token_classifier = "classifier"
    causal = False
    default_pooling = "CLS"
    ignored = (r".*\.rotary_emb\.inv_freq", r"nomic_bert\.pooler\..*", r"(cls|classifier)\..*")

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        for name in ("prenorm", "parallel_block", "use_rms_norm", "rotary_emb_interleaved"):
            c.require(name, False)
        c.require("num_experts", 0)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        eps = c.get("layer_norm_eps", c.get("layer_norm_epsilon", 1e-12))
        self.words = nn.Embedding("nomic_bert.embeddings.word_embeddings")
        self.types = nn.Embedding("nomic_bert.embeddings.token_type_embeddings", "types")
        self.embed_norm = nn.LayerNorm("nomic_bert.emb_ln", eps)
        self.layers = [NomicBertLayer(f"nomic_bert.encoder.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]

    @property
    def max_positions(self) -> int:
        """The length it was trained at; beyond it, the published code would change the frequencies."""
        longest: int = self.config.get("max_position_embeddings", 2048)
        trained: int = self.config.get("max_trained_positions", longest)
        return min(longest, trained)

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed_norm(self.words(tokens) + self.types(tokens))
        for layer in self.layers:
            x = layer(x)
        return x

    def classify(self, pooled: nn.Value) -> nn.Value:
        pooled = nn.tanh(nn.Linear("nomic_bert.pooler.dense", bias=True)(pooled))
        return nn.Linear("classifier", bias=True)(pooled)
