"""MPNet (https://arxiv.org/abs/2004.09297): BERT's shape with a bias of attention by distance, shared by all layers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from octavo import nn

_FIRST_POSITION = 2  # the position table's first rows are for padding
_BUCKETS = 32
_FARTHEST = 128  # all greater distances share a bucket


def distance_buckets(distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bucket of each key - query: one for each small distance, then logarithmic ones; half for either sign."""
    half, exact = _BUCKETS // 2, _BUCKETS // 4
    far = np.abs(distances)
    scale = np.float32(math.log(_FARTHEST / exact))
    logs = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / scale
    wide = np.minimum(exact + (logs * np.float32(half - exact)).astype(np.int64), half - 1)
    buckets: npt.NDArray[np.int64] = np.where(far < exact, far, wide) + half * (distances > 0)
    return buckets


class MPNetLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int) -> None:
        self.qkv = nn.FusedLinear(f"{prefix}.attention.attn", "q", "k", "v")
        self.attn = nn.Attention(
            layer=layer,
            heads=c.num_attention_heads,
            kv_heads=c.num_attention_heads,
            head_dim=c.head_dim,
            rope=None,
            causal=False,
        )
        self.o_proj = nn.Linear(f"{prefix}.attention.attn.o")
        self.attn_norm = nn.LayerNorm(f"{prefix}.attention.LayerNorm", c.layer_norm_eps)
        self.up_proj = nn.Linear(f"{prefix}.intermediate.dense")
        self.act = nn.activation(c.hidden_act)
        self.down_proj = nn.Linear(f"{prefix}.output.dense")
        self.mlp_norm = nn.LayerNorm(f"{prefix}.output.LayerNorm", c.layer_norm_eps)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(x)
        x = self.attn_norm(x + self.o_proj(self.attn(q, k, v)))
        return self.mlp_norm(x + self.down_proj(self.act(self.up_proj(x))))


class MPNet(nn.Model):
    base_prefix = "mpnet"
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

    @property
    def max_positions(self) -> int:
        longest: int = self.config.max_position_embeddings - _FIRST_POSITION
        return longest

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed_norm(self.words(tokens) + self.positions(tokens))
        bias = self._distance_bias(tokens)
        for layer in self.layers:
            layer.attn.bias = bias
            x = layer(x)
        return x

    def _distance_bias(self, tokens: nn.Trace) -> npt.NDArray[np.float32]:
        """(heads, 2 * longest - 1), by key - query."""
        table = tokens.weights.floats("mpnet.encoder.relative_attention_bias.weight").reshape(_BUCKETS, -1)
        distances = np.arange(1 - self.max_positions, self.max_positions)
        return np.ascontiguousarray(table[distance_buckets(distances)].T)

    def classify(self, pooled: nn.Value) -> nn.Value:
        pooled = nn.tanh(nn.Linear("classifier.dense")(pooled))
        return nn.Linear("classifier.out_proj")(pooled)
