"""The LLM class on a real model: prompts of every kind, results in order, chat, streams."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from tqdm import tqdm

import smollm2
from octavo import LLM, CompletionOutput, EngineArgs, RequestOutput, SamplingParams
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.results import OutputBuilder
from octavo.sampling_params import RequestOutputKind

PROMPTS = ["Hello, my name is", "The president of the United States is", "The capital of France is", "1 2 3 4 5 6"]
GREEDY = SamplingParams(temperature=0, max_tokens=6)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(smollm2.NAME, kv_cache_memory_bytes=smollm2.KV_BYTES)


@pytest.fixture(scope="module")
def alone(llm: LLM) -> list[str]:
    """What each prompt gives by itself."""
    return [texts(run(llm, prompt))[0] for prompt in PROMPTS]


def run(llm: LLM, prompts: Any, params: Any = GREEDY, **options: Any) -> list[RequestOutput]:
    return llm.generate(prompts, params, use_tqdm=False, **options)


def texts(outputs: list[RequestOutput]) -> list[str]:
    return [output.outputs[0].text for output in outputs]


def ids_of(llm: LLM, text: str) -> list[int]:
    return llm.get_tokenizer().encode(text)


# ---- prompts and results ----


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        tuple,
        iter,
        lambda prompts: (prompt for prompt in prompts),
        pandas.Series,
        lambda prompts: pandas.DataFrame({"text": prompts})["text"],
        np.array,
        lambda prompts: dict.fromkeys(prompts).keys(),
        lambda prompts: [{"prompt": prompt} for prompt in prompts],
    ],
    ids=["list", "tuple", "iterator", "generator", "series", "column", "numpy", "keys", "dicts"],
)
def test_many_prompts(llm: LLM, alone: list[str], wrap: Any) -> None:
    outputs = run(llm, wrap(PROMPTS))
    assert [output.prompt for output in outputs] == PROMPTS
    assert texts(outputs) == alone


def test_one_prompt_is_a_list_of_one(llm: LLM, alone: list[str]) -> None:
    [output] = run(llm, PROMPTS[2])
    assert output.prompt == PROMPTS[2] and output.outputs[0].text == alone[2]
    assert "Paris" in alone[2]


def test_token_ids(llm: LLM, alone: list[str]) -> None:
    ids = [ids_of(llm, prompt) for prompt in PROMPTS]
    assert texts(run(llm, ids)) == alone
    assert texts(run(llm, [np.array(row) for row in ids])) == alone
    assert texts(run(llm, ids[0])) == alone[:1]  # a list of integers is one prompt
    [output] = run(llm, {"prompt_token_ids": ids[0]})
    assert output.prompt is None and output.prompt_token_ids == ids[0]
    [output] = run(llm, {"prompt": "shown", "prompt_token_ids": ids[0]})
    assert output.prompt == "shown" and output.outputs[0].text == alone[0]


def test_prompts_of_many_kinds_together(llm: LLM, alone: list[str]) -> None:
    mixed = [PROMPTS[0], ids_of(llm, PROMPTS[1]), {"prompt": PROMPTS[2]}, {"prompt": PROMPTS[3], "cache_salt": "x"}]
    assert texts(run(llm, mixed)) == alone


def test_no_prompts(llm: LLM) -> None:
    assert run(llm, []) == []


def test_order_does_not_follow_length(llm: LLM) -> None:
    lengths = [30, 1, 12, 3]
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in lengths]
    outputs = run(llm, PROMPTS, params)
    assert [len(output.outputs[0].token_ids) for output in outputs] == lengths
    numbers = [int(output.request_id) for output in outputs]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_params_that_were_given_are_not_changed(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=2, stop="x")
    before = repr(params)
    run(llm, PROMPTS, params)
    assert repr(params) == before


def test_default_params(llm: LLM) -> None:
    assert llm.get_default_sampling_params() == SamplingParams()
    [output] = run(llm, PROMPTS[0], None)
    assert len(output.outputs[0].token_ids) <= 16
    params = llm.get_default_sampling_params()
    params.max_tokens = 2  # it belongs to the caller
    assert llm.get_default_sampling_params().max_tokens == 16


def test_reprs(llm: LLM) -> None:
    [output] = run(llm, PROMPTS[2], SamplingParams(temperature=0, max_tokens=2))
    ids = output.outputs[0].token_ids
    assert repr(output.outputs[0]) == (
        f"CompletionOutput(index=0, text={' Paris.'!r}, token_ids={ids}, routed_experts=None, sampling_mask=None, "
        "cumulative_logprob=None, logprobs=None, finish_reason=length, stop_reason=None)"
    )
    assert repr(output).startswith(
        f"RequestOutput(request_id={output.request_id}, prompt='The capital of France is', "
        f"prompt_token_ids={output.prompt_token_ids}, encoder_prompt=None, encoder_prompt_token_ids=None, "
        "prompt_logprobs=None, prompt_token_id_logprobs=None, outputs=[CompletionOutput(index=0, "
    )
    assert repr(llm) == f"LLM(model={smollm2.NAME!r})"
    assert isinstance(output, RequestOutput) and isinstance(output.outputs[0], CompletionOutput)


def test_text_is_what_the_tokenizer_decodes(llm: LLM) -> None:
    prompts = ["巴黎是法国的首都。北京是", "Smileys: 😀 😃 😄 😁 😆", "Zürich, Genève,", PROMPTS[0]]
    tokenizer = llm.get_tokenizer()
    for output in run(llm, prompts, SamplingParams(temperature=0, max_tokens=40)):
        assert output.outputs[0].text == tokenizer.decode(output.outputs[0].token_ids, skip_special_tokens=True)


def test_metrics_are_there_when_asked_for() -> None:
    llm = LLM(smollm2.NAME, kv_cache_memory_bytes="16M", disable_log_stats=False)
    [output] = run(llm, PROMPTS[0])
    assert output.metrics is not None and output.metrics.num_generation_tokens == 6
    assert 0 < output.metrics.first_token_latency < 30


def test_prefix_cache_is_used(llm: LLM) -> None:
    text = "The history of the world is long. " * 20
    llm.reset_prefix_cache()
    [first] = run(llm, text)
    [second] = run(llm, text)
    assert first.num_cached_tokens == 0 and second.num_cached_tokens >= 64
    assert first.outputs[0].token_ids == second.outputs[0].token_ids
    [salted] = run(llm, {"prompt": text, "cache_salt": "mine"})
    assert salted.num_cached_tokens == 0


def test_from_engine_args() -> None:
    args = EngineArgs(model=smollm2.NAME, max_model_len=64, kv_cache_memory_bytes="8M")
    assert texts(run(LLM.from_engine_args(args), PROMPTS[2]))[0].startswith(" Paris")


def test_without_a_tokenizer(llm: LLM) -> None:
    bare = LLM(smollm2.NAME, skip_tokenizer_init=True, kv_cache_memory_bytes="8M")
    [output] = run(bare, ids_of(llm, PROMPTS[2]))
    assert (
        output.outputs[0].text == ""
        and list(output.outputs[0].token_ids) == run(llm, PROMPTS[2])[0].outputs[0].token_ids
    )
    with pytest.raises(InvalidInputError, match="tokenizer"):
        run(bare, PROMPTS[2])


# ---- priority ----


def test_priority(llm: LLM) -> None:
    one_at_a_time = LLM(
        smollm2.NAME, max_num_seqs=1, scheduling_policy="priority", kv_cache_memory_bytes="8M", disable_log_stats=False
    )
    outputs = run(one_at_a_time, PROMPTS, priority=[3, 1, 2, 0])
    started = [output.metrics.first_token_ts for output in outputs]  # type: ignore[union-attr]
    assert sorted(range(4), key=lambda i: started[i]) == [3, 1, 2, 0]
    assert texts(outputs) == texts(run(llm, PROMPTS))
    with pytest.raises(ValueError, match=r"prompts \(4\) and priority \(2\)"):
        run(llm, PROMPTS, priority=[0, 1])
    with pytest.raises(TypeError, match="priority of prompt 0"):
        run(llm, PROMPTS, priority="high")


# ---- chat ----


def test_chat(llm: LLM) -> None:
    [output] = llm.chat(QUESTION, GREEDY, use_tqdm=False)
    assert output.prompt is not None and output.prompt.endswith("France?<|im_end|>\n<|im_start|>assistant\n")
    assert output.prompt_token_ids == llm.get_tokenizer().encode(output.prompt, add_special_tokens=False)
    many = llm.chat([QUESTION, [{"role": "user", "content": "Hi"}], QUESTION], GREEDY, use_tqdm=False)
    assert len(many) == 3 and many[0].outputs[0].text == many[2].outputs[0].text == output.outputs[0].text
    assert "Hi<|im_end|>" in str(many[1].prompt)


def test_chat_template_as_text_and_as_file(llm: LLM, tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    path = tmp_path / "template.jinja"
    path.write_text(template)
    want = "[user] What is the capital of France?\n"
    for given in (template, str(path)):
        assert llm.chat(QUESTION, GREEDY, use_tqdm=False, chat_template=given)[0].prompt == want
    other = LLM(smollm2.NAME, chat_template=str(path), kv_cache_memory_bytes="8M")
    assert other.chat(QUESTION, GREEDY, use_tqdm=False)[0].prompt == want


def test_chat_continues_the_last_message(llm: LLM) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": "The capital of France is"}]
    [output] = llm.chat(messages, GREEDY, use_tqdm=False, add_generation_prompt=False, continue_final_message=True)
    assert str(output.prompt).endswith("The capital of France is")
    assert "Paris" in output.outputs[0].text


def test_a_role_that_the_template_refuses(llm: LLM) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    refused = [{"role": "system", "content": "Be brief."}, *QUESTION]
    with pytest.raises(InvalidInputError, match="conversation 1: .*System role not supported") as caught:
        llm.chat([QUESTION, refused], GREEDY, use_tqdm=False, chat_template=template)
    assert "\n" not in str(caught.value)
    good, bad = llm.chat([QUESTION, refused], GREEDY, use_tqdm=False, chat_template=template, on_error="return")
    assert good.error is None and good.outputs[0].finish_reason == "stop"
    assert isinstance(bad.error, InvalidInputError) and bad.outputs == []


@pytest.mark.parametrize("messages", ["hello", 3, {"role": "user", "content": "x"}, ["hello"], [None], [[1]], [[]]])
def test_messages_that_are_none(llm: LLM, messages: Any) -> None:
    with pytest.raises((InvalidTypeError, InvalidInputError)):
        llm.chat(messages, GREEDY, use_tqdm=False)


# ---- streams ----


@pytest.mark.parametrize("kind", list(RequestOutputKind))
def test_stream(llm: LLM, alone: list[str], kind: RequestOutputKind) -> None:
    params = SamplingParams(temperature=0, max_tokens=6, output_kind=kind)
    seen: dict[str, list[RequestOutput]] = {}
    for output in llm.stream(PROMPTS, params):
        seen.setdefault(str(output.prompt), []).append(output)
    assert sorted(seen) == sorted(PROMPTS)
    for prompt, want in zip(PROMPTS, alone, strict=True):
        outputs = seen[prompt]
        parts = [output.outputs[0].text for output in outputs]
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
        assert ("".join(parts) if kind is RequestOutputKind.DELTA else parts[-1]) == want
        assert len(outputs) == 1 if kind is RequestOutputKind.FINAL_ONLY else len(outputs) > 2


@pytest.mark.parametrize("kind", [RequestOutputKind.CUMULATIVE, RequestOutputKind.DELTA])
def test_streamed_tokens_and_logprobs(llm: LLM, kind: RequestOutputKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream gives what generate gives, each output of it stays as it was, and no token is worked on twice."""
    params = SamplingParams(n=2, seed=5, max_tokens=12, logprobs=2, stop="zzz", output_kind=kind)
    want = run(llm, PROMPTS[0], params)[0].outputs
    worked_on: list[Any] = []
    make = OutputBuilder._logprobs
    monkeypatch.setattr(OutputBuilder, "_logprobs", lambda *args: (worked_on.append(args[1]), make(*args))[1])
    outputs = list(llm.stream(PROMPTS[0], params))
    assert len(worked_on) == sum(len(sample.token_ids) for sample in want)
    for index in range(2):
        parts = [output.outputs[index] for output in outputs if len(output.outputs) > index]
        assert parts[-1].cumulative_logprob == want[index].cumulative_logprob
        if kind is RequestOutputKind.DELTA:
            assert [token for part in parts for token in part.token_ids] == want[index].token_ids
            assert [row for part in parts for row in part.logprobs or ()] == want[index].logprobs
            assert "".join(part.text for part in parts) == want[index].text
        else:
            assert parts[-1] == want[index]
            n_tokens = [len(part.token_ids) for part in parts]
            assert n_tokens[0] == 1 and sorted(set(n_tokens)) == list(range(1, n_tokens[-1] + 1))
            assert all(part.token_ids == want[index].token_ids[: len(part.token_ids)] for part in parts)


