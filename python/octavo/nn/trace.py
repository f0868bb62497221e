"""Tracing: a model's forward runs once, on values that record what is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from octavo.nn.rope import Rope


@dataclass(frozen=True, eq=False)
class Part:
    """A linear's weight inside a checkpoint tensor of another layout.

    Attributes:
        name: Name of the linear: its tensors are ``{name}.weight`` and, where it has one, ``{name}.bias``.
        rows: The rows of the tensor that are this linear's: a slice, or their numbers in order; None is all.
        transposed: The tensor is stored as (in features, out features); ``rows`` are those of its transpose.
        bias: Whether the linear has one; the checkpoint must hold it then.
        screened: What it makes are the logits as they are sampled from: where the largest is all that is wanted, the
            core finds it without computing the others exactly.
    """

    name: str
    rows: slice | npt.NDArray[np.int64] | None = None
    transposed: bool = False
    bias: bool = False
    screened: bool = False


class Weights(Protocol):
    """Where modules get weights from, by their Hugging Face names; ids are those of the core's weight store."""

    store: Any  # octavo._core.WeightStore

    def linear(self, part: Part, *, exact: bool = False) -> int:
        """The matrix (out features, in features) of ``part``; in float32, whatever the model's dtype, where exact."""

    def bias(self, part: Part) -> int:
        """The vector (out features,) of ``part``."""

    def embedding(self, name: str, source: str) -> int:
        """The table ``name`` (rows, width), whose rows are taken by ``source`` as in Embedding."""

    def vector(self, name: str, plus: float = 0.0) -> int:
        """The vector ``name``, with ``plus`` added to each element."""

    def constant(self, name: str, values: npt.NDArray[np.float32]) -> int:
        """Values that are computed rather than stored, under a name for error messages."""

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """The values of a small tensor."""


@dataclass(eq=False)
class Trace:
    """One graph being recorded."""

    graph: Any  # octavo._core.Graph
    weights: Weights

    def __post_init__(self) -> None:
        self._ropes: dict[int, tuple[Rope, int]] = {}

    def value(self, index: int) -> Value:
        """The traced value with this number in the graph."""
        return Value(self, index)

    def rope(self, rope: Rope) -> int:
        """The number of a rope in the graph; the same for the same object."""
        if id(rope) not in self._ropes:
            factors = None if rope.freq_factors is None else self.weights.floats(rope.freq_factors)
            self._ropes[id(rope)] = (rope, self.graph.add_rope(**rope.arguments(factors)))
        return self._ropes[id(rope)][1]


@dataclass(frozen=True, eq=False)
class Value:
    """A traced value of shape (rows, width)."""

    trace: Trace
    index: int

    @property
    def width(self) -> int:
        """Columns."""
        width: int = self.trace.graph.width(self.index)
        return width

    def __add__(self, other: Value) -> Value:
        return self.trace.value(self.trace.graph.add(self.index, other.index))

    def __mul__(self, other: Value | float) -> Value:
        """The product with another value, which may have one column, or with a number."""
        graph = self.trace.graph
        product = graph.mul(self.index, other.index) if isinstance(other, Value) else graph.scale(self.index, other)
        return self.trace.value(product)

    def linear(self, parts: Sequence[Part]) -> list[Value]:
        """One product for each part, with its bias where it has one."""
        weights = self.trace.weights
        ids = [(weights.linear(part), weights.bias(part) if part.bias else None) for part in parts]
        return [self.trace.value(index) for index in self.trace.graph.linear(self.index, ids)]
