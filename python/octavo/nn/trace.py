"""Tracing: a model's forward runs once, on values that record what is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from octavo.nn.rope import Rope


class Weights(Protocol):
    """Where modules get weights from, by their Hugging Face names; ids are those of the core's weight store."""

    def linear(self, name: str) -> int:
        """The matrix ``name`` (out features, in features)."""

    def embedding(self, name: str) -> int:
        """The table ``name`` (rows, width)."""

    def vector(self, name: str) -> int:
        """The vector ``name``."""

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds ``name``."""

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
            frequencies = rope.frequencies()
            if rope.freq_factors is not None:
                frequencies = frequencies / self.weights.floats(rope.freq_factors)
            self._ropes[id(rope)] = (rope, self.graph.add_rope(frequencies.tolist(), 1.0))
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

    def __mul__(self, other: Value) -> Value:
        return self.trace.value(self.trace.graph.mul(self.index, other.index))

    def linear(self, parts: Sequence[tuple[int, int | None]]) -> list[Value]:
        """One product for each (weight, bias)."""
        return [self.trace.value(index) for index in self.trace.graph.linear(self.index, list(parts))]


def silu(x: Value) -> Value:
    """x * sigmoid(x)."""
    return x.trace.value(x.trace.graph.silu(x.index))
