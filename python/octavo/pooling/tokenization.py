"""How texts become token ids for pooling: truncation, special tokens, pairs, lower case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from octavo import sampling_checks
from octavo.errors import InvalidInputError
from octavo.tokenization_options import TokenizationOptions
from octavo.tokenizer.tokenizer import Tokenizer

_NO_TOKENIZER = "This LLM has no tokenizer (skip_tokenizer_init); pass token ids."


def pooling_options(truncate_prompt_tokens: Any, kwargs: Mapping[str, Any] | None) -> TokenizationOptions:
    """What a call says by its arguments; tokens are taken away at the right unless it says otherwise.

    Raises:
        InvalidInputError, InvalidTypeError: there is an unknown key or a wrong value.
    """
    options = TokenizationOptions.of(kwargs, add_special_tokens=True, side="right")
    limit = sampling_checks.truncation(truncate_prompt_tokens)
    return options if limit is None else replace(options, limit=limit)


def encode_text(
    tokenizer: Tokenizer | None, text: str, pair: str | None, options: TokenizationOptions, longest: int
) -> tuple[list[int], list[int]]:
    """Token ids of a text or a pair, and the segment of each; special tokens stay when the text is cut.

    Raises:
        InvalidInputError: there is no tokenizer, or the options leave no room for the special tokens.
    """
    if tokenizer is None:
        raise InvalidInputError(_NO_TOKENIZER)
    cut: dict[str, Any] = {"max_length": options.most(longest), "truncation_side": options.side}
    if pair is not None:
        return tokenizer.encode_pair(text, pair, options.add_special_tokens, **cut)
    return tokenizer.encode(text, options.add_special_tokens, **cut), []


def encode_texts(
    tokenizer: Tokenizer | None, texts: Sequence[str], options: TokenizationOptions, longest: int
) -> list[list[int]]:
    """Token ids of each text, as encode_text gives them, and its errors, which do not say which text they are about."""
    if tokenizer is None:
        raise InvalidInputError(_NO_TOKENIZER)
    most = options.most(longest)
    return tokenizer.encode_batch(texts, options.add_special_tokens, max_length=most, truncation_side=options.side)
