"""Drives requests through the core: admission, steps, and results as they come."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from octavo.errors import InvalidInputError
from octavo.host_hook import HostHook
from octavo.loading import LoadedModel
from octavo.requests import Request, RequestBuilder
from octavo.sample import Sample
from octavo.tokenizer.token_table import token_table

_PROGRESS_SECONDS = 0.1  # how often a waiting call looks for finished requests
_FOREVER = 1e9


class Runner:
    """Runs requests of any number of threads on one engine."""

    def __init__(self, model: LoadedModel, builder: RequestBuilder) -> None:
        self._model = model
        self._builder = builder
        self._hook = HostHook(builder.grammars)
        self._ids = itertools.count()  # no lock: a child forked while another thread holds one would wait for ever
        self._has_table = False

    def next_id(self) -> int:
        """The number of a new request."""
        return next(self._ids)

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
                self._model.core.run(ids, any_change=every_change, seconds=seconds, hook=self._hook)
                yield from self._changed(ids, owner, waiting, every_change)
        finally:
            self._forget([seq for request in requests for seq in request.sequences])

    def _changed(
        self, ids: list[int], owner: dict[int, Request], waiting: dict[int, None], every_change: bool
    ) -> Iterator[Request]:
        changed: dict[str, Request] = {}
        for view in self._model.core.updates(ids):
            request = owner[view.id]
            index = request.sequences.index(view.id)
            sample = request.views[index] = request.views[index] or Sample()
            sample.take(view)
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
            config = self._builder.sampling_config(request)
            number = int(request.id)
            for child in range(request.params.n):
                if child > 0:
                    config.prompt_logprobs = None
                with self._hook.lock:  # another thread may run the sequence before the hook knows it
                    sequence = self._model.core.add(
                        request.token_ids,
                        config,
                        priority=request.priority,
                        cache_salt=request.cache_salt or "",
                        request=number,
                        child=child,
                        embeds=request.embeds,
                    )
                    request.sequences.append(sequence)
                    if config.host_hook or config.host_mask:
                        self._hook.add(sequence, request)
            request.views = [None] * request.params.n

    def _give_token_table(self) -> None:
        tokenizer = self._model.tokenizer
        if self._has_table or tokenizer is None:
            return
        table = token_table(tokenizer)
        self._model.core.set_token_table(  # which takes the first table only
            table.tokens,
            table.flags,
            strip_leading_space=table.strip_leading_space,
            whole_byte_runs=table.whole_byte_runs,
        )
        self._has_table = True

    def _forget(self, sequences: list[int]) -> None:
        self._model.core.remove(sequences)
        self._hook.forget(sequences)
