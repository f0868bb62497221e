"""How texts become token ids for pooling: truncation, special tokens, pairs, lower case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from octavo import sampling_checks
from octavo.errors import InvalidInputError
from octavo.tokenization_options import TokenizationOptions
from octavo.tokenizer.tokenizer import Tokenizer

Texts = tuple[str] | tuple[str, str]  # one text, or a pair that is tokenised together
Encoded = tuple[list[int], list[int]]  # token ids, and the segment of each; no segments for one text alone

_NO_TOKENIZER = "This LLM has no tokenizer (skip_tokenizer_init); pass token ids."


def pooling_options(truncate_prompt_tokens: Any, kwargs: Mapping[str, Any] | None) -> TokenizationOptions:
    """What a call says by its arguments; tokens are taken away at the right unless it says otherwise.

    Raises:
        InvalidInputError, InvalidTypeError: there is an unknown key or a wrong value.
    """
    options = TokenizationOptions.of(kwargs, add_special_tokens=True, side="right")
    limit = sampling_checks.truncation(truncate_prompt_tokens)
    return options if limit is None else replace(options, limit=limit)


def encode_texts(
    tokenizer: Tokenizer | None, texts: Mapping[int, Texts], options: TokenizationOptions, longest: int
) -> dict[int, Encoded]:
    """Texts and pairs, all made together on several threads; special tokens stay when a text is cut.

    Raises:
        InvalidInputError: there is no tokenizer, or the options leave no room for the special tokens.
        InvalidInputError, InvalidTypeError: one of the texts cannot be tokenised; which one is not said.
    """
    if tokenizer is None:
        raise InvalidInputError(_NO_TOKENIZER)
    special = options.add_special_tokens
    cut: dict[str, Any] = {"max_length": options.most(longest), "truncation_side": options.side}
    alone = {index: text[0] for index, text in texts.items() if len(text) == 1}
    pairs = {index: text for index, text in texts.items() if len(text) == 2}
    of_alone = [(ids, list[int]()) for ids in tokenizer.encode_batch(alone.values(), special, **cut)]
    of_pairs = tokenizer.encode_pairs(pairs.values(), special, **cut)
    return dict(zip([*alone, *pairs], [*of_alone, *of_pairs], strict=True))
