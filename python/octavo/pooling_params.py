"""Parameters of what is asked of a pooling model: embed, classify, score, encode."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from octavo import checks, sampling_checks
from octavo.errors import InvalidInputError
from octavo.pooling.config import TASKS

_NOT_OFFERED = frozenset(
    "step_tag_id returned_token_ids extra_kwargs late_chunking_params output_kind requires_token_ids".split()
)


def _explain_unknown(name: str) -> str | None:
    return f"octavo does not offer {name} in PoolingParams; leave it out." if name in _NOT_OFFERED else None


@checks.reject_unknown_arguments(_explain_unknown)
@dataclass
class PoolingParams:
    """Parameters of one pooling request.

    Attributes:
        use_activation: Apply the task's last step: L2 normalisation to embeddings, softmax or sigmoid to classes;
            None does what the model's files or its pooler_config say, which is yes where they say nothing.
        dimensions: Keep only this many leading dimensions of an embedding, >= 1, on models made for it; None keeps all.
        truncate_prompt_tokens: Keep only this many tokens of the prompt; -1 keeps what the model can take.
        task: "embed", "classify", "token_embed" or "token_classify", for `LLM.encode`.
        normalize, softmax, activation: Older names of use_activation.

    Raises:
        InvalidInputError, InvalidTypeError: a value is out of range, of the wrong type, or at odds with another.
    """

    use_activation: bool | None = None
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None
    task: str | None = None
    normalize: bool | None = None
    softmax: bool | None = None
    activation: bool | None = None

    def __post_init__(self) -> None:
        self.validate()

    def clone(self) -> PoolingParams:
        """An independent copy."""
        return copy.copy(self)

    def validate(self) -> None:
        """Checks every field; raises InvalidInputError or InvalidTypeError."""
        for name in ("use_activation", "normalize", "softmax", "activation"):
            if getattr(self, name) is not None:
                setattr(self, name, checks.boolean(name, getattr(self, name)))
        if len({self.use_activation, self.normalize, self.softmax, self.activation} - {None}) > 1:
            raise InvalidInputError("use_activation and its older names disagree; give use_activation alone.")
        if self.dimensions is not None:
            self.dimensions = checks.whole_number("dimensions", self.dimensions, 1)
        self.truncate_prompt_tokens = sampling_checks.truncation(self.truncate_prompt_tokens)
        if self.task is not None and self.task not in TASKS:
            raise InvalidInputError(f"task must be one of {', '.join(TASKS)}, got {checks.shown(self.task)}.")

    @property
    def last_step(self) -> bool | None:
        """use_activation under whatever name it was given."""
        given = (self.use_activation, self.normalize, self.softmax, self.activation)
        return next((value for value in given if value is not None), None)
