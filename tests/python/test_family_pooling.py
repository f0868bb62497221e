"""Classes and hidden states of small random models of every family against transformers in float32."""

from __future__ import annotations

import numpy as np
import pytest

from family_folders import FamilySpec, make_model
from octavo import LLM, PoolingParams
from test_family_parity import GEMMA, GEMMA3, GPT2, GQA, MLP, OPT, VOCAB

PROMPTS = [np.random.default_rng(n).integers(3, VOCAB, n).tolist() for n in (45, 70, 1)]
RAW = PoolingParams(use_activation=False)
LABELS = {"num_labels": 3}
MOE = {**GQA, **LABELS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "head_dim": 16}

CLASSIFIERS = {
    "opt": FamilySpec("OPTForSequenceClassification", {**OPT, **LABELS, "word_embed_proj_dim": 48}),
    "gpt2": FamilySpec("GPT2ForSequenceClassification", {**GPT2, **LABELS, "pad_token_id": 2}),
    "gpt_neox": FamilySpec("GPTNeoXForSequenceClassification", {**MLP, **LABELS}),
    "starcoder2": FamilySpec("Starcoder2ForSequenceClassification", {**GQA, **LABELS}),
    "stablelm": FamilySpec("StableLmForSequenceClassification", {**GQA, **LABELS}),
    "gemma": FamilySpec("GemmaForSequenceClassification", {**GEMMA, **LABELS}),
    "gemma2": FamilySpec("Gemma2ForSequenceClassification", {**GEMMA, **LABELS, "sliding_window": 24}),
    "gemma3": FamilySpec("Gemma3TextForSequenceClassification", {**GEMMA3, **LABELS}),
    "smollm3": FamilySpec("SmolLM3ForSequenceClassification", {**GQA, **LABELS}),
    "mixtral": FamilySpec("MixtralForSequenceClassification", {**GQA, **LABELS, "num_local_experts": 3}),
    "qwen2_moe": FamilySpec("Qwen2MoeForSequenceClassification", {**MOE, "shared_expert_intermediate_size": 48}),
    "qwen3_moe": FamilySpec("Qwen3MoeForSequenceClassification", MOE),
}
TOKEN_CLASSIFIERS = {
    "gpt2": FamilySpec("GPT2ForTokenClassification", {**GPT2, **LABELS}),
    "gpt_neox": FamilySpec("GPTNeoXForTokenClassification", {**MLP, **LABELS}),
    "starcoder2": FamilySpec("Starcoder2ForTokenClassification", {**GQA, **LABELS}),
    "gemma": FamilySpec("GemmaForTokenClassification", {**GEMMA, **LABELS}),
    "llama": FamilySpec("LlamaForTokenClassification", {**GQA, **LABELS}),
    "qwen3": FamilySpec("Qwen3ForTokenClassification", {**GQA, **LABELS}),
}
ENCODERS = {
    "opt": FamilySpec("OPTModel", {**OPT, "word_embed_proj_dim": 48}),
    "gpt2": FamilySpec("GPT2Model", GPT2),
    "gpt_neox": FamilySpec("GPTNeoXModel", MLP),
    "gemma3": FamilySpec("Gemma3TextModel", GEMMA3),
    "gemma3_bidirectional": FamilySpec("Gemma3TextModel", {**GEMMA3, "use_bidirectional_attention": True}),
}


def load(folder):
    return LLM(folder, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_bytes="8M")


def expected(folder, auto_class, ids):
    """What transformers makes of token ids."""
    import torch
    import transformers

    model = getattr(transformers, auto_class).from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids]))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes(name, tmp_path):
    folder = make_model(tmp_path, CLASSIFIERS[name])
    outputs = load(folder).classify(PROMPTS, pooling_params=RAW, use_tqdm=False)
    for ids, output in zip(PROMPTS, outputs, strict=True):
        logits = expected(folder, "AutoModelForSequenceClassification", ids).logits[0]
        np.testing.assert_allclose(output.outputs.probs, logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", TOKEN_CLASSIFIERS)
def test_classes_of_tokens(name, tmp_path):
    folder = make_model(tmp_path, TOKEN_CLASSIFIERS[name])
    outputs = load(folder).encode(PROMPTS, RAW, pooling_task="token_classify", use_tqdm=False)
    for ids, output in zip(PROMPTS, outputs, strict=True):
        logits = expected(folder, "AutoModelForTokenClassification", ids).logits[0]
        np.testing.assert_allclose(output.outputs.data, logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_last_hidden_state(name, tmp_path):
    folder = make_model(tmp_path, ENCODERS[name])
    outputs = load(folder).embed(PROMPTS, pooling_params=RAW, use_tqdm=False)
    for ids, output in zip(PROMPTS, outputs, strict=True):
        last = expected(folder, "AutoModel", ids).last_hidden_state[0, -1]
        np.testing.assert_allclose(output.outputs.embedding, last, atol=1e-4, rtol=0)
