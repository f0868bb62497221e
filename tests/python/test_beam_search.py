"""Beam search, held against transformers' own on the same weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from llama_folders import LlamaSpec, make_llama
from octavo import LLM, SamplingParams
from octavo.sampling_params import BeamSearchParams

PROMPTS = [[5, 9, 200, 31, 7, 7, 11], [3], list(range(40, 90))]
EOS = 153  # a token that beams of these weights come to


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("beams"), LlamaSpec({"eos_token_id": EOS}))


def prompts() -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": prompt} for prompt in PROMPTS]


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(str(folder), dtype="float32", skip_tokenizer_init=True, kv_cache_memory_bytes="32M")


@pytest.fixture(scope="module")
def judge(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def reference(judge: Any, prompt: list[int], params: BeamSearchParams) -> list[tuple[list[int], float]]:
    """The generated tokens and the score of each beam, best first."""
    import torch

    with torch.inference_mode():
        found = judge.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=params.beam_width,
            num_return_sequences=params.beam_width,
            max_new_tokens=params.max_tokens,
            length_penalty=params.length_penalty,
            early_stopping="never",
            do_sample=False,
            eos_token_id=None if params.ignore_eos else EOS,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
    beams = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        tokens = row[len(prompt) :]
        if not params.ignore_eos and EOS in tokens:
            tokens = tokens[: tokens.index(EOS) + 1]
        beams.append((tokens, score))
    return beams


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("ignore_eos", [True, False])
def test_beams_are_those_of_transformers(
    llm: LLM, judge: Any, width: int, length_penalty: float, ignore_eos: bool
) -> None:
    params = BeamSearchParams(
        width, 12, ignore_eos=ignore_eos, length_penalty=length_penalty, include_stop_str_in_output=True
    )
    outputs = llm.beam_search(prompts(), params)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        want = reference(judge, prompt, params)
        got = [beam.tokens[len(prompt) :] for beam in output.sequences]
        assert got == [tokens for tokens, _ in want]
        for beam, (tokens, score) in zip(output.sequences, want, strict=True):
            assert beam.tokens[: len(prompt)] == prompt
            assert beam.cum_logprob / len(tokens) ** length_penalty == pytest.approx(score, abs=2e-4)
            assert beam.finish_reason == ("stop" if tokens[-1] == EOS and not ignore_eos else "length")


def test_the_end_is_reached(llm: LLM) -> None:
    outputs = llm.beam_search(prompts(), BeamSearchParams(4, 12, include_stop_str_in_output=True))
    shown = [beam for output in outputs for beam in output.sequences]
    ended = [beam for beam in shown if beam.finish_reason == "stop"]
    assert 0 < len(ended) < len(shown)
    assert all(beam.tokens[-1] == beam.stop_reason == EOS for beam in ended)
    hidden = [beam for output in llm.beam_search(prompts(), BeamSearchParams(4, 12)) for beam in output.sequences]
    assert [beam.tokens for beam in hidden] == [
        beam.tokens[:-1] if beam.finish_reason == "stop" else beam.tokens for beam in shown
    ]


def test_one_beam_is_greedy(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True, logprobs=1)
    greedy = llm.generate(prompts(), params, use_tqdm=False)
    for output, want in zip(llm.beam_search(prompts(), BeamSearchParams(1, 10, ignore_eos=True)), greedy, strict=True):
        [beam] = output.sequences
        assert beam.tokens == [*(want.prompt_token_ids or []), *want.outputs[0].token_ids]
        assert beam.cum_logprob == pytest.approx(want.outputs[0].cumulative_logprob)
        assert len(beam.logprobs) == 10 and all(len(row) == 2 for row in beam.logprobs)


def test_a_limit_of_concurrency_changes_nothing(llm: LLM) -> None:
    params = BeamSearchParams(3, 9)
    assert llm.beam_search(prompts(), params, concurrency_limit=1) == llm.beam_search(prompts(), params)


def test_temperature_and_allowed_tokens(llm: LLM) -> None:
    allowed = [3, 40, 41, 200]
    [output] = llm.beam_search(PROMPTS[0], BeamSearchParams(4, 1, temperature=2.0, allowed_token_ids=allowed))
    [row] = (
        llm.generate(
            PROMPTS[0], SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=allowed), use_tqdm=False
        )[0]
        .outputs[0]
        .logprobs
        or []
    )
    raw = {token: row[token].logprob / 2 for token in allowed}
    total = math.log(sum(math.exp(value) for value in raw.values()))
    best = sorted(raw, key=lambda token: -raw[token])
    assert [beam.tokens[-1] for beam in output.sequences] == best
    for beam, token in zip(output.sequences, best, strict=True):
        assert beam.cum_logprob == pytest.approx(raw[token] - total, abs=1e-4)


def test_the_context_and_the_generation_config_bound_the_search(folder: Path) -> None:
    for options, most in (({"max_model_len": 12}, 5), ({"override_generation_config": {"max_new_tokens": 3}}, 3)):
        llm = LLM(str(folder), skip_tokenizer_init=True, kv_cache_memory_bytes="8M", **options)
        [output] = llm.beam_search(PROMPTS[0], BeamSearchParams(2, 50, ignore_eos=True))
        assert [len(beam.tokens) - len(PROMPTS[0]) for beam in output.sequences] == [most, most]


def test_text_and_progress(smollm2_llm: Any) -> None:
    llm = smollm2_llm("auto")
    bars: list[dict[str, Any]] = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            bars.append({**options, "n": 0})

        def update(self, n: int) -> None:
            bars[-1]["n"] += n

        def close(self) -> None:
            bars[-1]["closed"] = True

    [output] = llm.beam_search("The capital of France is", BeamSearchParams(2, 5), use_tqdm=Bar)
    tokenizer = llm.get_tokenizer()
    for beam in output.sequences:
        assert beam.text == tokenizer.decode(beam.tokens)
        assert beam.text.startswith("The capital of France is")
    assert bars[0]["desc"] == "Beam search" and bars[0]["unit"] == "token" and bars[0]["closed"]
    assert bars[0]["n"] == bars[0]["total"] == 5


def test_what_cannot_be_searched(llm: LLM) -> None:
    with pytest.raises(TypeError, match="needs BeamSearchParams"):
        llm.beam_search(PROMPTS[0], SamplingParams())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot follow structured_outputs"):
        BeamSearchParams(2, 5, structured_outputs={"regex": "a"})  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="concurrency_limit must be an integer of at least 1"):
        llm.beam_search(PROMPTS[0], BeamSearchParams(2, 5), concurrency_limit=0)
    with pytest.raises(ValueError, match="out of vocabulary"):
        llm.beam_search(PROMPTS[0], BeamSearchParams(2, 5, allowed_token_ids=[9999]))
    with pytest.raises(ValueError, match="prompt 1 has the token id 9999"):
        llm.beam_search([[1], [9999]], BeamSearchParams(2, 5))
    assert llm.beam_search([], BeamSearchParams(2, 5)) == []
