"""Small random models of every family against transformers in float32, and their bits alone and together."""

from __future__ import annotations

import numpy as np
import pytest

from family_folders import FamilySpec, make_model
from octavo import LLM, SamplingParams
from raw_runs import RAW_LOGITS, all_logits, record, run_views
from reference import from_folder

VOCAB = 320
N_PROMPT = 70  # beyond two blocks of the cache, and beyond every window below
SIZES = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}

OPT = {**SIZES, "ffn_dim": 96}


def without(prefix):
    """The layout of a base model's checkpoint."""
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


SPECS = {
    "opt": FamilySpec("OPTForCausalLM", {**OPT, "num_attention_heads": 2}, dtype="float16"),
    "opt_post_norm_projections": FamilySpec(
        "OPTForCausalLM", {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 48}
    ),
    "opt_removed_norm_untied": FamilySpec(
        "OPTForCausalLM", {**OPT, "_remove_final_layer_norm": True, "tie_word_embeddings": False}
    ),
    "opt_galactica": FamilySpec(
        "OPTForCausalLM",
        {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "gelu"},
        dtype="bfloat16",
    ),
    "opt_published": FamilySpec(
        "OPTForCausalLM",
        OPT,
        dtype="float16",
        suffix=".bin",
        layout=without("model."),
        omit=("tie_word_embeddings", "do_layer_norm_before", "word_embed_proj_dim", "layer_norm_elementwise_affine"),
    ),
}


@pytest.fixture(scope="module", params=SPECS)
def model(request, tmp_path_factory):
    """(folder, reference, prompt) of one model."""
    folder = make_model(tmp_path_factory.mktemp(request.param), SPECS[request.param])
    prompt = np.random.default_rng(0).integers(0, VOCAB, N_PROMPT).tolist()
    return folder, from_folder(folder), prompt


def load(folder, dtype, **options):
    arguments = {"skip_tokenizer_init": True, "kv_cache_memory_bytes": "16M", **RAW_LOGITS, **options}
    return LLM(folder, dtype=dtype, **arguments)


def test_exact_mode(model):
    folder, reference, prompt = model
    llm = load(folder, "float32")
    assert np.abs(all_logits(llm, prompt) - reference.logits(prompt)).max() <= 1e-3
    prompts = [prompt, prompt[:33], prompt[:1]]
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False)
    for ids, [view] in zip(prompts, run_views(llm, prompts, params), strict=True):
        assert len(view.output) == 64
        reference.check_greedy(ids, view.output)


def test_auto(model):
    """The root mean square error, as a share of the logits' spread: bf16 has 8 bits, and the cache is in bf16."""
    folder, reference, prompt = model
    expected = reference.logits(prompt)
    error = all_logits(load(folder, "auto"), prompt) - expected
    assert np.sqrt(np.mean(error**2)) <= 0.03 * expected.std()


def test_same_bits_together_as_alone(model):
    folder, _, prompt = model
    alone = load(folder, "auto", num_threads=1, enable_prefix_caching=False)
    together = load(folder, "auto", num_threads=3, max_num_batched_tokens=24)
    params = SamplingParams(temperature=0.8, seed=5, max_tokens=12, ignore_eos=True, logprobs=-1, detokenize=False)
    prompts = [prompt, prompt[:67], prompt[3:40], prompt[5:6]]
    expected = [record(run_views(alone, [ids], params)[0][0]) for ids in prompts]
    for _ in range(2):  # the second time from the prefix cache
        assert [record(view) for [view] in run_views(together, prompts, params)] == expected
