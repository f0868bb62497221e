"""How the prompts of a call are tokenised: `tokenization_kwargs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from octavo import checks, sampling_checks
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.tokenizer.truncation import TruncationSide

_KEYS = ("add_special_tokens", "truncate_prompt_tokens", "truncation_side", "max_length", "truncation", "padding")


@dataclass(frozen=True)
class TokenizationOptions:
    """What becomes of a prompt's text.

    Attributes:
        add_special_tokens: Put the model's BOS and EOS where it wants them.
        limit: Most tokens that are kept; -1 as many as the model can take, None all.
        side: Where the others are taken away, "left" or "right".
    """

    add_special_tokens: bool = True
    limit: int | None = None
    side: TruncationSide = "left"

    @classmethod
    def of(
        cls, given: Mapping[str, Any] | None, *, add_special_tokens: bool, side: TruncationSide = "left"
    ) -> TokenizationOptions:
        """The options of a call; the others are defaults. Raises InvalidInputError for unknown ones."""
        if given is not None and not isinstance(given, Mapping):
            raise InvalidTypeError(f"tokenization_kwargs must be a dict, got {checks.shown(given)}.")
        options = dict(given or {})
        if unknown := sorted(map(str, options.keys() - set(_KEYS))):
            raise InvalidInputError(f"tokenization_kwargs has no key {unknown[0]!r}; it takes {', '.join(_KEYS)}.")
        if options.get("padding"):
            raise InvalidInputError("octavo does not pad prompts; leave padding out of tokenization_kwargs.")
        special = checks.boolean("add_special_tokens", options.get("add_special_tokens", add_special_tokens))
        side = options.get("truncation_side") or side
        if side not in ("left", "right"):
            raise InvalidInputError(f"truncation_side must be 'left' or 'right', got {checks.shown(side)}.")
        return cls(special, _limit(options), side)

    def for_request(self, limit: int | None) -> TokenizationOptions:
        """These options, or, where a request has a limit of its own, that instead."""
        return self if limit is None else replace(self, limit=limit, side="left")

    def truncated(self, ids: list[int], longest: int) -> list[int]:
        """The ids that are kept, `longest` where the limit is -1."""
        n = self.most(longest)
        if n is None:
            return ids
        return ids[-n:] if self.side == "left" else ids[:n]

    def most(self, longest: int) -> int | None:
        """Most tokens that are kept, None for all; raises InvalidInputError where that is more than `longest`."""
        if self.limit is None:
            return None
        n = longest if self.limit == -1 else self.limit
        if n > longest:
            raise InvalidInputError(
                f"truncate_prompt_tokens={n} cannot be greater than the {longest} tokens that this model can take as a "
                "prompt; ask for fewer, or -1 for as many as it can take."
            )
        return n


def _limit(options: Mapping[str, Any]) -> int | None:
    """truncate_prompt_tokens or, unless truncation is off, max_length."""
    if (limit := options.get("truncate_prompt_tokens")) is not None:
        return sampling_checks.truncation(limit)
    if options.get("truncation") is False or options.get("max_length") is None:
        return -1 if options.get("truncation") is True else None
    return checks.whole_number("max_length", options["max_length"], 1)
