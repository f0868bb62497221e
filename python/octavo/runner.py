"""Drives requests through the core: admission, steps, results as they come, and the logits processors' hook."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import InvalidInputError
from octavo.loading import LoadedModel
from octavo.requests import Request, RequestBuilder
from octavo.tokenizer.token_table import token_table

_PROGRESS_SECONDS = 0.1  # how often a waiting call looks for finished requests
_FOREVER = 1e9


class Runner:
    """Runs requests of any number of threads on one engine."""

    def __init__(self, model: LoadedModel, builder: RequestBuilder) -> None:
        self._model = model
        self._builder = builder
        self._owners: dict[int, Request] = {}  # by sequence, of requests with logits processors
        self._lock = threading.Lock()
        self._n_requests = 0
        self._has_table = False

    def next_id(self) -> int:
        """The number of a new request."""
        with self._lock:
            self._n_requests += 1
            return self._n_requests - 1

    def run(self, requests: Sequence[Request], *, every_change: bool) -> Iterator[Request]:
        """Yields requests as they finish or, with every_change, whenever they have news.

        Leaving the iterator early, or an exception, ends the requests that still run.
        """
        seconds = _FOREVER if every_change else _PROGRESS_SECONDS
        try:
            self._add(requests)
            owner = {seq: request for request in requests for seq in request.sequences}
            waiting = dict.fromkeys(owner)
            while waiting:
                ids = list(waiting)
                self._model.core.run(ids, any_change=every_change, seconds=seconds, hook=self._process_logits)
                yield from self._changed(ids, owner, waiting, every_change)
        finally:
            self._forget([seq for request in requests for seq in request.sequences])

    def _changed(
        self, ids: list[int], owner: dict[int, Request], waiting: dict[int, None], every_change: bool
    ) -> Iterator[Request]:
        changed: dict[str, Request] = {}
        for view in self._model.core.updates(ids):
            request = owner[view.id]
            request.views[request.sequences.index(view.id)] = view
            changed[request.id] = request
            if view.finish_reason:
                del waiting[view.id]
            if view.finish_reason == "error" and request.error is None:
                request.error = InvalidInputError(f"Request {request.id} cannot be finished: {view.error}")
        for request in changed.values():
            if every_change or request.finished:
                yield request

    def _add(self, requests: Sequence[Request]) -> None:
        if any(request.params.detokenize for request in requests):
            self._give_token_table()
        for request in requests:
            config = self._builder.sampling_config(request.params, len(request.token_ids))
            number = int(request.id)
            for child in range(request.params.n):
                if child > 0:
                    config.prompt_logprobs = None
                sequence = self._model.core.add(
                    request.token_ids,
                    config,
                    priority=request.priority,
                    cache_salt=request.cache_salt or "",
                    request=number,
                    child=child,
                )
                request.sequences.append(sequence)
                if request.params.logits_processors:
                    self._owners[sequence] = request
            request.views = [None] * request.params.n

    def _give_token_table(self) -> None:
        tokenizer = self._model.tokenizer
        with self._lock:
            if self._has_table or tokenizer is None:
                return
            table = token_table(tokenizer)
            self._model.core.set_token_table(
                table.tokens,
                table.flags,
                strip_leading_space=table.strip_leading_space,
                whole_byte_runs=table.whole_byte_runs,
            )
            self._has_table = True

    def _forget(self, sequences: list[int]) -> None:
        self._model.core.remove(sequences)
        for sequence in sequences:
            self._owners.pop(sequence, None)

    def _process_logits(
        self, sequence: int, logits: npt.NDArray[np.float32], prompt: list[int], output: list[int]
    ) -> None:
        """Lets a request's processors change its row; a processor that fails ends its own request only."""
        request = self._owners.get(sequence)
        if request is None or request.error is not None:
            return
        try:
            for processor in request.params.logits_processors or ():
                _apply(processor, logits, prompt, output)
        except Exception as error:  # the caller's code may raise anything
            request.error = InvalidInputError(
                f"A logits processor of request {request.id} failed ({type(error).__name__}: {error}); mend it."
            )
            logits.fill(np.nan)


def _apply(
    processor: Callable[..., Any], logits: npt.NDArray[np.float32], prompt: list[int], output: list[int]
) -> None:
    """Calls f(output, logits) or f(prompt, output, logits); what it returns replaces the row."""
    takes_prompt = len(inspect.signature(processor).parameters) == 3
    result = processor(prompt, output, logits) if takes_prompt else processor(output, logits)
    if result is None or result is logits:
        return
    values = np.asarray(result, dtype=np.float32)
    if values.shape != logits.shape:
        raise InvalidInputError(f"it returned the shape {values.shape}, expected {logits.shape}")
    logits[:] = values
