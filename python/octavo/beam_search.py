"""Beam search on top of the engine: every step asks for one token's log probabilities after each beam.

Beams share their prefixes through the prefix cache. What ends and what goes on follows Hugging Face's `generate` with
early_stopping "never": of all continuations of a step the 2 * beam_width best are looked at; one that ends counts only
among the first beam_width, and the beam_width best of those that do not end go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from octavo import checks
from octavo.beam_search_params import BeamSearchParams
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.logprobs import Logprob
from octavo.requests import Request
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.llm import LLM
    from octavo.progress import UseTqdm


@dataclass
class BeamSearchSequence:
    """One beam.

    Attributes:
        tokens: The prompt's token ids and those that follow; the end-of-sequence token only where it was asked for.
        logprobs: For each generated token the candidates of its step, token id -> Logprob.
        cum_logprob: Sum of the log probabilities of the generated tokens, a final end-of-sequence token included.
        text: Text of all tokens, the prompt's too; None without a tokenizer.
        finish_reason: "stop" or "length".
        stop_reason: The end-of-sequence token's id; None where the length ended it.
    """

    tokens: list[int]
    logprobs: list[dict[int, Logprob]]
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | None = None
    lora_request: Any = None


@dataclass
class BeamSearchOutput:
    """The result of one prompt: its `sequences`, best first."""

    sequences: list[BeamSearchSequence]


@dataclass
class _Search:
    """Where the search for one prompt stands."""

    n_prompt: int
    max_tokens: int
    running: list[BeamSearchSequence]
    finished: list[tuple[float, BeamSearchSequence]] = field(default_factory=list)  # scores, best first

    @property
    def n_generated(self) -> int:
        """Tokens of each running beam."""
        return len(self.running[0].tokens) - self.n_prompt if self.running else 0


class BeamSearch:
    """One call of `LLM.beam_search`."""

    def __init__(self, llm: LLM, params: BeamSearchParams, use_tqdm: UseTqdm, concurrency_limit: int | None) -> None:
        if not isinstance(params, BeamSearchParams):
            raise InvalidTypeError(f"beam_search needs BeamSearchParams, got {checks.shown(params)}.")
        params.validate()
        if concurrency_limit is not None:
            checks.whole_number("concurrency_limit", concurrency_limit, 1)
        self._llm = llm
        self._model = llm._model
        self._params = params
        self._use_tqdm = use_tqdm
        self._limit = concurrency_limit
        self._step_params = SamplingParams(
            temperature=params.temperature,
            max_tokens=1,
            ignore_eos=True,
            detokenize=False,
            logprobs=min(2 * params.beam_width, self._model.vocab_size),
            allowed_token_ids=params.allowed_token_ids,
            seed=0,  # the sampled token itself is not used
        ).normalized()
        self._step_params.validate_for_model(vocab_size=self._model.vocab_size, max_logprobs=-1)

    def run(self, prompts: Any) -> list[BeamSearchOutput]:
        """The beams of every prompt, in the order of the prompts."""
        requests = self._llm._requests(prompts, SamplingParams(max_tokens=1, detokenize=False), None, "raise")
        if any(request.embeds is not None for request in requests):
            raise InvalidInputError("beam_search needs text or token ids as prompts, not prompt_embeds.")
        searches = [self._start(request.token_ids) for request in requests]
        size = self._limit or max(len(searches), 1)
        bar = self._bar(len(range(0, len(searches), size)))
        try:
            for first in range(0, len(searches), size):
                self._run_together(searches[first : first + size], bar)
        finally:
            if bar is not None:
                bar.close()
        return [BeamSearchOutput([self._shown(beam) for _, beam in search.finished]) for search in searches]

    def _start(self, prompt: list[int]) -> _Search:
        room = self._model.max_model_len - len(prompt)
        most = self._model.defaults.capped(self._params.max_tokens) or room
        return _Search(len(prompt), min(most, room), [BeamSearchSequence(prompt, [])])

    def _bar(self, n_rounds: int) -> Any:
        from octavo.progress import progress_factory

        if not self._use_tqdm:
            return None
        factory = progress_factory(self._use_tqdm)
        return factory(total=n_rounds * self._params.max_tokens, desc="Beam search", unit="token", dynamic_ncols=True)

    def _run_together(self, searches: Sequence[_Search], bar: Any) -> None:
        for _ in range(self._params.max_tokens):
            live = [search for search in searches if search.running]
            if not live:
                return
            beams = [beam for search in live for beam in search.running]
            rows = dict(zip(map(id, beams), self._candidates(beams), strict=True))
            for search in live:
                self._advance(search, [rows[id(beam)] for beam in search.running])
            if bar is not None:
                bar.update(1)

    def _candidates(self, beams: Sequence[BeamSearchSequence]) -> list[dict[int, Logprob]]:
        """The most likely next tokens of each beam."""
        runner = self._llm._runner
        requests = [
            Request(str(runner.next_id()), None, beam.tokens, self._step_params, processed_logprobs=True)
            for beam in beams
        ]
        for request in runner.run(requests, every_change=False):
            if request.error is not None:
                raise request.error
        rows = [sample.logprobs[0] for request in requests for sample in request.views if sample is not None]
        return [_entries(ids.tolist(), values.tolist()) for _, _, _, ids, values, _ in rows]

    def _advance(self, search: _Search, rows: Sequence[dict[int, Logprob]]) -> None:
        width = self._params.beam_width
        pairs = zip(search.running, rows, strict=True)
        found = [
            (beam.cum_logprob + entry.logprob, beam, row, token) for beam, row in pairs for token, entry in row.items()
        ]
        found.sort(key=lambda candidate: -candidate[0])
        n_generated = search.n_generated + 1
        running: list[BeamSearchSequence] = []
        for place, (total, beam, row, token) in enumerate(found[: 2 * width]):
            longer = BeamSearchSequence([*beam.tokens, token], [*beam.logprobs, row], total)
            if not self._params.ignore_eos and token in self._model.eos_token_ids:
                if place < width:
                    self._finish(search, longer, n_generated, stop=token)
            elif len(running) < width:
                running.append(longer)
        search.running = running
        if n_generated >= search.max_tokens:
            for beam in running:
                self._finish(search, beam, n_generated, stop=None)
            search.running = []
        elif self._is_settled(search, n_generated):
            search.running = []

    def _finish(self, search: _Search, beam: BeamSearchSequence, n_generated: int, stop: int | None) -> None:
        beam.finish_reason = "length" if stop is None else "stop"
        beam.stop_reason = stop
        search.finished.append((self._score(beam.cum_logprob, n_generated), beam))
        search.finished.sort(key=lambda scored: -scored[0])
        del search.finished[self._params.beam_width :]

    def _is_settled(self, search: _Search, n_generated: int) -> bool:
        """Whether no running beam can end better than what has ended."""
        if len(search.finished) < self._params.beam_width or not search.running:
            return False
        longest = search.max_tokens if self._params.length_penalty > 0 else n_generated + 1
        return self._score(search.running[0].cum_logprob, longest) <= search.finished[-1][0]

    def _score(self, cum_logprob: float, n_generated: int) -> float:
        return float(cum_logprob / n_generated**self._params.length_penalty)

    def _shown(self, beam: BeamSearchSequence) -> BeamSearchSequence:
        """A finished beam as the caller gets it."""
        if beam.finish_reason == "stop" and not self._params.include_stop_str_in_output:
            beam.tokens = beam.tokens[:-1]
        if (tokenizer := self._model.tokenizer) is not None:
            known = [token for token in beam.tokens if token < tokenizer.vocab_size]
            beam.text = tokenizer.decode(known, skip_special_tokens=self._params.skip_special_tokens)
        return beam


def _entries(ids: list[int], values: list[float]) -> dict[int, Logprob]:
    """Token id -> Logprob, without tokens that cannot be generated."""
    pairs = enumerate(zip(ids, values, strict=True), start=1)
    return {token: Logprob(value, rank) for rank, (token, value) in pairs if value > float("-inf")}
