"""Sampling parameters through the LLM class on a real model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import smollm2
from octavo import LLM, CompletionOutput, RequestOutput, SamplingParams
from octavo.sampling_params import RequestOutputKind

PROMPT = "The capital of France is"
STORY = "Once upon a time, there was a"


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(smollm2.NAME, kv_cache_memory_bytes=smollm2.KV_BYTES)


def complete(llm: LLM, prompt: Any = PROMPT, **params: Any) -> RequestOutput:
    params = {"temperature": 0, "max_tokens": 12, **params}
    return llm.generate(prompt, SamplingParams(**params), use_tqdm=False)[0]


def sample(llm: LLM, prompt: Any = PROMPT, **params: Any) -> CompletionOutput:
    return complete(llm, prompt, **params).outputs[0]


def ids(llm: LLM, text: str) -> list[int]:
    return llm.get_tokenizer().encode(text, add_special_tokens=False)


# ---- seeds and samples ----


def test_seeded_samples_differ_and_repeat(llm: LLM) -> None:
    first = complete(llm, STORY, n=3, temperature=1.0, seed=11)
    again = complete(llm, STORY, n=3, temperature=1.0, seed=11)
    assert [output.index for output in first.outputs] == [0, 1, 2]
    assert len({output.text for output in first.outputs}) == 3
    assert [output.text for output in first.outputs] == [output.text for output in again.outputs]
    other = complete(llm, STORY, n=3, temperature=1.0, seed=12)
    assert other.outputs[0].text != first.outputs[0].text
    assert sample(llm, STORY, temperature=1.0, seed=11).text == first.outputs[0].text


def test_samples_without_a_seed_differ(llm: LLM) -> None:
    texts = {sample(llm, STORY, temperature=1.0).text for _ in range(3)}
    assert len(texts) == 3


def test_the_engine_seed_makes_runs_repeat() -> None:
    params = SamplingParams(temperature=1.0, max_tokens=8)
    runs = []
    for seed in (3, 3, 4):
        llm = LLM(smollm2.NAME, seed=seed, kv_cache_memory_bytes="8M")
        runs.append([output.outputs[0].text for output in llm.generate([STORY] * 2, params, use_tqdm=False)])
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][0] != runs[0][1]


def test_params_for_each_prompt(llm: LLM) -> None:
    each = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (1, 4, 2)]
    outputs = llm.generate([PROMPT] * 3, each, use_tqdm=False)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 4, 2]
    with pytest.raises(ValueError, match=r"prompts \(3\) and params \(2\)"):
        llm.generate([PROMPT] * 3, each[:2], use_tqdm=False)


# ---- logprobs ----


@pytest.mark.parametrize("k", [0, 1, 5])
def test_logprobs(llm: LLM, k: int) -> None:
    output = sample(llm, logprobs=k, temperature=1.0, seed=3)
    assert output.logprobs is not None and len(output.logprobs) == len(output.token_ids)
    for entry, token in zip(output.logprobs, output.token_ids, strict=True):
        assert k <= len(entry) <= k + 1 and next(iter(entry)) == token
        assert all(item.logprob <= 0 and item.decoded_token is not None for item in entry.values())
        top = sorted(entry.values(), key=lambda item: item.rank or 0)[:k]
        assert [item.rank for item in top] == list(range(1, k + 1))
    chosen = [entry[token].logprob for entry, token in zip(output.logprobs, output.token_ids, strict=True)]
    assert output.cumulative_logprob == pytest.approx(math.fsum(chosen))


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_greedy_tokens_are_the_most_likely_of_all(dtype: str) -> None:
    """Logprobs need all logits; without them only those that may be the largest are computed exactly."""
    llm = LLM(smollm2.NAME, dtype=dtype, kv_cache_memory_bytes=smollm2.KV_BYTES)
    prompts = [STORY, PROMPT, "def main():", "1, 2, 3,"]
    params = SamplingParams(temperature=0, max_tokens=32)
    among_all = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=32, logprobs=1), use_tqdm=False)
    expected = [output.outputs[0].token_ids for output in among_all]
    together = llm.generate(prompts, params, use_tqdm=False)
    alone = [llm.generate(prompt, params, use_tqdm=False)[0] for prompt in prompts]
    assert [output.outputs[0].token_ids for output in together] == expected
    assert [output.outputs[0].token_ids for output in alone] == expected


def test_no_logprobs_unless_asked_for(llm: LLM) -> None:
    output = complete(llm)
    assert output.prompt_logprobs is None
    assert output.outputs[0].logprobs is None and output.outputs[0].cumulative_logprob is None


@pytest.mark.parametrize("k", [0, 1, 5])
def test_prompt_logprobs(llm: LLM, k: int) -> None:
    output = complete(llm, STORY, prompt_logprobs=k, max_tokens=1)
    assert output.prompt_token_ids is not None and output.prompt_logprobs is not None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
    assert output.prompt_logprobs[0] is None
    for entry, token in zip(output.prompt_logprobs[1:], output.prompt_token_ids[1:], strict=True):
        assert entry is not None and token in entry and k <= len(entry) <= k + 1


def test_all_logprobs() -> None:
    llm = LLM(smollm2.NAME, max_logprobs=-1, kv_cache_memory_bytes="8M")
    output = complete(llm, "Hello there", max_tokens=2, logprobs=-1, prompt_logprobs=-1)
    vocabulary = llm._model.vocab_size
    rows = [*(output.prompt_logprobs or [])[1:], *(output.outputs[0].logprobs or [])]
    assert len(rows) == len(output.prompt_token_ids or []) - 1 + 2
    for row in rows:
        assert row is not None and len(row) == vocabulary
        assert math.fsum(math.exp(item.logprob) for item in row.values()) == pytest.approx(1, abs=1e-3)


def test_more_logprobs_than_allowed(llm: LLM) -> None:
    for name in ("logprobs", "prompt_logprobs"):
        for k in (21, -1):
            with pytest.raises(ValueError, match=f"prompt 0: {name}=.*max_logprobs"):
                complete(llm, **{name: k})


# ---- stopping ----


@pytest.mark.parametrize("keep", [False, True])
def test_stop_strings(llm: LLM, keep: bool) -> None:
    whole = sample(llm, STORY, max_tokens=40).text
    stop = whole[10:15]
    cut = whole[: whole.index(stop) + (len(stop) if keep else 0)]
    output = sample(llm, STORY, max_tokens=40, stop=["never to be seen", stop], include_stop_str_in_output=keep)
    assert output.text == cut
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
def test_a_stream_never_shows_part_of_a_stop_string(llm: LLM, kind: RequestOutputKind) -> None:
    whole = sample(llm, STORY, max_tokens=40).text
    for start in range(0, 40, 7):
        stop = whole[start : start + 9]
        params = SamplingParams(temperature=0, max_tokens=40, stop=stop, output_kind=kind)
        parts = [output.outputs[0].text for output in llm.stream(STORY, params)]
        want = whole[: whole.index(stop)]
        if kind is RequestOutputKind.DELTA:
            parts = ["".join(parts[: i + 1]) for i in range(len(parts))]
        assert all(want.startswith(part) for part in parts)
        assert parts[-1] == want


def test_stop_token_ids(llm: LLM) -> None:
    whole = sample(llm, STORY).token_ids
    output = sample(llm, STORY, stop_token_ids=[whole[4]])
    end = list(whole).index(whole[4])
    assert output.token_ids == whole[: end + 1]
    assert (output.finish_reason, output.stop_reason) == ("stop", whole[4])
    assert output.text == llm.get_tokenizer().decode(whole[:end])
    kept = sample(llm, STORY, stop_token_ids=[whole[4]], include_stop_str_in_output=True)
    assert kept.text == llm.get_tokenizer().decode(whole[: end + 1])


def test_min_tokens(llm: LLM) -> None:
    whole = sample(llm, STORY, max_tokens=20, ignore_eos=True)
    stop = list(whole.token_ids[1:2])
    assert len(sample(llm, STORY, max_tokens=20, stop_token_ids=stop).token_ids) == 2
    later = sample(llm, STORY, max_tokens=20, stop_token_ids=stop, min_tokens=9)
    assert len(later.token_ids) >= 9 and stop[0] not in later.token_ids[:8]
    word = whole.text[2:5]
    late = sample(llm, STORY, max_tokens=20, stop=word, min_tokens=9)
    assert len(late.token_ids) > 9


def test_ignore_eos(llm: LLM) -> None:
    prompt = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    chat = {"prompt_token_ids": ids(llm, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")}
    ended = sample(llm, chat, max_tokens=100)
    assert ended.finish_reason == "stop" and ended.stop_reason is None
    assert ended.token_ids[-1] in llm._model.eos_token_ids
    assert "<|im_end|>" not in ended.text
    longer = sample(llm, chat, max_tokens=100, ignore_eos=True)
    assert longer.finish_reason == "length" and len(longer.token_ids) == 100
    assert longer.token_ids[: len(ended.token_ids)] == ended.token_ids
    shown = sample(llm, prompt, max_tokens=3, ignore_eos=True, skip_special_tokens=False)
    assert shown.text == llm.get_tokenizer().decode(shown.token_ids, skip_special_tokens=False)


def test_max_tokens_none_goes_on_to_the_end_of_the_context() -> None:
    llm = LLM(smollm2.NAME, max_model_len=40, kv_cache_memory_bytes="8M")
    output = complete(llm, STORY, max_tokens=None, ignore_eos=True)
    assert len(output.prompt_token_ids or ()) + len(output.outputs[0].token_ids) == 40
    assert output.outputs[0].finish_reason == "length"
    assert len(sample(llm, STORY, max_tokens=1000, ignore_eos=True).token_ids) == len(output.outputs[0].token_ids)


def test_detokenize_off(llm: LLM) -> None:
    output = sample(llm, detokenize=False, logprobs=2)
    assert output.text == "" and output.token_ids == sample(llm).token_ids
    assert output.logprobs is not None
    assert all(item.decoded_token is None for row in output.logprobs for item in row.values())


def test_truncated_prompts(llm: LLM) -> None:
    whole = ids(llm, STORY)
    assert complete(llm, STORY, truncate_prompt_tokens=3).prompt_token_ids == whole[-3:]
    assert complete(llm, STORY, truncate_prompt_tokens=100).prompt_token_ids == whole
    short = LLM(smollm2.NAME, max_model_len=16, kv_cache_memory_bytes="8M")
    output = complete(short, STORY * 9, truncate_prompt_tokens=-1)
    assert len(output.prompt_token_ids or ()) == 15 and len(output.outputs[0].token_ids) == 1


# ---- what may be said ----


def test_logit_bias(llm: LLM) -> None:
    [token] = ids(llm, " Berlin")[:1]
    assert sample(llm, logit_bias={token: 100}, max_tokens=1).token_ids == [token]
    best = sample(llm, max_tokens=1).token_ids[0]
    assert sample(llm, logit_bias={best: -100}, max_tokens=1).token_ids[0] != best


def test_allowed_token_ids(llm: LLM) -> None:
    allowed = ids(llm, " yes no maybe")
    assert set(sample(llm, allowed_token_ids=allowed, temperature=1.0).token_ids) <= set(allowed)


def test_bad_words(llm: LLM) -> None:
    assert "Paris" in sample(llm).text
    assert "Paris" not in sample(llm, bad_words=["Paris"], max_tokens=30).text


@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_change_the_output(llm: LLM, penalty: str) -> None:
    plain = sample(llm, "na na na na na", max_tokens=20).token_ids
    assert sample(llm, "na na na na na", max_tokens=20, **{penalty: 1.9}).token_ids != plain


def test_narrow_filters_are_greedy(llm: LLM) -> None:
    greedy = sample(llm).text
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-6}):
        assert sample(llm, **{"temperature": 1.0, "seed": 1, **narrow}).text == greedy


# ---- logits processors ----


def test_logits_processors_of_both_forms(llm: LLM) -> None:
    berlin = ids(llm, " Berlin")[0]
    seen: list[tuple[list[int], list[int]]] = []

    def with_prompt(prompt: list[int], output: list[int], logits: np.ndarray) -> np.ndarray:
        seen.append((list(prompt), list(output)))
        changed = np.full_like(logits, -np.inf)
        changed[berlin] = 0
        return changed

    def in_place(output: list[int], logits: np.ndarray) -> None:
        logits[:] = -np.inf
        logits[berlin] = 1

    for processor in (with_prompt, in_place):
        assert sample(llm, logits_processors=[processor], max_tokens=3).token_ids == [berlin] * 3
    assert seen == [(ids(llm, PROMPT), [berlin] * i) for i in range(3)]


def test_logprobs_are_those_before_the_processors(llm: LLM) -> None:
    berlin = ids(llm, " Berlin")[0]

    def force(output: list[int], logits: np.ndarray) -> None:
        logits[berlin] = 1000

    plain = sample(llm, max_tokens=1, logprobs=1)
    forced = sample(llm, max_tokens=1, logprobs=1, logits_processors=[force])
    assert plain.logprobs is not None and forced.logprobs is not None
    best = plain.token_ids[0]
    assert forced.logprobs[0][best].logprob == plain.logprobs[0][best].logprob
    assert forced.logprobs[0][berlin].rank != 1


def fails(output: list[int], logits: np.ndarray) -> None:
    raise KeyError("oops")


def wrong_shape(output: list[int], logits: np.ndarray) -> np.ndarray:
    return logits[:5]


@pytest.mark.parametrize(
    "processor, words", [(fails, "KeyError: 'oops'"), (wrong_shape, r"returned the shape \(5,\), expected \(49152,\)")]
)
def test_a_processor_that_fails_ends_its_own_request_only(llm: LLM, processor: Any, words: str) -> None:
    good = SamplingParams(temperature=0, max_tokens=12)
    bad = SamplingParams(temperature=0, max_tokens=12, logits_processors=[processor])
    outputs = llm.generate([PROMPT] * 3, [good, bad, good], use_tqdm=False, on_error="return")
    assert outputs[0].outputs[0].text == outputs[2].outputs[0].text == sample(llm).text
    assert outputs[0].error is None and isinstance(outputs[1].error, ValueError)
    with pytest.raises(ValueError, match=words) as caught:
        llm.generate([PROMPT] * 3, [good, bad, good], use_tqdm=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=words):
        list(llm.stream([PROMPT] * 2, [good, bad]))
    assert sample(llm).text == outputs[0].outputs[0].text
    assert llm._model.core.stats().n_running == 0
