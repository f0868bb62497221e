"""What happens in Python between logits and sampling: logits processors and the masks of structured outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import InvalidInputError
from octavo.fork_lock import ForkLock
from octavo.grammars import Grammars, Matcher, TokenMasks
from octavo.requests import Request

Logits = npt.NDArray[np.float32]  # (vocabulary)


class HostHook:
    """The core calls this with the rows of a step that ask for it; an error ends its own request only.

    A step that is interrupted and repeated calls it again with the same outputs.
    """

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._owners: dict[int, Request] = {}  # by sequence
        self._matchers: dict[int, Matcher] = {}
        self.lock = ForkLock()  # held while a sequence is added to the core and here

    def add(self, sequence: int, request: Request) -> None:
        """Takes note of a sequence; the caller holds the lock since before it was added to the core."""
        self._owners[sequence] = request
        if request.params.grammar is not None:
            self._matchers[sequence] = self._grammars.matcher(request.params.grammar)

    def forget(self, sequences: Sequence[int]) -> None:
        """Drops what is known of sequences."""
        for sequence in sequences:
            self._owners.pop(sequence, None)
            self._matchers.pop(sequence, None)

    def process_logits(self, sequence: int, logits: Logits, prompt: list[int], output: list[int]) -> None:
        """Lets a request's processors change its row."""
        request = self._owner(sequence)
        if request is None:
            return
        try:
            for processor in request.params.logits_processors or ():
                _apply(processor, logits, prompt, output)
        except Exception as error:  # the caller's code may raise anything
            request.error = InvalidInputError(
                f"A logits processor of request {request.id} failed ({type(error).__name__}: {error}); mend it."
            )
            logits.fill(np.nan)

    def fill_masks(self, sequences: list[int], outputs: list[npt.NDArray[np.int32]], masks: TokenMasks) -> None:
        """Fills one row of `masks` for each sequence; the row of one that failed stays 0, which ends it."""
        ready: list[tuple[Matcher, int]] = []
        for row, (sequence, output) in enumerate(zip(sequences, outputs, strict=True)):
            matcher = self._matchers.get(sequence) if self._owner(sequence) is not None else None
            if matcher is None:
                continue
            matcher.advance(output)
            if not self._failed(sequence, matcher):
                ready.append((matcher, row))
        self._grammars.fill(ready, masks)
        for matcher, row in ready:
            if self._failed(sequences[row], matcher):
                masks[row] = 0

    def _owner(self, sequence: int) -> Request | None:
        """The request of a sequence, unless it is over."""
        with self.lock:
            request = self._owners.get(sequence)
        return None if request is None or request.error is not None else request

    def _failed(self, sequence: int, matcher: Matcher) -> bool:
        reason = matcher.error
        request = self._owners.get(sequence)
        if reason is not None and request is not None:
            request.error = InvalidInputError(
                f"The structured output of request {request.id} cannot go on ({reason}); simplify what it must match."
            )
        return reason is not None


def _apply(processor: Callable[..., Any], logits: Logits, prompt: list[int], output: list[int]) -> None:
    """Calls f(output, logits) or f(prompt, output, logits); what it returns replaces the row."""
    takes_prompt = len(inspect.signature(processor).parameters) == 3
    result = processor(prompt, output, logits) if takes_prompt else processor(output, logits)
    if result is None or result is logits:
        return
    values = np.asarray(result, dtype=np.float32)
    if values.shape != logits.shape:
        raise InvalidInputError(f"it returned the shape {values.shape}, expected {logits.shape}")
    logits[:] = values
