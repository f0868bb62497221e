"""MPNet (https://arxiv.org/abs/2004.09297): BERT's shape with a bias of attention by distance, shared by all layers."""

from __future__ import annotations

from octavo import nn

_FIRST_POSITION = 2  # the position table's first rows are for padding
_BUCKETS = 32
_FARTHEST = 128  # all greater distances share a bucket


class MPNetLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int) -> None:
        self.qkv = nn.FusedLinear(f"{prefix}.attention.attn", "q", "k", "v", bias=True)
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_attention_heads,
            head_dim=c.head_dim,
            rope=None,
            causal=False,
        )
        self.o_proj = nn.Linear(f"{prefix}.attention.attn.o", bias=True)
        self.attn_norm = nn.LayerNorm(f"{prefix}.attention.LayerNorm", c.layer_norm_eps)
        self.up_proj = nn.Linear(f"{prefix}.intermediate.dense", bias=True)
        self.act = nn.activation(c.hidden_act)
        self.down_proj = nn.Linear(f"{prefix}.output.dense", bias=True)
        self.mlp_norm = nn.LayerNorm(f"{prefix}.output.LayerNorm", c.layer_norm_eps)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(x)
        x = self.attn_norm(x + self.o_proj(self.attn(q, k, v)))
        return self.mlp_norm(x + self.down_proj(self.act(self.up_proj(x))))


class MPNet(nn.Model):
    base_prefix = "mpnet"
    token_classifier = "classifier"
    causal = False
    default_pooling = "CLS"
    ignored = (r".*\.position_ids", r"mpnet\.pooler\..*", r"(lm_head|classifier)\..*")

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        c.require("relative_attention_num_buckets", _BUCKETS)
        self.words = nn.Embedding("mpnet.embeddings.word_embeddings")
        self.positions = nn.Embedding("mpnet.embeddings.position_embeddings", "positions", _FIRST_POSITION)
        self.embed_norm = nn.LayerNorm("mpnet.embeddings.LayerNorm", c.layer_norm_eps)
        self.layers = [MPNetLayer(f"mpnet.encoder.layer.{i}", c, i) for i in range(c.num_hidden_layers)]
        self.distance_bias = nn.RelativeBias(
            "mpnet.encoder.relative_attention_bias", buckets=_BUCKETS, farthest=_FARTHEST, longest=self.max_positions
        )

    @property
    def max_positions(self) -> int:
        longest: int = self.config.max_position_embeddings - _FIRST_POSITION
        return longest

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed_norm(self.words(tokens) + self.positions(tokens))
        bias = self.distance_bias(tokens)
        for layer in self.layers:
            layer.attn.bias = bias
            x = layer(x)
        return x

    def classify(self, pooled: nn.Value) -> nn.Value:
        pooled = nn.tanh(nn.Linear("classifier.dense", bias=True)(pooled))
        return nn.Linear("classifier.out_proj", bias=True)(pooled)
