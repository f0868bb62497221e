"""Small random Llamas of many shapes against transformers in float32."""

from __future__ import annotations

import numpy as np
import pytest

from llama_folders import LINEAR_ROPE, LLAMA3_ROPE, LlamaSpec, make_llama
from octavo import LLM, SamplingParams
from raw_runs import RAW_LOGITS, all_logits, run_views
from reference import from_folder

SPECS = {
    "gqa": LlamaSpec(),
    "head_dim_40": LlamaSpec({"hidden_size": 160, "rope_parameters": LINEAR_ROPE}),
    "head_dim_80_one_kv_head": LlamaSpec(
        {"head_dim": 80, "num_key_value_heads": 1, "tie_word_embeddings": True}, dtype="bfloat16"
    ),
    "biases": LlamaSpec(
        {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3_ROPE}, save="shards", old_config=True
    ),
    "odd_sizes": LlamaSpec(
        {"hidden_size": 72, "intermediate_size": 100, "vocab_size": 131, "num_key_value_heads": 4}, dtype="float16"
    ),
    "tied_bin": LlamaSpec({"tie_word_embeddings": True}, dtype="float16", save="bin", old_config=True),
    "tied_shards": LlamaSpec(
        {"tie_word_embeddings": True, "hidden_size": 96, "num_attention_heads": 6, "head_dim": 32},
        dtype="bfloat16",
        save="shards",
    ),
}
N_PROMPT = 70  # beyond two blocks of the cache


@pytest.fixture(scope="module", params=SPECS)
def model(request, tmp_path_factory):
    """(folder, reference, prompt) of one model."""
    spec = SPECS[request.param]
    folder = make_llama(tmp_path_factory.mktemp(request.param), spec)
    vocab_size = spec.config.get("vocab_size", 320)
    prompt = np.random.default_rng(0).integers(0, vocab_size, N_PROMPT).tolist()
    return folder, from_folder(folder), prompt


def load(folder, dtype):
    return LLM(folder, dtype=dtype, skip_tokenizer_init=True, kv_cache_memory_bytes="16M", **RAW_LOGITS)


def test_exact_mode(model):
    folder, reference, prompt = model
    llm = load(folder, "float32")
    assert np.abs(all_logits(llm, prompt) - reference.logits(prompt)).max() <= 1e-3
    prompts = [prompt, prompt[:33], prompt[40:43], prompt[:1]]
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False)
    for ids, [view] in zip(prompts, run_views(llm, prompts, params), strict=True):
        assert len(view.output) == 64
        reference.check_greedy(ids, view.output)


@pytest.mark.parametrize(("dtype", "bound"), [("auto", 0.02), ("bfloat16", 0.02), ("float16", 0.02)])
def test_fast_modes(model, dtype, bound):
    """The root mean square error, as a share of the logits' spread: bf16 has 8 bits, and the cache is in bf16."""
    folder, reference, prompt = model
    expected = reference.logits(prompt)
    error = all_logits(load(folder, dtype), prompt) - expected
    assert np.sqrt(np.mean(error**2)) <= bound * expected.std()


def test_shards_are_really_several(tmp_path):
    folder = make_llama(tmp_path, SPECS["biases"])
    assert len(list(folder.glob("*.safetensors"))) > 1
