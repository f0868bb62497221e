"""Names for the dicts that may be prompts; a plain dict does as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict


class _Salted(TypedDict, total=False):
    cache_salt: str  # prompts share cached prefixes only with prompts of the same salt


class TextPrompt(_Salted):
    """A text."""

    prompt: str


class TokensPrompt(_Salted):
    """Token ids."""

    prompt_token_ids: Sequence[int]


class EmbedsPrompt(_Salted):
    """Rows of embeddings (n_tokens, hidden), for an LLM made with enable_prompt_embeds."""

    prompt_embeds: Any


PromptType = str | Sequence[int] | TextPrompt | TokensPrompt | EmbedsPrompt
