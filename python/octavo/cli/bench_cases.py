"""The measurements of `octavo bench`: requests of random tokens that come together, timed."""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.llm import LLM
from octavo.outputs import RequestOutput, RequestStateStats
from octavo.sampling_params import SamplingParams

Prompts = list[list[int]]


@dataclass(frozen=True)
class Case:
    """Requests that come together.

    Attributes:
        n_requests: How many there are.
        n_input: Tokens of each prompt.
        n_output: Tokens that each request generates; None where the model pools.
    """

    n_requests: int
    n_input: int
    n_output: int | None

    @property
    def lengths(self) -> str:
        """How long each request is."""
        return f"{self.n_input} in" + ("" if self.n_output is None else f" + {self.n_output} out")

    def __str__(self) -> str:
        return f"{self.n_requests} x {self.lengths}"


@dataclass(frozen=True)
class Run:
    """One timed call.

    Attributes:
        seconds: From the call to its return.
        prefill_seconds: From the first request's arrival until every request has its first token; None for pooling.
        first_token_seconds: From arrival to first token, by request; empty for pooling.
        token_seconds: Mean time between a request's tokens, by request; empty for pooling and outputs of one token.
    """

    seconds: float
    n_input_tokens: int
    n_output_tokens: int
    prefill_seconds: float | None = None
    first_token_seconds: list[float] = field(default_factory=list)
    token_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """A case and its runs.

    Attributes:
        n_preemptions: Times a request gave up its cache for another one and was computed again.
        peak_bytes: The most memory that the process has held so far, mapped weights included.
    """

    case: Case
    runs: list[Run]
    n_preemptions: int
    peak_bytes: int

    def speed(self, count: Callable[[Run], float], seconds: Callable[[Run], float | None] | None = None) -> float:
        """Median over the runs of what `count` counts, per second."""
        return statistics.median(count(run) / ((seconds(run) if seconds else None) or run.seconds) for run in self.runs)

    def median(self, values: Callable[[Run], Sequence[float]]) -> float | None:
        """Median over all requests of all runs; None where there are no values."""
        pooled = [value for run in self.runs for value in values(run)]
        return statistics.median(pooled) if pooled else None


def measure(llm: LLM, case: Case, n_warmup: int, n_repeats: int, advance: Callable[[], Any]) -> Result:
    """Runs the case n_warmup times without and n_repeats times with a clock; calls advance() after each run."""
    run = _generate if case.n_output is not None else _pool
    prompts = _random_prompts(case, llm._model.vocab_size)
    core = llm._model.core
    n_preemptions = core.stats().n_preemptions
    runs = []
    for number in range(n_warmup + n_repeats):
        timed = run(llm, case, prompts)
        if number >= n_warmup:
            runs.append(timed)
        advance()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Result(case, runs, core.stats().n_preemptions - n_preemptions, peak)


def _random_prompts(case: Case, vocab_size: int) -> Prompts:
    """The same ones for the same case."""
    rng = random.Random(f"{case}")
    return [rng.choices(range(vocab_size), k=case.n_input) for _ in range(case.n_requests)]


def _generate(llm: LLM, case: Case, prompts: Prompts) -> Run:
    params = SamplingParams(temperature=0, max_tokens=case.n_output, ignore_eos=True, detokenize=False)
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    stats = [_stats(output) for output in outputs]
    return Run(
        seconds,
        sum(len(output.prompt_token_ids or ()) for output in outputs),
        sum(len(output.outputs[0].token_ids) for output in outputs),
        max(s.first_token_ts for s in stats) - min(s.queued_ts for s in stats),
        [s.first_token_latency for s in stats],
        [
            (s.last_token_ts - s.first_token_ts) / (s.num_generation_tokens - 1)
            for s in stats
            if s.num_generation_tokens > 1
        ],
    )


def _stats(output: RequestOutput) -> RequestStateStats:
    assert output.metrics is not None  # the LLM is made with disable_log_stats=False
    return output.metrics


def _pool(llm: LLM, case: Case, prompts: Prompts) -> Run:
    assert llm._pooler is not None
    start = time.perf_counter()
    outputs = llm.encode(prompts, pooling_task=llm._pooler.plan.task, use_tqdm=False)
    return Run(time.perf_counter() - start, sum(len(output.prompt_token_ids) for output in outputs), 0)
