"""ModernBERT (https://arxiv.org/abs/2412.13663)."""

from __future__ import annotations

from octavo import nn


class ModernBertLayer(nn.Block):
    """Most layers see a window only; the embeddings are normalised already when the first layer reads them."""

    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope, window: int) -> None:
        self.attn_norm = _norm(f"{prefix}.attn_norm", c) if layer > 0 else None
        self.qkv = nn.FusedLinear(f"{prefix}.attn", *_chunks("Wqkv", c.hidden_size, 3), bias=c.attention_bias)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_attention_heads,
            head_dim=c.head_dim,
            rope=rope,
            window=window,
            causal=False,
        )
        self.o_proj = nn.Linear(f"{prefix}.attn.Wo", bias=c.attention_bias)
        self.mlp_norm = _norm(f"{prefix}.mlp_norm", c)
        self.gate_up = nn.FusedLinear(f"{prefix}.mlp", *_chunks("Wi", c.intermediate_size, 2), bias=c.mlp_bias)
        self.act = nn.activation(c.hidden_activation)
        self.down_proj = nn.Linear(f"{prefix}.mlp.Wo", bias=c.mlp_bias)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(x if self.attn_norm is None else self.attn_norm(x))
        x = x + self.o_proj(self.attn(q, k, v))
        gate, up = self.gate_up(self.mlp_norm(x))
        return x + self.down_proj(self.act(gate) * up)


def _norm(name: str, c: nn.ModelConfig) -> nn.LayerNorm:
    return nn.LayerNorm(name, c.norm_eps, bias=c.norm_bias)


def _chunks(name: str, size: int, n: int) -> list[nn.Part]:
    return [nn.Part(name, slice(i * size, (i + 1) * size)) for i in range(n)]


class ModernBert(nn.Model):
    base_prefix = "model"
    causal = False
    default_pooling = "CLS"
    ignored = (r"(head|decoder|classifier)\..*",)
    defaults = {"attention_bias": False, "classifier_bias": False, "mlp_bias": False, "norm_bias": False}

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        if c.architectures[0].endswith("ForSequenceClassification"):
            self.default_pooling = c.get("classifier_pooling", "cls").upper()
        self.embed = nn.Embedding("model.embeddings.tok_embeddings")
        self.embed_norm = _norm("model.embeddings.norm", c)
        ropes = {kind: nn.Rope(parameters, c.head_dim) for kind, parameters in c.rope_parameters.items()}
        self.layers = []
        for i, kind in enumerate(_layer_kinds(c)):
            window = c.local_attention if kind == "sliding_attention" else 0
            self.layers.append(ModernBertLayer(f"model.layers.{i}", c, i, ropes[kind], window))
        self.norm = _norm("model.final_norm", c)

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed_norm(self.embed(tokens))
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        return self.norm(hidden)

    def classify(self, pooled: nn.Value) -> nn.Value:
        c = self.config
        act = nn.activation(c.get("classifier_activation", "gelu"))
        pooled = _norm("head.norm", c)(act(nn.Linear("head.dense", bias=c.classifier_bias)(pooled)))
        return nn.Linear("classifier", bias=True)(pooled)

    def classify_token(self, hidden: nn.Value) -> nn.Value:
        return self.classify(hidden)


def _layer_kinds(c: nn.ModelConfig) -> list[str]:
    every = c.get("global_attn_every_n_layers", 3)
    by_number = ["sliding_attention" if i % every else "full_attention" for i in range(c.num_hidden_layers)]
    kinds: list[str] = c.get("layer_types", by_number)
    return kinds
