"""Every architecture that GGUF files name, from the file alone, against transformers with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from encoder_folders import make_encoder
from family_folders import FamilySpec, make_model
from gguf_writer import Rules, write_gguf
from llama_folders import LLAMA3_ROPE
from octavo import LLM
from raw_runs import RAW_LOGITS, all_logits
from reference import from_folder
from test_family_parity import GEMMA, GPT2, GQA, MLP, N_PROMPT, VOCAB

WINDOW = 24  # shorter than the prompt
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5],
    "long_factor": [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0],
    "original_max_position_embeddings": 48,
    "factor": 512 / 48,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3_ROPE = {**LLAMA3_ROPE, "original_max_position_embeddings": 48}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


def window(config):
    return {"attention.sliding_window": config.sliding_window}


def gemma2(config):
    caps = {"attn_logit_softcapping": config.attn_logit_softcapping}
    return {**window(config), **caps, "final_logit_softcapping": config.final_logit_softcapping}


def granite(config):
    return {
        "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier,
        "attention.scale": config.attention_multiplier,
        "logit_scale": config.logits_scaling,
    }


def stablelm(config):
    rotated = int(config.rope_parameters["partial_rotary_factor"] * config.hidden_size // config.num_attention_heads)
    return {"rope.dimension_count": rotated, "use_parallel_residual": config.use_parallel_residual}


def long_rope(config):
    factors = {kind: np.array(config.rope_parameters[f"{kind}_factor"], np.float32) for kind in ("long", "short")}
    return {f"rope_factors_{kind}.weight": values for kind, values in factors.items()}


def frequency_factors(config):
    """Llama 3.1's scaling as divisors of the frequencies."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    head_dim = config.hidden_size // config.num_attention_heads
    base = config.rope_parameters["rope_theta"] ** -(np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    return {"rope_freqs.weight": (base / scaled).astype(np.float32)}


LLAMA = Rules("llama", interleaved=True)
LLAMA3 = Rules("llama", interleaved=True, tensors=frequency_factors)
STABLELM = Rules("stablelm", layer_norms=True, metadata=stablelm)
CASES = {
    "llama_yarn": (FamilySpec("LlamaForCausalLM", {**GQA, "rope_parameters": YARN}), LLAMA),
    "llama3": (FamilySpec("LlamaForCausalLM", {**GQA, "rope_parameters": LLAMA3_ROPE}), LLAMA3),
    "llama_linear": (FamilySpec("LlamaForCausalLM", {**GQA, "attention_bias": True, "rope_parameters": LINEAR}), LLAMA),
    "qwen2": (FamilySpec("Qwen2ForCausalLM", GQA), Rules("qwen2")),
    "qwen2_tied": (FamilySpec("Qwen2ForCausalLM", {**GQA, "tie_word_embeddings": True}), Rules("qwen2")),
    "qwen3": (FamilySpec("Qwen3ForCausalLM", {**GQA, "head_dim": 24}), Rules("qwen3")),
    "phi3": (FamilySpec("Phi3ForCausalLM", {**GQA, "sliding_window": WINDOW}), Rules("phi3", metadata=window)),
    "phi3_longrope": (
        FamilySpec("Phi3ForCausalLM", {**GQA, "original_max_position_embeddings": 48, "rope_parameters": LONG_ROPE}),
        Rules("phi3", tensors=long_rope),
    ),
    "gemma": (FamilySpec("GemmaForCausalLM", GEMMA), Rules("gemma", shifted_norms=True)),
    "gemma2": (
        FamilySpec(
            "Gemma2ForCausalLM",
            {**GEMMA, "query_pre_attn_scalar": 24, "sliding_window": WINDOW, "num_hidden_layers": 3},
        ),
        Rules("gemma2", shifted_norms=True, metadata=gemma2),
    ),
    "gemma3": (
        FamilySpec(
            "Gemma3ForCausalLM",
            {
                **GEMMA,
                "query_pre_attn_scalar": 24,
                "sliding_window": WINDOW,
                "num_hidden_layers": 7,
                "rope_parameters": GEMMA3_ROPE,
            },
        ),
        Rules("gemma3", shifted_norms=True, metadata=window),
    ),
    "granite": (
        FamilySpec(
            "GraniteForCausalLM",
            {
                **GQA,
                "embedding_multiplier": 1.5,
                "residual_multiplier": 0.5,
                "attention_multiplier": 0.125,
                "logits_scaling": 2.0,
            },
        ),
        Rules("granite", interleaved=True, metadata=granite),
    ),
    "smollm3": (
        FamilySpec("SmolLM3ForCausalLM", {**GQA, "num_hidden_layers": 5}),
        Rules("smollm3", interleaved=True),
    ),
    "olmo2": (FamilySpec("Olmo2ForCausalLM", GQA), Rules("olmo2")),
    "starcoder2": (
        FamilySpec("Starcoder2ForCausalLM", {**GQA, "sliding_window": WINDOW}),
        Rules("starcoder2", layer_norms=True, metadata=window),
    ),
    "stablelm": (FamilySpec("StableLmForCausalLM", {**GQA, "use_qkv_bias": True}), STABLELM),
    "stablelm_parallel": (
        FamilySpec("StableLmForCausalLM", {**MLP, "num_key_value_heads": 4, "use_parallel_residual": True}),
        STABLELM,
    ),
    "stablelm_head_norms": (FamilySpec("StableLmForCausalLM", {**GQA, "qk_layernorm": True}), STABLELM),
    "gpt2": (FamilySpec("GPT2LMHeadModel", GPT2), Rules("gpt2", transposed=True, layer_norms=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_logits(name, tmp_path):
    spec, rules = CASES[name]
    folder = make_model(tmp_path / "hf", spec)
    reference, path = from_folder(folder), write_gguf(tmp_path / "m.gguf", folder, rules)
    prompt = np.random.default_rng(1).integers(3, VOCAB, N_PROMPT).tolist()
    llm = LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_bytes="16M", **RAW_LOGITS)
    assert np.abs(all_logits(llm, prompt) - reference.logits(prompt)).max() <= 1e-3


@pytest.mark.parametrize("name", ["llama3", "llama_linear", "phi3_longrope", "gemma3", "mistral"])
def test_config_from_elsewhere(name, tmp_path):
    """A config.json and nothing else; it may name another family with the same layout."""
    mistral = FamilySpec("MistralForCausalLM", {**GQA, "sliding_window": WINDOW})
    spec, rules = (mistral, LLAMA) if name == "mistral" else CASES[name]
    folder = make_model(tmp_path / "hf", spec)
    reference, path = from_folder(folder), write_gguf(tmp_path / "m.gguf", folder, rules)
    (tmp_path / "config").mkdir()
    (folder / "config.json").rename(tmp_path / "config" / "config.json")
    prompt = np.random.default_rng(1).integers(3, VOCAB, N_PROMPT).tolist()
    options = {"hf_config_path": str(tmp_path / "config"), "skip_tokenizer_init": True, **RAW_LOGITS}
    llm = LLM(path, dtype="float32", kv_cache_memory_bytes="16M", **options)
    assert np.abs(all_logits(llm, prompt) - reference.logits(prompt)).max() <= 1e-3


POOLINGS = {"mean": 1, "cls": 2}
ENCODERS = {"bert": "Bert", "nomic-bert": "NomicBert"}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("architecture", ENCODERS)
def test_embeddings(architecture, pooling, tmp_path):
    import torch
    from transformers import AutoModel

    folder = make_encoder(tmp_path / "hf", ENCODERS[architecture])
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    kind = {"pooling_type": POOLINGS[pooling], "attention.causal": False}
    rules = Rules(architecture, layer_norms=True, metadata=lambda config: kind)
    llm = LLM(write_gguf(tmp_path / "m.gguf", folder, rules), dtype="float32", task="embed", skip_tokenizer_init=True)
    prompts = [np.random.default_rng(n).integers(3, 300, n).tolist() for n in (1, 17, 64, 150)]
    for prompt, output in zip(prompts, llm.embed([{"prompt_token_ids": ids} for ids in prompts]), strict=True):
        with torch.inference_mode():
            hidden = model(torch.tensor([prompt])).last_hidden_state[0].numpy()
        expected = hidden.mean(axis=0) if pooling == "mean" else hidden[0]
        expected = expected / np.linalg.norm(expected)
        assert np.abs(np.array(output.outputs.embedding) - expected).max() <= 1e-4
