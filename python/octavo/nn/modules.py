"""Modules: they hold names and sizes, fetch weights when they are traced, and record ops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from octavo.nn.config import ModelConfig
from octavo.nn.rope import Rope
from octavo.nn.trace import Trace, Value


class Block:
    """A part of a model: calling it traces its ``forward``, which takes and gives traced values."""

    forward: Callable[..., Any]

    def __call__(self, *values: Value) -> Any:
        return self.forward(*values)


class Embedding:
    """Looks up the batch's token ids in the table ``{name}.weight`` (vocabulary, hidden)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, trace: Trace) -> Value:
        return trace.value(trace.graph.embed(trace.weights.embedding(f"{self.name}.weight")))


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight (https://arxiv.org/abs/1910.07467)."""

    def __init__(self, name: str, eps: float) -> None:
        self.name = name
        self.eps = eps

    def __call__(self, x: Value) -> Value:
        weight = x.trace.weights.vector(f"{self.name}.weight")
        return x.trace.value(x.trace.graph.rms_norm(x.index, weight, self.eps))


def _linear_part(trace: Trace, name: str) -> tuple[int, int | None]:
    bias = f"{name}.bias"
    return (
        trace.weights.linear(f"{name}.weight"),
        trace.weights.vector(bias) if trace.weights.has(bias) else None,
    )


class Linear:
    """x W^T, plus a bias where the checkpoint has one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, x: Value) -> Value:
        return x.linear([_linear_part(x.trace, self.name)])[0]


class FusedLinear:
    """Several linears over one input, computed as one op: ``{prefix}.{part}`` for each part."""

    def __init__(self, prefix: str, *parts: str) -> None:
        self.names = [f"{prefix}.{part}" for part in parts]

    def __call__(self, x: Value) -> list[Value]:
        return x.linear([_linear_part(x.trace, name) for name in self.names])


class Attention:
    """Paged self-attention of one layer over its KV cache, after rotary embedding of q and k."""

    def __init__(
        self,
        *,
        layer: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        rope: Rope | None,
        window: int = 0,
        scale: float | None = None,
        soft_cap: float = 0.0,
    ) -> None:
        self.layer = layer
        self.rope = rope
        self.shape = {"n_heads": heads, "n_kv_heads": kv_heads, "head_dim": head_dim}
        self.window = window
        self.scale = head_dim**-0.5 if scale is None else scale
        self.soft_cap = soft_cap

    def __call__(self, q: Value, k: Value, v: Value) -> Value:
        rope = -1 if self.rope is None else q.trace.rope(self.rope)
        index = q.trace.graph.attention(
            q.index,
            k.index,
            v.index,
            layer=self.layer,
            rope=rope,
            window=self.window,
            scale=self.scale,
            soft_cap=self.soft_cap,
            **self.shape,
        )
        return q.trace.value(index)


class LMHead:
    """Logits by ``lm_head``, or by the embedding table where the two are tied."""

    def __init__(self, config: ModelConfig, embedding: str, head: str = "lm_head") -> None:
        self.linear = Linear(embedding if config.get("tie_word_embeddings", False) else head)

    def __call__(self, x: Value) -> Value:
        return self.linear(x)


class CausalLM(ABC):
    """A decoder-only language model: a body over all tokens, a head over the rows whose logits are wanted."""

    # Checkpoint tensors that carry no weights, as regular expressions.
    ignored: tuple[str, ...] = (r".*\.rotary_emb\.inv_freq",)

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        if config.get("tie_word_embeddings", False):
            self.ignored = (*self.ignored, r"lm_head\.weight")  # many files hold the tied matrix twice

    @abstractmethod
    def body(self, tokens: Trace) -> Value:
        """Token ids -> hidden states (n_tokens, hidden)."""

    @abstractmethod
    def head(self, hidden: Value) -> Value:
        """Gathered hidden states -> logits (n_rows, vocabulary)."""

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that the KV cache holds for one token, over all layers."""
        c = self.config
        values: int = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim
        return values

    @property
    def hidden_size(self) -> int:
        """Width of what ``body`` gives and ``head`` takes."""
        width: int = self.config.hidden_size
        return width