def test_stream_chat(llm: LLM) -> None:
    parts = [output.outputs[0].text for output in llm.stream_chat(QUESTION, GREEDY)]
    assert all(later.startswith(earlier) for earlier, later in zip(parts, parts[1:], strict=False))
    assert parts[-1] == llm.chat(QUESTION, GREEDY, use_tqdm=False)[0].outputs[0].text


def test_a_stream_that_is_closed_early_ends_its_requests(llm: LLM) -> None:
    stream = llm.stream(PROMPTS, SamplingParams(max_tokens=500, ignore_eos=True, temperature=0))
    assert isinstance(stream, Iterator)
    next(stream)
    assert llm._model.core.stats().n_running == 4
    stream.close()  # type: ignore[attr-defined]
    run(llm, PROMPTS[0])
    stats = llm._model.core.stats()
    assert stats.n_running == stats.n_waiting == 0 and stats.n_free_blocks == stats.n_blocks
    llm._model.core.check_integrity()


def test_a_call_in_the_middle_of_a_stream(llm: LLM, alone: list[str]) -> None:
    stream = llm.stream(PROMPTS[0], SamplingParams(temperature=0, max_tokens=12))
    next(stream)
    assert texts(run(llm, PROMPTS[2])) == [alone[2]]
    last = list(stream)[-1]
    assert last.outputs[0].text.startswith(alone[0]) and len(last.outputs[0].token_ids) == 12


