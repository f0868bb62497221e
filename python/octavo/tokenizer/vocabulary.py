"""A vocabulary as model files store it, and the building blocks that all its tokenizer kinds share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from tokenizers import AddedToken, Tokenizer, processors

from octavo.errors import ModelError


class TokenType(IntEnum):
    """What a token is for, numbered as in GGUF and SentencePiece files."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_SPECIAL = frozenset({int(TokenType.UNKNOWN), int(TokenType.CONTROL)})
_MATCHED_WHOLE = _SPECIAL | {int(TokenType.USER_DEFINED)}


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, with their types and, where the kind has them, scores."""

    source: str  # the file, for messages
    tokens: list[str]
    types: list[int]  # TokenType of each token
    scores: list[float]  # empty, or one for each token

    def ids(self) -> dict[str, int]:
        """Token -> id.

        Raises:
            ModelError: two ids have the same token.
        """
        ids = {token: i for i, token in enumerate(self.tokens)}
        if len(ids) != len(self.tokens):
            raise ModelError(f"{self.source} holds the same token under two ids; convert or download the model again.")
        return ids

    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that stand for no text."""
        return frozenset(i for i, type_ in enumerate(self.types) if type_ in _SPECIAL)

    def token(self, token_id: int | None) -> str | None:
        """The token of an id that may be missing or out of range."""
        return self.tokens[token_id] if token_id is not None and 0 <= token_id < len(self.tokens) else None


def add_special_tokens(backend: Tokenizer, vocabulary: Vocabulary, strip_right: frozenset[int] = frozenset()) -> None:
    """Make control and user-defined tokens match whole in any text, before all else.

    Tokens in ``strip_right`` swallow the spaces after them.
    """
    tokens = vocabulary.tokens
    backend.add_tokens(
        [
            AddedToken(tokens[i], special=type_ in _SPECIAL, normalized=False, rstrip=i in strip_right)
            for i, type_ in enumerate(vocabulary.types)
            if type_ in _MATCHED_WHOLE
        ]
    )


def add_template(backend: Tokenizer, before: Iterable[int], after: Iterable[int]) -> None:
    """Put these tokens, and no others, around every text that is encoded with special tokens."""
    first = [(f"before{i}", token_id) for i, token_id in enumerate(before)]
    last = [(f"after{i}", token_id) for i, token_id in enumerate(after)]
    special = [{"id": name, "ids": [token_id], "tokens": [name]} for name, token_id in first + last]
    single = [*(name for name, _ in first), "$A", *(name for name, _ in last)]
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=[*single, "$B:1", *(f"{name}:1" for name, _ in last)], special_tokens=special
    )
