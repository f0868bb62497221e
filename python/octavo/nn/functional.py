"""Functions of traced values."""

from __future__ import annotations

from collections.abc import Callable

from octavo import _core
from octavo.errors import ModelError
from octavo.nn.trace import Value

# Names in config.json -> the core's.
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


def activation(name: str) -> Callable[[Value], Value]:
    """The activation function that config.json calls ``name``.

    Raises:
        ModelError: octavo does not know it.
    """
    kind = activation_kind(name)
    return lambda x: x.trace.value(x.trace.graph.activation(x.index, kind))


def activation_kind(name: str) -> _core.Activation:
    """What the core calls it; raises ModelError as ``activation`` does."""
    if name not in _ACTIVATIONS:
        raise ModelError(f"config.json asks for the activation {name!r}; octavo knows {', '.join(_ACTIVATIONS)}.")
    kind: _core.Activation = getattr(_core.Activation, _ACTIVATIONS[name])
    return kind


def silu(x: Value) -> Value:
    """x * sigmoid(x)."""
    return activation("silu")(x)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent."""
    return activation("tanh")(x)


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return activation("sigmoid")(x)


def soft_cap(x: Value, cap: float) -> Value:
    """cap * tanh(x / cap): values stay between -cap and cap (Gemma 2, https://arxiv.org/abs/2408.00118)."""
    return x.trace.value(x.trace.graph.soft_cap(x.index, cap))
