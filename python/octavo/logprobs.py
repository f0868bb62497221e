"""Log probabilities of tokens: as a dict for each position, or all in a few flat lists."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass, field
from typing import Any, overload

from octavo.errors import InvalidTypeError


@dataclass
class Logprob:
    """The log probability of one token at one position.

    Attributes:
        logprob: Natural logarithm of the probability.
        rank: 1 for the most likely token of the position.
        decoded_token: The token's text; None when the request is not detokenized.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class FlatLogprobs(MutableSequence["dict[int, Logprob] | None"]):
    """Behaves like a list of dicts (token id -> Logprob, or None) to which one can only append.

    Attributes:
        start_indices: Where each position's entries begin in the lists below.
        end_indices: Where they end; a position without entries reads as None.
        token_ids: Token ids of all entries; `logprobs`, `ranks` and `decoded_tokens` lie beside them.
    """

    start_indices: list[int] = field(default_factory=list)
    end_indices: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int | None] = field(default_factory=list)
    decoded_tokens: list[str | None] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[dict[int, Logprob] | None]) -> FlatLogprobs:
        """The positions `rows`."""
        flat = cls()
        flat.extend(rows)
        return flat

    def append(self, value: dict[int, Logprob] | None) -> None:
        """Adds a position."""
        self.start_indices.append(len(self.token_ids))
        for token, entry in (value or {}).items():
            self.token_ids.append(token)
            self.logprobs.append(entry.logprob)
            self.ranks.append(entry.rank)
            self.decoded_tokens.append(entry.decoded_token)
        self.end_indices.append(len(self.token_ids))

    def __len__(self) -> int:
        return len(self.start_indices)

    @overload
    def __getitem__(self, index: int) -> dict[int, Logprob] | None: ...
    @overload
    def __getitem__(self, index: slice) -> FlatLogprobs: ...
    def __getitem__(self, index: int | slice) -> dict[int, Logprob] | None | FlatLogprobs:
        if isinstance(index, slice):
            return FlatLogprobs.of(self[i] for i in range(*index.indices(len(self))))
        entries = range(self.start_indices[index], self.end_indices[index])
        return {
            self.token_ids[i]: Logprob(self.logprobs[i], self.ranks[i], self.decoded_tokens[i]) for i in entries
        } or None

    def __setitem__(self, index: Any, value: Any) -> None:
        raise InvalidTypeError("FlatLogprobs cannot be changed in place; make a list of it first.")

    def __delitem__(self, index: Any) -> None:
        raise InvalidTypeError("FlatLogprobs cannot be changed in place; make a list of it first.")

    def insert(self, index: int, value: Any) -> None:
        """Refused: positions can only be appended."""
        raise InvalidTypeError("FlatLogprobs cannot be changed in place; make a list of it first.")


SampleLogprobs = list[dict[int, Logprob]] | FlatLogprobs
"""For each output token: token id -> Logprob."""

PromptLogprobs = list[dict[int, Logprob] | None] | FlatLogprobs
"""For each prompt token: token id -> Logprob; None for the first, which nothing precedes."""
