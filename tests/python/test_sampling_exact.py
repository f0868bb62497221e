"""Sampling against independent arithmetic: which tokens can be drawn, how often they are, what is reported of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_folders import LlamaSpec, make_llama
from numpy_sampler import chi_square, distribution, processed
from octavo import LLM, SamplingParams
from raw_runs import RAW_LOGITS, all_logits

VOCABULARY = 320
EOS = 2  # what the configuration of a Llama says
PROMPT = [5, 9, 200, 31, 7, 7, 11]
N_DRAWS = 6000
quick = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("sampling"), LlamaSpec())


def load(folder: Path, **options: Any) -> LLM:
    return LLM(str(folder), dtype="float32", skip_tokenizer_init=True, kv_cache_memory_bytes="64M", **options)


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    """One that reports raw logits."""
    return load(folder, **RAW_LOGITS)


def prompt(ids: list[int] = PROMPT) -> dict[str, list[int]]:
    return {"prompt_token_ids": ids}


def draws(llm: LLM, params: SamplingParams) -> np.ndarray:
    """How often each token was drawn, by N_DRAWS samples."""
    params.n, params.max_tokens = N_DRAWS, 1
    [output] = llm.generate(prompt(), params, use_tqdm=False)
    return np.bincount([sample.token_ids[0] for sample in output.outputs], minlength=VOCABULARY)


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.7},
        {"top_k": 12},
        {"top_p": 0.8},
        {"min_p": 0.05},
        {"logit_bias": {40: 3.0, 41: -2.5}},
        {"allowed_token_ids": [1, 5, 40, 99, 200, 201]},
        {"repetition_penalty": 1.4},
        {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.2, "logit_bias": {7: 2.0}},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(llm: LLM, filters: dict[str, Any]) -> None:
    params = SamplingParams(seed=17, **filters)
    row = processed(all_logits(llm, PROMPT)[len(PROMPT) - 1], params, PROMPT, [], [EOS])
    want = distribution(row, params)
    counts = draws(llm, params)
    assert not counts[want == 0].any(), "a token was drawn that the filters take out"
    statistic, limit = chi_square(counts, want * N_DRAWS)
    assert statistic < limit
    if (want > 0).sum() > 20:  # the same draws do not pass for another distribution
        assert chi_square(counts, np.where(want > 0, 1 / (want > 0).sum(), 0) * N_DRAWS)[0] > limit


def test_draws_without_a_seed_follow_the_distribution_too(llm: LLM) -> None:
    params = SamplingParams(temperature=1.2, top_k=30)
    want = distribution(all_logits(llm, PROMPT)[len(PROMPT) - 1].astype(np.float64), params)
    statistic, limit = chi_square(draws(llm, params), want * N_DRAWS)
    assert statistic < limit


@st.composite
def any_params(draw: st.DrawFn) -> dict[str, Any]:
    """Parameters that change logits, some of them at their defaults."""
    some = {
        "presence_penalty": st.floats(-2, 2, width=16),
        "frequency_penalty": st.floats(-2, 2, width=16),
        "repetition_penalty": st.floats(0.5, 2, width=16),
        "logit_bias": st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-5, 5, width=16), max_size=5),
        "allowed_token_ids": st.lists(st.integers(0, VOCABULARY - 1), min_size=20, max_size=60, unique=True),
        "min_tokens": st.integers(0, 12),
        "stop_token_ids": st.lists(st.integers(0, VOCABULARY - 1), max_size=3),
    }
    return draw(st.fixed_dictionaries({}, optional=some))


@quick
@given(any_params(), st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8), st.integers(0, 99))
def test_processed_logits_are_those_of_numpy(llm: LLM, values: dict[str, Any], ids: list[int], seed: int) -> None:
    """Greedy and drawn tokens follow from the reported raw logits by the written semantics."""
    for temperature in (0.0, 0.7):
        params = SamplingParams(temperature=temperature, seed=seed, max_tokens=12, logprobs=-1, **values)
        [sample] = llm.generate(prompt(ids), params, use_tqdm=False)[0].outputs
        ends = [EOS, *(params.stop_token_ids or [])]
        output = list(sample.token_ids)
        for position, (token, entries) in enumerate(zip(output, sample.logprobs or [], strict=True)):
            raw = [entries[i].logprob for i in range(VOCABULARY)]
            row = processed(raw, params, ids, output[:position], ends)
            assert row[token] > -np.inf
            if temperature == 0:
                assert row[token] >= row.max() - 1e-5
        assert sample.finish_reason == ("stop" if output[-1] in ends else "length")
        assert not set(output[: params.min_tokens - 1]) & set(ends)


@pytest.fixture(scope="module")
def processed_llm(folder: Path) -> LLM:
    return load(folder, max_logprobs=-1, logprobs_mode="processed_logprobs")


@quick
@given(
    st.floats(0.25, 2, width=16),
    st.sampled_from([0, 1, 3, 17, 100]),
    st.sampled_from([1.0, 0.97, 0.5, 0.1]),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.floats(0.75, 1.75, width=16),
)
def test_the_distribution_that_is_drawn_from(
    llm: LLM, processed_llm: LLM, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
        max_tokens=1,
        logprobs=-1,
        seed=1,
    )
    [sample] = processed_llm.generate(prompt(), params, use_tqdm=False)[0].outputs
    assert sample.logprobs is not None
    got = np.exp([sample.logprobs[0][i].logprob for i in range(VOCABULARY)])
    row = processed(all_logits(llm, PROMPT)[len(PROMPT) - 1], params, PROMPT, [], [EOS])
    want = distribution(row, params)
    edge = np.abs(want - want[want > 0].min()) < 1e-5  # float32 may see the last one on either side of top_p
    assert ((got > 0) == (want > 0))[~edge].all()
    if (got > 0).sum() == (want > 0).sum():
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_logprobs_are_the_log_softmax_of_transformers(folder: Path) -> None:
    import torch

    from reference import from_folder

    llm = load(folder, max_logprobs=-1)
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=20, ignore_eos=True, logprobs=-1, prompt_logprobs=-1)
    [output] = llm.generate(prompt(), params, use_tqdm=False)
    [sample] = output.outputs
    tokens = [*PROMPT, *sample.token_ids]
    want = torch.log_softmax(torch.from_numpy(from_folder(folder).logits(tokens)).double(), -1).numpy()
    rows = [*(output.prompt_logprobs or [])[1:], *(sample.logprobs or [])]
    assert len(rows) == len(tokens) - 1
    for position, (row, exact) in enumerate(zip(rows, want, strict=False)):
        assert row is not None
        got = np.array([row[i].logprob for i in range(VOCABULARY)])
        np.testing.assert_allclose(got, exact, atol=2e-4)
        ranks = np.array([row[i].rank for i in range(VOCABULARY)])
        assert (ranks == 1 + (got[None, :] > got[:, None]).sum(1)).all()
        assert next(iter(row)) == tokens[position + 1]
    chosen = [row[token].logprob for row, token in zip(sample.logprobs or [], sample.token_ids, strict=True)]
    assert sample.cumulative_logprob == pytest.approx(sum(chosen))
