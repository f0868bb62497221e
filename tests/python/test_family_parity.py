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
GPT2 = {"vocab_size": VOCAB, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 1}
MLP = {**SIZES, "intermediate_size": 96}
GQA = {**MLP, "num_key_value_heads": 2}
GEMMA = {**GQA, "head_dim": 24}
GEMMA3 = {
    **GEMMA,
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 20,
    "sliding_window": 24,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 14}


def without(prefix):
    """The layout of a base model's checkpoint."""
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def gpt2_published(tensors):
    """No prefix, and the masks beside the weights."""
    import torch

    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 8, 8).tril() for i in range(GPT2["n_layer"])}
    return without("transformer.")(tensors) | masks


def neox_published(tensors):
    """The head's first name, masks and frequencies beside the weights."""
    import torch

    named = {name.replace("lm_head", "embed_out"): tensor for name, tensor in tensors.items()}
    for i in range(MLP["num_hidden_layers"]):
        attention = f"gpt_neox.layers.{i}.attention"
        named[f"{attention}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
        named[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        named[f"{attention}.rotary_emb.inv_freq"] = torch.ones(2)
    return named


def gemma3_published(tensors):
    """The names that multimodal checkpoints have."""
    renames = (("model.language_model.", "language_model.model."), ("model.", ""))

    def rename(name):
        old, new = next((pair for pair in renames if name.startswith(pair[0])), ("", ""))
        return new + name.removeprefix(old)

    return {rename(name): tensor for name, tensor in tensors.items()}


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
    "gpt2": FamilySpec("GPT2LMHeadModel", GPT2, dtype="bfloat16"),
    "gpt2_scales": FamilySpec(
        "GPT2LMHeadModel",
        {**GPT2, "scale_attn_by_inverse_layer_idx": True, "n_inner": 100, "tie_word_embeddings": False},
    ),
    "gpt2_unscaled": FamilySpec("GPT2LMHeadModel", {**GPT2, "scale_attn_weights": False, "n_head": 8}),
    "gpt2_published": FamilySpec(
        "GPT2LMHeadModel",
        GPT2,
        layout=gpt2_published,
        omit=("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings", "n_inner"),
    ),
    "gpt_neox": FamilySpec(
        "GPTNeoXForCausalLM",
        {**MLP, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5}},
        dtype="float16",
    ),
    "gpt_neox_sequential": FamilySpec(
        "GPTNeoXForCausalLM",
        {**MLP, "use_parallel_residual": False, "attention_bias": False},
        dtype="bfloat16",
        omit=("rope_parameters",),
    ),
    "gpt_neox_published": FamilySpec(
        "GPTNeoXForCausalLM",
        MLP,
        layout=neox_published,
        suffix=".bin",
        omit=("rope_parameters", "use_parallel_residual", "tie_word_embeddings"),
        spelt={"rotary_emb_base": 5000, "rotary_pct": 0.5},
    ),
    "starcoder2": FamilySpec("Starcoder2ForCausalLM", {**GQA, "sliding_window": 24}, dtype="bfloat16"),
    "starcoder2_plain": FamilySpec(
        "Starcoder2ForCausalLM", {**GQA, "use_bias": False, "tie_word_embeddings": False, "num_key_value_heads": 1}
    ),
    "stablelm": FamilySpec("StableLmForCausalLM", {**GQA, "use_qkv_bias": True}, dtype="float16"),
    "stablelm_parallel": FamilySpec(
        "StableLmForCausalLM",
        {**MLP, "num_key_value_heads": 4, "use_parallel_residual": True, "tie_word_embeddings": True},
        omit=("rope_parameters",),
    ),
    "stablelm_head_norms": FamilySpec("StableLmForCausalLM", {**GQA, "qk_layernorm": True}, dtype="bfloat16"),
    "gemma": FamilySpec("GemmaForCausalLM", {**GEMMA, "num_key_value_heads": 1}, dtype="bfloat16"),
    "gemma_first_config": FamilySpec(
        "GemmaForCausalLM",
        GEMMA,
        omit=("tie_word_embeddings", "rope_parameters", "use_bidirectional_attention"),
        spelt={"hidden_act": "gelu"},
    ),
    "gemma2": FamilySpec(
        "Gemma2ForCausalLM",
        {**GEMMA, "sliding_window": 24, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 3.0},
        dtype="bfloat16",
    ),
    "gemma2_defaults": FamilySpec(
        "Gemma2ForCausalLM",
        {**GEMMA, "sliding_window": 24},
        omit=(
            "layer_types",
            "rope_parameters",
            "query_pre_attn_scalar",
            "attn_logit_softcapping",
            "final_logit_softcapping",
        ),
    ),
    "gemma3": FamilySpec("Gemma3ForCausalLM", GEMMA3, dtype="bfloat16"),
    "gemma3_first_config": FamilySpec(
        "Gemma3ForCausalLM",
        {**GEMMA, "num_hidden_layers": 3, "sliding_window": 24},
        omit=("layer_types", "rope_parameters", "query_pre_attn_scalar", "tie_word_embeddings"),
        spelt={
            "rope_theta": 2e5,
            "rope_local_base_freq": 5000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window_pattern": 2,
        },
    ),
    "gemma3_defaults": FamilySpec(
        "Gemma3ForCausalLM",
        {**GEMMA, "num_hidden_layers": 6, "sliding_window": 24},
        omit=("layer_types", "rope_parameters", "query_pre_attn_scalar", "tie_word_embeddings"),
    ),
    "gemma3_multimodal": FamilySpec(
        "Gemma3ForConditionalGeneration", {"text_config": GEMMA3, "vision_config": VISION, "mm_tokens_per_image": 4}
    ),
    "gemma3_multimodal_published": FamilySpec(
        "Gemma3ForConditionalGeneration",
        {"text_config": GEMMA3, "vision_config": VISION, "mm_tokens_per_image": 4},
        dtype="bfloat16",
        layout=gemma3_published,
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
    assert np.abs(all_logits(llm, prompt) - reference.logits(prompt)).max() <= 1e-4
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


def test_given_embeddings_are_not_scaled(tmp_path):
    """Gemma scales what its table holds; embeddings given as a prompt are what follows that."""
    folder = make_model(tmp_path, SPECS["gemma"])
    embed = from_folder(folder).model.get_input_embeddings()
    llm = load(folder, "float32", enable_prompt_embeds=True)
    ids = list(range(5, 50))
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=-1, detokenize=False)
    [expected] = llm.generate({"prompt_token_ids": ids}, params, use_tqdm=False)
    rows = embed(embed.weight.new_tensor(ids).long()).detach()
    [given] = llm.generate({"prompt_embeds": rows}, params, use_tqdm=False)
    assert given.outputs[0].token_ids == expected.outputs[0].token_ids
    for row, other in zip(given.outputs[0].logprobs, expected.outputs[0].logprobs, strict=True):
        assert all(abs(row[token].logprob - other[token].logprob) < 1e-4 for token in other)
