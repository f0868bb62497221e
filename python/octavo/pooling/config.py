"""What callers may say about pooling when they load a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo import checks
from octavo.errors import InvalidInputError, InvalidTypeError

SEQUENCE_POOLING = ("LAST", "CLS", "MEAN")
TOKEN_POOLING = ("ALL",)
TASKS = ("embed", "classify", "token_embed", "token_classify")

_NOT_OFFERED = frozenset(
    "enable_chunked_processing max_embed_len logit_bias logit_mean logit_sigma logit_scale step_tag_id "
    "returned_token_ids".split()
)


def _explain_unknown(name: str) -> str | None:
    return f"octavo does not offer {name} in pooler_config; leave it out." if name in _NOT_OFFERED else None


@checks.reject_unknown_arguments(_explain_unknown)
@dataclass
class PoolerConfig:
    """How a model's hidden states become results; None leaves a choice to the model's own files.

    Attributes:
        task: "embed", "classify", "token_embed" or "token_classify".
        pooling_type: "LAST", "CLS" or "MEAN" for one row per prompt, "ALL" for one per token.
        seq_pooling_type, tok_pooling_type: The same, named by what they are for.
        use_activation: Whether the task's last step is done where a request does not say: L2 normalisation of
            embeddings, softmax or sigmoid of classes.
        normalize, softmax, activation: Older names of use_activation.
        dimensions: Keep only this many leading dimensions of an embedding where a request does not say.

    Raises:
        InvalidInputError, InvalidTypeError: a value is unknown, of the wrong type, or at odds with another.
    """

    task: str | None = None
    pooling_type: str | None = None
    seq_pooling_type: str | None = None
    tok_pooling_type: str | None = None
    use_activation: bool | None = None
    normalize: bool | None = None
    softmax: bool | None = None
    activation: bool | None = None
    dimensions: int | None = None

    def __post_init__(self) -> None:
        self.task = _word("task", self.task, TASKS)
        for name, words in _POOLING_NAMES.items():
            setattr(self, name, _word(name, getattr(self, name), words))
        for name in ("use_activation", "normalize", "softmax", "activation"):
            if getattr(self, name) is not None:
                setattr(self, name, checks.boolean(f"pooler_config.{name}", getattr(self, name)))
        if self.dimensions is not None:
            self.dimensions = checks.whole_number("pooler_config.dimensions", self.dimensions, 1)
        self._check_agreement()

    def _check_agreement(self) -> None:
        if len({self.pooling_type, *self._particular_types()} - {None}) > 1:
            raise InvalidInputError(
                "pooler_config gives pooling_type and another seq_pooling_type or tok_pooling_type; leave one out."
            )
        if len({self.use_activation, self.normalize, self.softmax, self.activation} - {None}) > 1:
            raise InvalidInputError(
                "pooler_config says both to use and not to use the activation; give use_activation alone."
            )

    def _particular_types(self) -> tuple[str | None, ...]:
        return (self.seq_pooling_type, self.tok_pooling_type) if self.pooling_type else ()

    @property
    def sequence_pooling(self) -> str | None:
        """ "LAST", "CLS" or "MEAN" where one of them was asked for."""
        return self.seq_pooling_type or (self.pooling_type if self.pooling_type in SEQUENCE_POOLING else None)

    @property
    def per_token(self) -> bool:
        """Whether a row for every token was asked for."""
        return "ALL" in (self.pooling_type, self.tok_pooling_type) or (self.task or "").startswith("token_")

    @property
    def last_step(self) -> bool | None:
        """use_activation under whatever name it was given."""
        given = (self.use_activation, self.normalize, self.softmax, self.activation)
        return next((value for value in given if value is not None), None)


_POOLING_NAMES = {
    "pooling_type": (*SEQUENCE_POOLING, *TOKEN_POOLING),
    "seq_pooling_type": SEQUENCE_POOLING,
    "tok_pooling_type": TOKEN_POOLING,
}


def read_pooler_config(name: str, value: Any) -> PoolerConfig:
    """A PoolerConfig, or the dict that one is made of.

    Raises:
        InvalidInputError, InvalidTypeError: it is neither, or a value of it is wrong.
    """
    if isinstance(value, PoolerConfig):
        return value
    if not isinstance(value, Mapping):
        raise InvalidTypeError(f"{name} must be a PoolerConfig or a dict, got {checks.shown(value)}.")
    return PoolerConfig(**value)


def merged(*configs: Any) -> PoolerConfig:
    """What several say, each a PoolerConfig, a dict or None; a later one wins."""
    given: dict[str, Any] = {}
    for config in configs:
        if config is not None:
            read = read_pooler_config("pooler_config", config)
            given |= {f.name: v for f in fields(read) if (v := getattr(read, f.name)) is not None}
    return PoolerConfig(**given)


def _word(name: str, value: Any, words: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    text = value.upper() if isinstance(value, str) and words[0].isupper() else value
    if text not in words:
        raise InvalidInputError(f"pooler_config.{name} must be one of {', '.join(words)}, got {checks.shown(value)}.")
    return str(text)
