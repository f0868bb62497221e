"""Modules: they hold names and sizes, fetch weights when they are traced, and record ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from octavo import _core
from octavo.nn.rope import Rope
from octavo.nn.trace import Part, Trace, Value

Rows = slice | npt.NDArray[np.int64] | None


class Block:
    """A part of a model: calling it traces its ``forward``, which takes traced values and gives one."""

    forward: Callable[..., Value]

    def __call__(self, *values: Value) -> Value:
        return self.forward(*values)


class Embedding:
    """Looks up rows of the table ``{name}.weight`` (rows, hidden) by the batch's token ids, positions or token types.

    Attributes:
        offset: Added to each index.
        scale: Multiplies what the table holds.
    """

    def __init__(
        self,
        name: str,
        source: Literal["tokens", "positions", "types"] = "tokens",
        offset: int = 0,
        scale: float = 1.0,
    ) -> None:
        self.name = name
        self.source = source
        self.offset = offset
        self.scale = scale

    def __call__(self, trace: Trace) -> Value:
        table = trace.weights.embedding(f"{self.name}.weight", self.source)
        return trace.value(trace.graph.embed(table, getattr(_core.EmbedSource, self.source), self.offset, self.scale))


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * (weight + offset) (https://arxiv.org/abs/1910.07467).

    A value that is a multiple as wide as the weight is normalised in groups: so are the heads of queries and keys.
    """

    def __init__(self, name: str, eps: float, offset: float = 0.0) -> None:
        self.name = name
        self.eps = eps
        self.offset = offset

    def __call__(self, x: Value) -> Value:
        weight = x.trace.weights.vector(f"{self.name}.weight", self.offset)
        return x.trace.value(x.trace.graph.rms_norm(x.index, weight, self.eps))


class LayerNorm:
    """(x - mean) / sqrt(variance + eps) * weight + bias; in groups like RMSNorm (https://arxiv.org/abs/1607.06450).

    Attributes:
        affine: Whether there is a weight, and perhaps a bias.
        bias: Whether there is a bias beside the weight.
    """

    def __init__(self, name: str, eps: float, *, affine: bool = True, bias: bool = True) -> None:
        self.name = name
        self.eps = eps
        self.affine = affine
        self.bias = bias

    def __call__(self, x: Value) -> Value:
        weights, name = x.trace.weights, self.name
        if self.affine:
            weight = weights.vector(f"{name}.weight")
            bias = weights.vector(f"{name}.bias") if self.bias else None
        else:
            weight, bias = weights.constant(name, np.ones(x.width, np.float32)), None
        return x.trace.value(x.trace.graph.layer_norm(x.index, weight, bias, self.eps))


class HeadLayerNorm:
    """A LayerNorm without bias for each head, over its part of the value: ``{name}.0.weight`` and so on."""

    def __init__(self, name: str, heads: int, eps: float) -> None:
        self.name = name
        self.heads = heads
        self.eps = eps

    def __call__(self, x: Value) -> Value:
        weights = x.trace.weights
        stored = np.concatenate([weights.floats(f"{self.name}.{i}.weight") for i in range(self.heads)])
        weight = weights.constant(self.name, stored)
        return x.trace.value(x.trace.graph.layer_norm(x.index, weight, None, self.eps, x.width // self.heads))


class Linear:
    """x W^T, plus a bias where it has one; the arguments are those of Part."""

    def __init__(self, name: str, rows: Rows = None, *, transposed: bool = False, bias: bool = False) -> None:
        self.part = Part(name, rows, transposed, bias)

    def __call__(self, x: Value) -> Value:
        return x.linear([self.part])[0]


def interleaved_rows(heads: int, head_dim: int, part: int, parts: int = 3) -> npt.NDArray[np.int64]:
    """The rows of one part of a fused tensor that holds all ``parts`` of a head side by side, head after head."""
    rows = np.arange(heads * parts * head_dim).reshape(heads, parts, head_dim)
    return rows[:, part].reshape(-1)


class FusedLinear:
    """Several linears over one input, computed as one op: ``{prefix}.{part}`` for each part, with biases or without."""

    def __init__(self, prefix: str, *parts: str | Part, bias: bool = False) -> None:
        named = [part if isinstance(part, Part) else Part(part) for part in parts]
        self.parts = [Part(f"{prefix}.{part.name}", part.rows, part.transposed, bias) for part in named]

    def __call__(self, x: Value) -> list[Value]:
        return x.linear(self.parts)


class Attention:
    """Paged self-attention of one layer over its KV cache, after rotary embedding of q and k.

    Attributes:
        window: Sliding window in tokens, 0 for none: the last ``window`` of a causal model, else half to either side.
        scale: Of the scores; None is head_dim ** -0.5.
        soft_cap: Of the scaled scores, 0 for none.
        causal: Whether a token sees only itself and what came before it.
        bias: (heads, 2 * length - 1) added to the scaled scores: entry key - query + length - 1.
    """

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
        causal: bool = True,
        bias: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.rope = rope
        self.bias = bias
        self.options = {
            "layer": layer,
            "n_heads": heads,
            "n_kv_heads": kv_heads,
            "head_dim": head_dim,
            "window": window,
            "scale": head_dim**-0.5 if scale is None else scale,
            "soft_cap": soft_cap,
            "causal": causal,
        }

    def __call__(self, q: Value, k: Value, v: Value) -> Value:
        trace = q.trace
        rope = -1 if self.rope is None else trace.rope(self.rope)
        bias = None if self.bias is None else _relative_bias(trace, self.bias)
        index = trace.graph.attention(q.index, k.index, v.index, rope=rope, bias=bias, **self.options)
        return trace.value(index)


def _relative_bias(trace: Trace, bias: npt.NDArray[np.float32]) -> int:
    """The core's form: each head's row is followed by padding for a whole tile of keys."""
    padded = np.pad(bias.astype(np.float32), ((0, 0), (0, _core.KV_BLOCK_TOKENS)))
    return trace.weights.constant("relative attention bias", np.ascontiguousarray(padded).reshape(-1))
