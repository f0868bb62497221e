"""Pooling by the core of a language model: its pooled rows are logits, which it also gives as logprobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from octavo import LLM, _core
from raw_runs import all_logits

TOKENS = [int(i) for i in np.random.default_rng(3).integers(0, 40000, 45)]


@pytest.fixture(scope="module")
def llm(smollm2_llm: Callable[[str], LLM]) -> LLM:
    return smollm2_llm("auto")


def pooled(llm: LLM, pooling: str, **more: Any) -> npt.NDArray[np.float32]:
    core = llm._model.core
    sequence = core.add_pooling(TOKENS, pooling=pooling, priority=0, cache_salt="", request=0, **more)
    core.run([sequence], any_change=False, seconds=60, hook=None)
    [view] = core.updates([sequence])
    core.remove([sequence])
    assert (view.finish_reason, view.output, view.text) == ("stop", [], "")
    rows: npt.NDArray[np.float32] = view.pooled
    return rows


def test_pooled_rows_are_the_heads_rows(llm: LLM) -> None:
    logits = all_logits(llm, TOKENS)
    assert np.array_equal(pooled(llm, "all"), logits)
    assert np.array_equal(pooled(llm, "last"), logits[-1:])
    assert np.array_equal(pooled(llm, "cls"), logits[:1])
    assert pooled(llm, "mean").shape == (1, llm._model.vocab_size)


def test_wrong_pooling_arguments(llm: LLM) -> None:
    with pytest.raises(_core.CoreError, match="last, cls, mean or all, got sum"):
        pooled(llm, "sum")
    with pytest.raises(_core.CoreError, match="45 tokens but 2 token types"):
        pooled(llm, "cls", token_types=[0, 1])
