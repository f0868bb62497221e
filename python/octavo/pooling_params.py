"""What a pooling request (embed, classify, score) returns."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from octavo import checks, sampling_checks


@checks.reject_unknown_arguments(lambda name: None)
@dataclass
class PoolingParams:
    """Parameters of one pooling request.

    Attributes:
        use_activation: Apply the task's last step: L2 normalisation to embeddings, softmax or sigmoid to classes;
            None does what the task does by default.
        dimensions: Keep only this many leading dimensions of an embedding, >= 1; None keeps all.
        truncate_prompt_tokens: Keep only this many tokens of the prompt; -1 keeps what the model can take.
    """

    use_activation: bool | None = None
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None

    def __post_init__(self) -> None:
        self.validate()

    def clone(self) -> PoolingParams:
        """An independent copy."""
        return copy.copy(self)

    def validate(self) -> None:
        """Checks every field; raises InvalidInputError or InvalidTypeError."""
        if self.use_activation is not None:
            self.use_activation = checks.boolean("use_activation", self.use_activation)
        if self.dimensions is not None:
            self.dimensions = checks.whole_number("dimensions", self.dimensions, 1)
        self.truncate_prompt_tokens = sampling_checks.truncation(self.truncate_prompt_tokens)
