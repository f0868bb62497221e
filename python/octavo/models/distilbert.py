"""DistilBERT (https://arxiv.org/abs/1910.01108)."""

from __future__ import annotations

from octavo import nn

_EPS = 1e-12


class DistilBertLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int) -> None:
        self.qkv = nn.FusedLinear(f"{prefix}.attention", "q_lin", "k_lin", "v_lin", bias=True)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_attention_heads,
            head_dim=c.head_dim,
            rope=None,
            causal=False,
        )
        self.o_proj = nn.Linear(f"{prefix}.attention.out_lin", bias=True)
        self.attn_norm = nn.LayerNorm(f"{prefix}.sa_layer_norm", _EPS)
        self.up_proj = nn.Linear(f"{prefix}.ffn.lin1", bias=True)
        self.act = nn.activation(c.activation)
        self.down_proj = nn.Linear(f"{prefix}.ffn.lin2", bias=True)
        self.mlp_norm = nn.LayerNorm(f"{prefix}.output_layer_norm", _EPS)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(x)
        x = self.attn_norm(x + self.o_proj(self.attn(q, k, v)))
        return self.mlp_norm(x + self.down_proj(self.act(self.up_proj(x))))


class DistilBert(nn.Model):
    base_prefix = "distilbert"
    token_classifier = "classifier"
    causal = False
    default_pooling = "CLS"
    ignored = (r".*\.position_ids", r"(vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier)\..*")

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        self.words = nn.Embedding("distilbert.embeddings.word_embeddings")
        self.positions = nn.Embedding("distilbert.embeddings.position_embeddings", "positions")
        self.embed_norm = nn.LayerNorm("distilbert.embeddings.LayerNorm", _EPS)
        self.layers = [DistilBertLayer(f"distilbert.transformer.layer.{i}", c, i) for i in range(c.num_hidden_layers)]

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed_norm(self.words(tokens) + self.positions(tokens))
        for layer in self.layers:
            x = layer(x)
        return x

    def classify(self, pooled: nn.Value) -> nn.Value:
        pooled = nn.activation("relu")(nn.Linear("pre_classifier", bias=True)(pooled))
        return nn.Linear("classifier", bias=True)(pooled)
