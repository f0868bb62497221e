"""Prompts given as rows of embeddings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_folders import LlamaSpec, make_llama
from octavo import LLM, SamplingParams
from raw_runs import RAW_LOGITS

PROMPTS = [[5, 9, 200, 31, 7, 7, 11], [3], list(range(40, 130))]
PARAMS = SamplingParams(temperature=0, max_tokens=12, logprobs=5, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("embeds"), LlamaSpec(dtype="bfloat16"))


@pytest.fixture(scope="module")
def table(folder: Path) -> Any:
    """(vocabulary, hidden_size), a bfloat16 tensor."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")["model.embed_tokens.weight"]


def load(folder: Path, **options: Any) -> LLM:
    return LLM(str(folder), skip_tokenizer_init=True, kv_cache_memory_bytes="8M", enable_prompt_embeds=True, **options)


@pytest.fixture(scope="module", params=["auto", "float32"])
def llm(request: pytest.FixtureRequest, folder: Path) -> LLM:
    return load(folder, dtype=request.param, **RAW_LOGITS)


def run(llm: LLM, prompts: list[Any], params: Any = PARAMS) -> list[Any]:
    """Tokens and the bits of logits of each prompt."""
    samples = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
    assert all(sample.logprobs is not None for sample in samples)
    return [(sample.token_ids, sample.logprobs) for sample in samples]


@pytest.mark.parametrize("kind", ["torch", "float32", "float64"])
def test_rows_of_the_table_are_the_tokens(llm: LLM, table: Any, kind: str) -> None:
    rows = [table[prompt] for prompt in PROMPTS]
    given = rows if kind == "torch" else [row.float().numpy().astype(kind) for row in rows]
    tokens: list[Any] = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
    want = run(llm, tokens)
    assert run(llm, [{"prompt_embeds": row} for row in given]) == want
    assert run(llm, [{"prompt_embeds": given[0]}, *tokens, {"prompt_embeds": given[2]}]) == [want[0], *want, want[2]]


def test_chunks_change_nothing(folder: Path, table: Any) -> None:
    embeds = [{"prompt_embeds": table[prompt].float().numpy()} for prompt in PROMPTS]
    whole, chunked = (load(folder, max_num_batched_tokens=n, max_num_seqs=8, **RAW_LOGITS) for n in (512, 16))
    assert run(chunked, embeds) == run(whole, embeds)


def test_other_rows_give_other_outputs_and_share_no_cache(llm: LLM, table: Any) -> None:
    rows = table[PROMPTS[2]].float().numpy()
    plain = run(llm, [{"prompt_embeds": rows}])
    assert run(llm, [{"prompt_embeds": rows[::-1]}]) != plain
    assert run(llm, [{"prompt_embeds": rows}]) == plain
    output = llm.generate({"prompt_embeds": rows, "prompt": "what it says"}, PARAMS, use_tqdm=False)[0]
    assert output.prompt == "what it says" and output.prompt_token_ids is None and output.num_cached_tokens == 0


def test_samples_penalties_and_truncation(llm: LLM, table: Any) -> None:
    rows = table[PROMPTS[0]].float().numpy()
    params = SamplingParams(n=3, seed=3, max_tokens=5, repetition_penalty=1.5)
    output = llm.generate({"prompt_embeds": rows}, params, use_tqdm=False)[0]
    assert len({tuple(sample.token_ids) for sample in output.outputs}) == 3
    for side, kept in (("left", rows[-3:]), ("right", rows[:3])):
        cut = {"truncate_prompt_tokens": 3, "truncation_side": side}
        [short] = llm.generate({"prompt_embeds": rows}, PARAMS, use_tqdm=False, tokenization_kwargs=cut)
        [want] = llm.generate({"prompt_embeds": kept}, PARAMS, use_tqdm=False)
        assert short.outputs == want.outputs


@pytest.mark.parametrize(
    "embeds, words",
    [
        (np.zeros((2, 3), np.float32), "3 numbers a row, but this model's hidden size is 128"),
        (np.zeros((2, 128), np.int32), "array of floats"),
        ([[0.0] * 128], "array of floats, got list"),
        (np.zeros((1, 2, 128), np.float32), r"shape \(1, 2, 128\)"),
        (np.zeros((0, 128), np.float32), r"shape \(0, 128\)"),
        (np.full((1, 128), np.nan, np.float32), "NaN"),
        (np.zeros((600, 128), np.float32), "maximum context length"),
    ],
)
def test_what_cannot_be_a_prompt(llm: LLM, embeds: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"prompt 1 .*{words}|of prompt 1.*{words}") as caught:
        llm.generate([[1, 2], {"prompt_embeds": embeds}], PARAMS, use_tqdm=False)
    assert "\n" not in str(caught.value)


def test_what_embeddings_do_not_go_with(folder: Path, llm: LLM) -> None:
    rows = np.zeros((2, 128), np.float32)
    with pytest.raises(ValueError, match="no prompt_logprobs"):
        llm.generate({"prompt_embeds": rows}, SamplingParams(prompt_logprobs=1), use_tqdm=False)
    with pytest.raises(ValueError, match="both prompt_token_ids and prompt_embeds"):
        llm.generate({"prompt_embeds": rows, "prompt_token_ids": [1]}, PARAMS, use_tqdm=False)
    plain = LLM(str(folder), skip_tokenizer_init=True, kv_cache_memory_bytes="8M")
    with pytest.raises(ValueError, match="create the LLM with enable_prompt_embeds=True"):
        plain.generate({"prompt_embeds": rows}, PARAMS, use_tqdm=False)


def test_numpy_rows_need_no_torch(folder: Path) -> None:
    program = f"""
import sys, numpy as np
from octavo import LLM, SamplingParams
llm = LLM({str(folder)!r}, skip_tokenizer_init=True, kv_cache_memory_bytes="8M", enable_prompt_embeds=True)
llm.generate({{"prompt_embeds": np.ones((4, 128), np.float16)}}, SamplingParams(max_tokens=2), use_tqdm=False)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
