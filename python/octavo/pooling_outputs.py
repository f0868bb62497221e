"""What pooling requests return: vectors, class probabilities and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from octavo.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


@dataclass(eq=False)
class PoolingOutput:
    """The raw result of pooling: `data` is a numpy array of any shape."""

    data: np.ndarray

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PoolingOutput):
            return NotImplemented
        return self.data.shape == other.data.shape and bool((self.data == other.data).all())


@dataclass(repr=False)
class EmbeddingOutput:
    """The embedding of one prompt."""

    embedding: list[float]

    @classmethod
    def from_base(cls, pooled: PoolingOutput) -> EmbeddingOutput:
        """From a 1-D array; raises InvalidInputError for any other shape."""
        return cls(_vector(pooled, "a 1-D embedding vector"))

    @property
    def hidden_size(self) -> int:
        """Number of dimensions."""
        return len(self.embedding)

    def __repr__(self) -> str:
        return f"EmbeddingOutput(hidden_size={self.hidden_size})"


@dataclass(repr=False)
class ClassificationOutput:
    """The probability of each class for one prompt."""

    probs: list[float]

    @classmethod
    def from_base(cls, pooled: PoolingOutput) -> ClassificationOutput:
        """From a 1-D array; raises InvalidInputError for any other shape."""
        return cls(_vector(pooled, "a 1-D probability vector"))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.probs)

    def __repr__(self) -> str:
        return f"ClassificationOutput(num_classes={self.num_classes})"


@dataclass
class ScoringOutput:
    """How well two texts match."""

    score: float

    @classmethod
    def from_base(cls, pooled: PoolingOutput) -> ScoringOutput:
        """From an array of one element; raises InvalidInputError for any other size."""
        if pooled.data.size != 1:
            raise InvalidInputError(f"pooled_data should be a scalar score, got shape {pooled.data.shape}.")
        return cls(float(pooled.data.item()))


class PoolingRequestOutput(Generic[T]):
    """The result of one pooling request; `outputs` is a PoolingOutput or what the task makes of it."""

    def __init__(
        self,
        request_id: str,
        outputs: T,
        prompt_token_ids: list[int],
        num_cached_tokens: int,
        finished: bool,
        *,
        error: Any = None,
        late_chunking: Any = None,
    ) -> None:
        self.request_id = request_id
        self.outputs = outputs
        self.prompt_token_ids = prompt_token_ids
        self.num_cached_tokens = num_cached_tokens
        self.finished = finished
        self.error = error
        self.late_chunking = late_chunking

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(request_id={self.request_id!r}, outputs={self.outputs!r}, "
            f"prompt_token_ids={self.prompt_token_ids}, num_cached_tokens={self.num_cached_tokens}, "
            f"finished={self.finished})"
        )

    def _arguments(self, outputs: Any) -> dict[str, Any]:
        return {**vars(self), "outputs": outputs}


class EmbeddingRequestOutput(PoolingRequestOutput[EmbeddingOutput]):
    """The embedding of one prompt."""

    @classmethod
    def from_base(cls, request: PoolingRequestOutput[PoolingOutput]) -> EmbeddingRequestOutput:
        """The same request with its raw output read as an embedding."""
        return cls(**request._arguments(EmbeddingOutput.from_base(request.outputs)))


class ClassificationRequestOutput(PoolingRequestOutput[ClassificationOutput]):
    """The class probabilities of one prompt."""

    @classmethod
    def from_base(cls, request: PoolingRequestOutput[PoolingOutput]) -> ClassificationRequestOutput:
        """The same request with its raw output read as class probabilities."""
        return cls(**request._arguments(ClassificationOutput.from_base(request.outputs)))


class ScoringRequestOutput(PoolingRequestOutput[ScoringOutput]):
    """The score of one pair of texts."""

    @classmethod
    def from_base(cls, request: PoolingRequestOutput[PoolingOutput]) -> ScoringRequestOutput:
        """The same request with its raw output read as a score."""
        return cls(**request._arguments(ScoringOutput.from_base(request.outputs)))


def _vector(pooled: PoolingOutput, wanted: str) -> list[float]:
    if pooled.data.ndim != 1:
        raise InvalidInputError(f"pooled_data should be {wanted}, got shape {pooled.data.shape}.")
    values: list[float] = pooled.data.tolist()
    return values
