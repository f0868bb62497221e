"""BERT (https://arxiv.org/abs/1810.04805) and what shares its shape."""

from __future__ import annotations

from octavo import nn


class BertLayer(nn.Block):
    """Norms come after the sums: what a layer gives out is normalised."""

    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int) -> None:
        self.qkv = nn.FusedLinear(f"{prefix}.attention.self", "query", "key", "value", bias=True)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_attention_heads,
            head_dim=c.head_dim,
            rope=None,
            causal=False,
        )
        self.o_proj = nn.Linear(f"{prefix}.attention.output.dense", bias=True)
        self.attn_norm = nn.LayerNorm(f"{prefix}.attention.output.LayerNorm", c.layer_norm_eps)
        self.up_proj = nn.Linear(f"{prefix}.intermediate.dense", bias=True)
        self.act = nn.activation(c.hidden_act)
        self.down_proj = nn.Linear(f"{prefix}.output.dense", bias=True)
        self.mlp_norm = nn.LayerNorm(f"{prefix}.output.LayerNorm", c.layer_norm_eps)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(x)
        x = self.attn_norm(x + self.o_proj(self.attn(q, k, v)))
        return self.mlp_norm(x + self.down_proj(self.act(self.up_proj(x))))


class Bert(nn.Model):
    """An encoder. Its classifier reads the first token through a dense layer, the pooler."""

    base_prefix = "bert"
    token_classifier = "classifier"
    causal = False
    default_pooling = "CLS"
    ignored = (r".*\.position_ids", r".*\.pooler\..*", r"(cls|lm_head|classifier)\..*")

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        c.require("position_embedding_type", "absolute")
        c.require("is_decoder", False)
        prefix = self.base_prefix
        self.words = nn.Embedding(f"{prefix}.embeddings.word_embeddings")
        self.positions = nn.Embedding(f"{prefix}.embeddings.position_embeddings", "positions", self.first_position)
        self.types = nn.Embedding(f"{prefix}.embeddings.token_type_embeddings", "types")
        self.embed_norm = nn.LayerNorm(f"{prefix}.embeddings.LayerNorm", c.layer_norm_eps)
        self.layers = [BertLayer(f"{prefix}.encoder.layer.{i}", c, i) for i in range(c.num_hidden_layers)]

    @property
    def first_position(self) -> int:
        """The row of the position table that is the first token's."""
        return 0

    @property
    def max_positions(self) -> int:
        longest: int = self.config.max_position_embeddings - self.first_position
        return longest

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.words(tokens) + self.types(tokens) + self.positions(tokens)
        x = self.embed_norm(x)
        for layer in self.layers:
            x = layer(x)
        return x

    def classify(self, pooled: nn.Value) -> nn.Value:
        pooled = nn.tanh(nn.Linear(f"{self.base_prefix}.pooler.dense", bias=True)(pooled))
        return nn.Linear("classifier", bias=True)(pooled)
