"""A vocabulary as model files store it, and the building blocks that all its tokenizer kinds share."""

from __future__ import annotations

from collections.abc import Sequence
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


def add_template(
    backend: Tokenizer,
    before: Sequence[int],
    after: Sequence[int],
    *,
    between: Sequence[int] | None = None,
    pair_type: int = 1,
) -> None:
    """Put these tokens, and no others, around every text that is encoded with special tokens.

    Of a pair the second text has the tokens ``between`` (None: those before a text) before it and ``after`` after it;
    ``pair_type`` is the token type of the second text and of the tokens after it.
    """
    between = before if between is None else between
    names = {token_id: f"token{token_id}" for token_id in (*before, *between, *after)}
    special = [{"id": name, "ids": [token_id], "tokens": [name]} for token_id, name in names.items()]
    single = [*(names[i] for i in before), "$A", *(names[i] for i in after)]
    second = [names[i] for i in between] + ["$B"] + [names[i] for i in after]
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=single + [f"{piece}:{pair_type}" for piece in second], special_tokens=special
    )