# ---- progress ----


def test_progress_bar(llm: LLM) -> None:
    shown = io.StringIO()
    llm.generate(PROMPTS, GREEDY, use_tqdm=partial(tqdm, file=shown, mininterval=0))
    assert re.search(r"Processed prompts: 100%.* 4/4 ", shown.getvalue())
    assert re.search(r"est\. speed input: \d+\.\d\d toks/s, output: [1-9]\d*\.\d\d toks/s", shown.getvalue())


def test_no_progress_bar(llm: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    run(llm, PROMPTS)
    assert capfd.readouterr() == ("", "")
    llm.generate(PROMPTS[0], GREEDY)
    out, err = capfd.readouterr()
    assert out == "" and "Processed prompts" in err


# ---- several at once ----


def test_two_threads_on_one_llm(llm: LLM) -> None:
    params = SamplingParams(temperature=0.8, seed=5, max_tokens=24)
    halves = [PROMPTS[:2] * 4, PROMPTS[2:] * 4]
    want = [texts(run(llm, half, params)) for half in halves]
    got: list[Any] = [None, None]

    def work(i: int) -> None:
        got[i] = texts(run(llm, halves[i], params))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == want


def test_many_threads_with_short_calls(llm: LLM, alone: list[str]) -> None:
    done: list[str] = []

    def work() -> None:
        for n in range(8):
            params = SamplingParams(temperature=0, max_tokens=1 + n % 3)
            done.extend(texts(run(llm, PROMPTS[2:3], params)))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 48 and all(alone[2].startswith(text) for text in done)


def test_logits_processors_while_another_thread_computes(llm: LLM) -> None:
    def only_777(output: list[int], logits: Any) -> None:
        logits[:] = -np.inf
        logits[777] = 0

    long = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    other = threading.Thread(target=lambda: run(llm, PROMPTS, long))
    other.start()
    [output] = run(llm, PROMPTS[0], SamplingParams(temperature=0, max_tokens=20, logits_processors=[only_777]))
    other.join(60)
    assert output.outputs[0].token_ids == [777] * 20


def test_two_llms(llm: LLM, alone: list[str]) -> None:
    other = LLM(smollm2.NAME, dtype="float32", kv_cache_memory_bytes="8M")
    exact = texts(run(other, PROMPTS))
    assert texts(run(llm, PROMPTS)) == alone
    assert texts(run(other, PROMPTS)) == exact
