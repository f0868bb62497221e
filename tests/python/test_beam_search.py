"""Beam search, held against transformers' own on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_folders import LlamaSpec, make_llama
from octavo import LLM
from octavo.sampling_params import BeamSearchParams

PROMPTS = [[5, 9, 200, 31, 7, 7, 11], [3], list(range(40, 90))]
EOS = 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("beams"), LlamaSpec({"eos_token_id": EOS, "vocab_size": 64 * 5}))


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(str(folder), dtype="float32", skip_tokenizer_init=True, kv_cache_memory_bytes="32M")


@pytest.fixture(scope="module")
def judge(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():  # the end comes often enough to matter
        assert model.config.eos_token_id == EOS
    return model


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


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("ignore_eos", [True, False])
def test_beams_are_those_of_transformers(
    llm: LLM, judge: Any, width: int, length_penalty: float, ignore_eos: bool
) -> None:
    params = BeamSearchParams(
        width, 12, ignore_eos=ignore_eos, length_penalty=length_penalty, include_stop_str_in_output=True
    )
    outputs = llm.beam_search([{"prompt_token_ids": prompt} for prompt in PROMPTS], params)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        want = reference(judge, prompt, params)
        if width == 1:
            want = want[:1]
        got = [beam.tokens[len(prompt) :] for beam in output.sequences]
        assert got == [tokens for tokens, _ in want]
        for beam, (tokens, score) in zip(output.sequences, want, strict=True):
            assert beam.tokens[: len(prompt)] == prompt
            assert beam.cum_logprob / len(tokens) ** length_penalty == pytest.approx(score, abs=2e-4)
            assert beam.finish_reason == ("stop" if tokens[-1] == EOS and not ignore_eos else "length")
