"""What the core knows of a request, as the output objects that callers get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.logprobs import FlatLogprobs, Logprob
from octavo.outputs import CompletionOutput, RequestOutput, RequestStateStats
from octavo.requests import Request
from octavo.sample import Sample
from octavo.sampling_params import RequestOutputKind
from octavo.tokenizer.tokenizer import Tokenizer


class OutputBuilder:
    """Builds RequestOutputs from what has come of a request's samples."""

    def __init__(self, tokenizer: Tokenizer | None, *, with_metrics: bool) -> None:
        self._tokenizer = tokenizer
        self._with_metrics = with_metrics
        self._given: dict[str, int] = {}  # tokens of a streamed request in its last output

    def is_due(self, request: Request) -> bool:
        """Whether a streamed request has an output to give now: at its first token, its end, and by its interval."""
        if request.finished:
            return True
        if request.params.output_kind is RequestOutputKind.FINAL_ONLY:
            return False
        n_tokens = sum(len(view.output) for view in request.views if view is not None)
        n_given = self._given.get(request.id, 0)
        if n_given and n_tokens - n_given < (request.params.stream_interval or 1):
            return False
        self._given[request.id] = n_tokens
        return True

    def build(self, request: Request) -> RequestOutput:
        """All that is known of a request now, or what is new since last time where it asks for deltas."""
        with_top = request.params.prompt_logprobs is not None
        with_named = request.params.prompt_logprob_token_ids is not None
        first = request.views[0] if request.views else None
        prompt_rows = first.prompt_logprobs if first is not None and first.finish_reason else None
        return RequestOutput(
            request_id=request.id,
            prompt=request.prompt,
            prompt_token_ids=request.token_ids if request.embeds is None else None,
            prompt_logprobs=self._of_prompt(prompt_rows, self._logprobs, request) if with_top else None,
            prompt_token_id_logprobs=self._of_prompt(prompt_rows, self._named, request) if with_named else None,
            outputs=[self._completion(request, i, view) for i, view in enumerate(request.views) if view is not None],
            finished=request.finished,
            metrics=_metrics(request, first) if self._with_metrics and first is not None else None,
            num_cached_tokens=first.n_cached if first is not None else None,
            error=request.error,
        )

    def _completion(self, request: Request, index: int, sample: Sample) -> CompletionOutput:
        params = request.params
        delta = params.output_kind is RequestOutputKind.DELTA
        first = sample.n_given if delta else 0
        sample.n_given = len(sample.output)
        with_logprobs = params.logprobs is not None or params.logprob_token_ids is not None
        if with_logprobs:
            self._extend_entries(sample, request)
        return CompletionOutput(
            index=index,
            text=sample.take_text() if delta else sample.text,
            token_ids=sample.output[first:],
            cumulative_logprob=sample.cumulative_logprob if with_logprobs else None,
            logprobs=_shaped(sample.entries[first:], request) if with_logprobs else None,
            finish_reason=sample.finish_reason,
            stop_reason=_stop_reason(request, sample),
        )

    def _extend_entries(self, sample: Sample, request: Request) -> None:
        """Turns rows into dicts once, however often the sample is shown."""
        for i in range(len(sample.entries), len(sample.output)):
            entry = self._with_named(sample.logprobs[i], request)
            sample.entries.append(entry)
            sample.cumulative_logprob += entry[sample.output[i]].logprob

    def _of_prompt(self, rows: Any, entries: Callable[[Any, Request], Any], request: Request) -> Any:
        return None if rows is None else _shaped([entries(row, request) if row else None for row in rows], request)

    def _named(self, row: Any, request: Request) -> dict[int, Logprob]:
        named = row[5]
        decoded = self._token_texts([token for token, _, _ in named] if request.params.detokenize else [])
        return {token: Logprob(value, rank, decoded.get(token)) for token, value, rank in named}

    def _with_named(self, row: Any, request: Request) -> dict[int, Logprob]:
        return {**self._logprobs(row, request), **(self._named(row, request) if row[5] else {})}

    def _logprobs(self, row: Any, request: Request) -> dict[int, Logprob]:
        """Token id -> Logprob: the chosen token and the most likely ones, whose ranks follow their order."""
        chosen, value, rank, ids, values, _ = row
        decoded = self._token_texts([chosen, *ids.tolist()] if request.params.detokenize else [])
        entries = {chosen: Logprob(value, rank, decoded.get(chosen))}
        top = values.tolist()
        place = 0
        for i, (token, logprob) in enumerate(zip(ids.tolist(), top, strict=True)):
            place = i + 1 if i == 0 or logprob != top[i - 1] else place
            entries.setdefault(token, Logprob(logprob, place, decoded.get(token)))
        return entries

    def _token_texts(self, ids: list[int]) -> dict[int, str]:
        if self._tokenizer is None:
            return {}
        known = self._tokenizer.vocab_size
        return {i: self._tokenizer.decode([i], skip_special_tokens=False) for i in ids if i < known}


def _shaped(rows: Any, request: Request) -> Any:
    """Log probabilities in the shape that the request asks for."""
    return FlatLogprobs.of(rows) if rows is not None and request.params.flat_logprobs else rows


def _stop_reason(request: Request, view: Sample) -> int | str | None:
    if view.stop_string >= 0:
        stop: str = list(request.params.stop or ())[view.stop_string]
        return stop
    if view.finish_reason == "repetition":
        return "repetition_detected"
    return view.stop_token if view.stop_token >= 0 else None


def _metrics(request: Request, first: Sample) -> RequestStateStats:
    queued, scheduled, first_token, last_token = first.times
    return RequestStateStats(
        num_generation_tokens=sum(len(view.output) for view in request.views if view is not None),
        arrival_time=request.arrival_time,
        queued_ts=queued,
        scheduled_ts=scheduled,
        first_token_ts=first_token,
        last_token_ts=last_token,
        first_token_latency=max(0.0, first_token - queued),
    )
