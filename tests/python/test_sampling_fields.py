"""The less common sampling parameters, and how prompts are tokenised and cut."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smollm2
from llama_folders import LlamaSpec, make_llama
from octavo import LLM, RequestOutput, SamplingParams
from octavo.outputs import FlatLogprobs, Logprob
from octavo.sampling_params import BeamSearchParams, RepetitionDetectionParams, RequestOutputKind

IDS = [5, 9, 200, 31, 7, 7, 11]
STORY = "Once upon a time, there was a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("fields"), LlamaSpec())


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(str(folder), dtype="float32", skip_tokenizer_init=True, kv_cache_memory_bytes="32M", max_logprobs=-1)


@pytest.fixture(scope="module")
def writer() -> LLM:
    return LLM(smollm2.NAME, kv_cache_memory_bytes=smollm2.KV_BYTES)


def complete(llm: LLM, prompt: Any = None, **params: Any) -> RequestOutput:
    params = {"temperature": 0, "max_tokens": 6, "ignore_eos": True, **params}
    return llm.generate(IDS if prompt is None else prompt, SamplingParams(**params), use_tqdm=False)[0]


# ---- log probabilities ----


def test_logprobs_of_named_tokens(llm: LLM) -> None:
    whole = complete(llm, logprobs=-1).outputs[0]
    named = complete(llm, logprob_token_ids=[4, 300, 4]).outputs[0]
    both = complete(llm, logprob_token_ids=[4, 300], logprobs=3).outputs[0]
    assert named.token_ids == whole.token_ids == both.token_ids
    rows = zip(whole.logprobs or [], named.logprobs or [], both.logprobs or [], whole.token_ids, strict=True)
    for every, few, more, token in rows:
        assert set(few) == {token, 4, 300} and next(iter(few)) == token
        assert set(more) == {*set(few), *sorted(every, key=lambda i: every[i].rank or 0)[:3]}
        assert all(every[i] == entry for entries in (few, more) for i, entry in entries.items())
    assert named.cumulative_logprob == pytest.approx(whole.cumulative_logprob)


def test_prompt_logprobs_of_named_tokens(llm: LLM) -> None:
    whole = complete(llm, prompt_logprobs=-1, max_tokens=1)
    named = complete(llm, prompt_logprob_token_ids=[4, 300], max_tokens=1)
    assert named.prompt_logprobs is None and whole.prompt_token_id_logprobs is None
    assert named.prompt_token_id_logprobs[0] is None
    for every, few in zip((whole.prompt_logprobs or [])[1:], named.prompt_token_id_logprobs[1:], strict=True):
        assert every is not None and few == {4: every[4], 300: every[300]}
    both = complete(llm, prompt_logprob_token_ids=[4], prompt_logprobs=1, max_tokens=1)
    assert both.prompt_logprobs is not None and all(len(row or {}) <= 2 for row in both.prompt_logprobs)
    assert [set(row) for row in both.prompt_token_id_logprobs[1:]] == [{4}] * (len(IDS) - 1)


def test_prompt_logprobs_from_a_position_on(llm: LLM) -> None:
    whole = complete(llm, prompt_logprobs=2, max_tokens=1).prompt_logprobs or []
    for start in (0, 1, 4, len(IDS), 50):
        late = complete(llm, prompt_logprobs=2, prompt_logprob_start=start, max_tokens=1).prompt_logprobs or []
        assert late[:start] == [None] * min(start, len(IDS)) and late[start:] == whole[start:]


def test_flat_logprobs(llm: LLM) -> None:
    params = {"logprobs": 3, "prompt_logprobs": 2}
    plain, flat = complete(llm, **params), complete(llm, flat_logprobs=True, **params)
    pairs = ((plain.prompt_logprobs, flat.prompt_logprobs), (plain.outputs[0].logprobs, flat.outputs[0].logprobs))
    for rows, compact in pairs:
        assert isinstance(compact, FlatLogprobs) and rows is not None
        assert list(compact) == list(rows) and len(compact) == len(rows)
        assert compact[-1] == rows[-1] and list(compact[1:3]) == list(rows[1:3])
        assert len(compact.token_ids) == len(compact.logprobs) == sum(len(row or {}) for row in rows)
        with pytest.raises(TypeError, match="cannot be changed in place"):
            compact[0] = None
        with pytest.raises(IndexError):
            compact[len(rows)]


def test_flat_logprobs_can_be_put_together() -> None:
    rows = [{3: Logprob(-0.5, 1, "a"), 4: Logprob(-1.5, 2, None)}, None, {9: Logprob(-0.25, 1, "b")}]
    flat = FlatLogprobs.of(rows[:2])
    flat.extend(rows[2:])
    assert list(flat) == rows and flat == FlatLogprobs.of(rows)
    assert (flat.start_indices, flat.end_indices) == ([0, 2, 2], [2, 2, 3])


# ---- the prefix cache ----


def test_the_prefix_cache_is_not_read_where_a_request_says_so(llm: LLM) -> None:
    prompt = [i % 300 for i in range(100)]
    first = complete(llm, prompt)
    cached = complete(llm, prompt)
    computed = complete(llm, prompt, skip_reading_prefix_cache=True)
    assert (cached.num_cached_tokens, computed.num_cached_tokens) == (96, 0)
    assert first.outputs == cached.outputs == computed.outputs


# ---- repetition ----


def repeats(tokens: list[int], detection: RepetitionDetectionParams) -> bool:
    for size in range(max(detection.min_pattern_size, 1), detection.max_pattern_size + 1):
        tail = tokens[-size * detection.min_count :]
        if len(tail) == size * detection.min_count and tail == tail[:size] * detection.min_count:
            return True
    return False


@pytest.mark.parametrize("sizes", [(1, 0, 3), (3, 2, 2), (4, 0, 4), (0, 0, 0), (5, 5, 2)])
def test_outputs_that_repeat_themselves_end(llm: LLM, sizes: tuple[int, int, int]) -> None:
    detection = RepetitionDetectionParams(*sizes)
    pattern = [40, 41, 42]

    def loop(output: list[int], logits: Any) -> None:  # 9, then 40 41 42 40 41 42 ..., and at last 7 7 7 7
        logits[7 if len(output) > 20 else pattern[(len(output) - 1) % 3] if output else 9] = 1e4

    plain = complete(llm, max_tokens=30, logits_processors=[loop]).outputs[0]
    whole = list(plain.token_ids)
    ends = [n for n in range(1, 31) if sizes[0] and repeats(whole[:n], detection)]
    output = complete(llm, max_tokens=30, logits_processors=[loop], repetition_detection=detection).outputs[0]
    assert output.token_ids == whole[: ends[0] if ends else 30]
    want = ("repetition", "repetition_detected") if ends else ("length", None)
    assert (output.finish_reason, output.stop_reason) == want


def test_repetition_detection_as_a_dict() -> None:
    params = SamplingParams(repetition_detection={"max_pattern_size": 3, "min_count": 2})
    assert params.repetition_detection == RepetitionDetectionParams(3, 0, 2)


# ---- streams ----


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
@pytest.mark.parametrize("interval", [None, 1, 3, 50])
def test_stream_interval(writer: LLM, kind: RequestOutputKind, interval: int | None) -> None:
    params = SamplingParams(
        temperature=0, max_tokens=11, ignore_eos=True, logprobs=0, output_kind=kind, stream_interval=interval
    )
    parts = [output.outputs[0] for output in writer.stream(STORY, params)]
    lengths = [len(part.token_ids) for part in parts]
    if kind is RequestOutputKind.DELTA:
        lengths = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    step = interval or 1
    assert lengths == [*range(1, 11, step), 11]
    whole = complete(writer, STORY, max_tokens=11).outputs[0].text
    assert ("".join(part.text for part in parts) if kind is RequestOutputKind.DELTA else parts[-1].text) == whole


def test_final_only_streams_once(writer: LLM) -> None:
    params = SamplingParams(max_tokens=5, output_kind=RequestOutputKind.FINAL_ONLY)
    [output] = writer.stream(STORY, params)
    assert output.finished


# ---- tokenisation ----


def test_truncation_options(writer: LLM) -> None:
    whole = writer.get_tokenizer().encode(STORY)

    def cut(**options: Any) -> list[int] | None:
        params = SamplingParams(max_tokens=1)
        return writer.generate(STORY, params, use_tqdm=False, tokenization_kwargs=options)[0].prompt_token_ids

    assert cut() == cut(truncate_prompt_tokens=None) == cut(max_length=3, truncation=False) == whole
    assert cut(truncate_prompt_tokens=3) == cut(max_length=3) == cut(max_length=3, truncation=True) == whole[-3:]
    assert cut(truncate_prompt_tokens=3, truncation_side="right") == whole[:3]
    assert cut(truncate_prompt_tokens=-1) == cut(truncation=True) == whole
    own = SamplingParams(max_tokens=1, truncate_prompt_tokens=2)
    [output] = writer.generate(STORY, own, use_tqdm=False, tokenization_kwargs={"truncate_prompt_tokens": 4})
    assert output.prompt_token_ids == whole[-2:]


def test_special_tokens_are_added_or_not(folder: Path, tmp_path: Path) -> None:
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<s>": 0, "a": 1, "b": 2, "Ġ": 3}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    backend.add_special_tokens(["<s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    llm = LLM(str(folder), tokenizer=str(tmp_path), kv_cache_memory_bytes="8M")
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    params = SamplingParams(max_tokens=1)

    def ids(options: dict[str, Any] | None) -> tuple[Any, Any]:
        chat = [{"role": "user", "content": "a b"}]
        [plain] = llm.generate("a b", params, use_tqdm=False, tokenization_kwargs=options)
        [told] = llm.chat(chat, params, False, chat_template=template, tokenization_kwargs=options)
        return plain.prompt_token_ids, told.prompt_token_ids

    assert ids(None) == ([0, 1, 3, 2], [1, 3, 2])
    assert ids({"add_special_tokens": True}) == ([0, 1, 3, 2], [0, 1, 3, 2])
    assert ids({"add_special_tokens": False}) == ([1, 3, 2], [1, 3, 2])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"truncate_prompt_tokens": 10**6}, "cannot be greater than"),
        ({"truncate_prompt_tokens": 0}, "at least 1"),
        ({"truncation_side": "middle"}, "'left' or 'right'"),
        ({"max_len": 3}, "no key 'max_len'"),
        ({"padding": True}, "does not pad"),
        ({"add_special_tokens": 1}, "True or False"),
        (3, "must be a dict"),
    ],
)
def test_wrong_tokenisation_options(writer: LLM, options: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        writer.generate(STORY, tokenization_kwargs=options, use_tqdm=False)


# ---- limits from elsewhere ----


def outputs_of_every_method(llm: LLM, params: SamplingParams | None) -> Iterator[RequestOutput]:
    chat = [{"role": "user", "content": "Tell me a long story."}]
    yield from llm.generate(STORY, params, use_tqdm=False)
    yield from llm.chat(chat, params, use_tqdm=False)
    yield list(llm.stream(STORY, params))[-1]
    yield list(llm.stream_chat(chat, params))[-1]


def test_the_generation_config_caps_every_method() -> None:
    llm = LLM(
        smollm2.NAME, override_generation_config={"max_new_tokens": 4}, kv_cache_memory_bytes="8M", max_model_len=128
    )
    for max_tokens, most in ((64, 4), (None, 4), (3, 3)):
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        outputs = [output.outputs[0] for output in outputs_of_every_method(llm, params)]
        assert [(len(output.token_ids), output.finish_reason) for output in outputs] == [(most, "length")] * 4
    [beams] = llm.beam_search(STORY, BeamSearchParams(2, 64, ignore_eos=True))
    n_prompt = len(llm.get_tokenizer().encode(STORY))
    assert [(len(beam.tokens) - n_prompt, beam.finish_reason) for beam in beams.sequences] == [(4, "length")] * 2
    assert llm.get_default_sampling_params().max_tokens == 4
    assert all(len(output.outputs[0].token_ids) <= 4 for output in outputs_of_every_method(llm, None))


# ---- what is refused ----


@pytest.mark.parametrize(
    "values, words",
    [
        ({"thinking_token_budget": 5}, "thinking_token_budget|max_tokens instead"),
        ({"best_of": 2}, "best_of"),
        ({"watermarking": {}}, "does not watermark"),
        ({"trace_decode_token_ids": [1]}, "for servers"),
        ({"logprob_token_ids": []}, "1 to 128"),
        ({"logprob_token_ids": list(range(129))}, "1 to 128 token ids, got 129"),
        ({"prompt_logprob_start": -1}, "at least 0"),
        ({"stream_interval": 0}, "at least 1"),
        ({"flat_logprobs": 1}, "True or False"),
        ({"extra_args": [1]}, "must be a dict"),
        ({"repetition_detection": {"max_pattern_size": 2, "min_pattern_size": 3, "min_count": 2}}, "from 0 to 2"),
        ({"repetition_detection": {"max_pattern_size": 2, "min_count": 1}}, "at least 2"),
        ({"repetition_detection": 3}, "RepetitionDetectionParams or a dict"),
    ],
)
def test_wrong_values(values: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        SamplingParams(**values)
    assert "\n" not in str(caught.value)


def test_named_tokens_are_in_the_vocabulary(llm: LLM) -> None:
    for name in ("logprob_token_ids", "prompt_logprob_token_ids"):
        with pytest.raises(ValueError, match=f"{name} holds .*320.*, out of vocabulary"):
            complete(llm, **{name: [3, 320]})


def test_adapters_are_refused(writer: LLM) -> None:
    with pytest.raises(ValueError, match="does not run LoRA adapters; merge the adapter"):
        writer.generate(STORY, lora_request=object())
    with pytest.raises(ValueError, match="does not run LoRA adapters"):
        writer.chat([{"role": "user", "content": "Hi"}], lora_request=object())


def test_extra_args_are_kept(llm: LLM) -> None:
    params = SamplingParams(extra_args={"mine": [1]}, max_tokens=1)
    assert params.clone().extra_args == {"mine": [1]}
    assert math.isfinite(len(llm.generate([1, 2], params, use_tqdm=False)[0].outputs[0].token_ids))
