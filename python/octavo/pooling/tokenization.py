"""How texts become token ids for pooling: truncation, special tokens, lower case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from octavo import checks, sampling_checks
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.tokenizer.tokenizer import Tokenizer
from octavo.tokenizer.truncation import Side

_KEYS = ("truncate_prompt_tokens", "truncation_side", "max_length", "truncation", "add_special_tokens", "padding")


@dataclass(frozen=True)
class Tokenization:
    """What a call says about its texts.

    Attributes:
        truncate: Tokens that are kept; -1 keeps what the model can take, None refuses what is longer than that.
        side: Where tokens are taken away.
        add_special_tokens: Put the model's special tokens around the text.
    """

    truncate: int | None = None
    side: Side = "right"
    add_special_tokens: bool = True

    def limit(self, own: int | None, max_model_len: int) -> int | None:
        """Tokens that are kept of a prompt; ``own`` is what its parameters say and goes first.

        Raises:
            InvalidInputError: it is more than the model can take.
        """
        asked = self.truncate if own is None else own
        if asked is not None and asked > max_model_len:
            raise InvalidInputError(
                f"truncate_prompt_tokens={asked} cannot be greater than max_model_len={max_model_len}; ask for less."
            )
        return max_model_len if asked == -1 else asked


def read_tokenization(truncate_prompt_tokens: Any, kwargs: Any) -> Tokenization:
    """From a call's truncate_prompt_tokens and tokenization_kwargs.

    Raises:
        InvalidInputError, InvalidTypeError: there is an unknown key or a wrong value.
    """
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InvalidTypeError(f"tokenization_kwargs must be a dict, got {checks.shown(kwargs)}.")
    given = {key: value for key, value in (kwargs or {}).items() if value is not None}
    for key in given:
        if key not in _KEYS:
            raise InvalidInputError(f"tokenization_kwargs has the unknown key {key!r}; it may have {', '.join(_KEYS)}.")
    if given.get("padding", False):
        raise InvalidInputError("tokenization_kwargs asks for padding, which octavo never needs; leave it out.")
    side = given.get("truncation_side", "right")
    if side not in ("left", "right"):
        raise InvalidInputError(f"truncation_side must be left or right, got {checks.shown(side)}.")
    special = checks.boolean("add_special_tokens", given.get("add_special_tokens", True))
    return Tokenization(_kept(truncate_prompt_tokens, given), cast(Side, side), special)


def _kept(argument: Any, given: Mapping[str, Any]) -> int | None:
    if not given.get("truncation", True):
        return sampling_checks.truncation(argument)
    for value in (argument, given.get("truncate_prompt_tokens"), given.get("max_length")):
        if value is not None:
            return sampling_checks.truncation(value)
    return -1 if given.get("truncation") else None


def encode_text(
    tokenizer: Tokenizer | None, text: str, pair: str | None, how: Tokenization, limit: int | None, lowercase: bool
) -> tuple[list[int], list[int]]:
    """Token ids of a text or a pair, and the segment of each.

    Raises:
        InvalidInputError: there is no tokenizer, or the limit leaves no room for text.
    """
    if tokenizer is None:
        raise InvalidInputError("This LLM has no tokenizer (skip_tokenizer_init); pass token ids.")
    texts = [part.lower() if lowercase else part for part in (text, pair) if part is not None]
    return tokenizer.encode_pair(*texts, add_special_tokens=how.add_special_tokens, max_length=limit, side=how.side)


def cut_ids(ids: list[int], limit: int | None, side: Side) -> list[int]:
    """At most ``limit`` ids."""
    if limit is None or len(ids) <= limit:
        return list(ids)
    return list(ids[-limit:] if side == "left" else ids[:limit])
