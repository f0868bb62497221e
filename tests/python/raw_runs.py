"""Runs requests and keeps what the core says of them: arrays, where output objects would hold a dict per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo import LLM, SamplingParams

TokenIds = Sequence[int]


def run_views(
    llm: LLM,
    prompts: Sequence[TokenIds],
    params: SamplingParams | Sequence[SamplingParams],
    priority: Sequence[int] | None = None,
) -> list[list[Any]]:
    """The core's final view of every sample of every prompt; then the engine's books must balance."""
    requests = llm._requests([{"prompt_token_ids": list(ids)} for ids in prompts], params, priority, "raise")
    for request in llm._runner.run(requests, every_change=False):
        assert request.error is None, request.error
    llm._model.core.check_integrity()
    return [request.views for request in requests]


def all_logits(llm: LLM, token_ids: TokenIds) -> npt.NDArray[np.float32]:
    """(n_tokens, vocabulary): the logits after each token, of an LLM made with ``RAW_LOGITS``."""
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=-1, logprobs=-1, detokenize=False)
    [[view]] = run_views(llm, [token_ids], params)
    rows = [*view.prompt_logprobs[1:], *view.logprobs]
    logits = np.full((len(rows), llm._model.vocab_size), np.nan, np.float32)
    for row, (_, _, _, ids, values, _) in zip(logits, rows, strict=True):
        row[ids] = values
    assert not np.isnan(logits).any()
    return logits


RAW_LOGITS = {"max_logprobs": -1, "logprobs_mode": "raw_logits"}

Record = tuple[Any, ...]


def record(view: Any) -> Record:
    """All that a sample came to, floats as their bits: equal records are equal to the last bit."""
    return (
        tuple(view.output),
        view.finish_reason,
        tuple(map(_bits, view.logprobs)),
        tuple(map(_bits, view.prompt_logprobs)),
    )


def _bits(row: Any) -> Record | None:
    if row is None:
        return None
    chosen, value, rank, ids, values, _ = row
    return chosen, np.float32(value).tobytes(), rank, ids.tobytes(), values.tobytes()
