"""Classes, embeddings and scores by families of Llama's shape against transformers in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from family_folders import FamilySpec, make_model
from llama_folders import SMALL
from octavo import LLM, PoolingParams
from pooling_folders import write_tokenizer

CLOSE = {"atol": 1e-4, "rtol": 0}
RAW = PoolingParams(use_activation=False)
IDS = np.random.default_rng(0).integers(1, 300, 70).tolist()
PROMPTS = [IDS, IDS[:33], IDS[40:43], IDS[:1]]


def make(folder: Path, architecture: str, **config: Any) -> Path:
    return make_model(folder, FamilySpec(architecture, {**SMALL, "pad_token_id": 0, **config}))


def load(folder: Path, **arguments: Any) -> LLM:
    """An engine that computes the longer prompts in chunks, beside each other."""
    small = {"kv_cache_memory_bytes": "16M", "num_threads": 2, "max_num_batched_tokens": 29}
    return LLM(folder, dtype="float32", **small, **arguments)


def run(auto_class: str, folder: Path, ids: list[int]) -> Any:
    """What a model of transformers gives for the ids."""
    import torch
    import transformers

    model = getattr(transformers, auto_class).from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids]))


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Mistral", "Phi3"])
def test_classes(tmp_path: Path, family: str) -> None:
    folder = make(tmp_path, f"{family}ForSequenceClassification", num_labels=3)
    outputs = load(folder, skip_tokenizer_init=True).classify(PROMPTS, pooling_params=RAW, use_tqdm=False)
    for ids, output in zip(PROMPTS, outputs, strict=True):
        expected = run("AutoModelForSequenceClassification", folder, ids).logits[0]
        np.testing.assert_allclose(output.outputs.probs, expected, **CLOSE)


@pytest.mark.parametrize(("pooling", "pooled"), [("LAST", lambda h: h[-1]), ("MEAN", lambda h: h.mean(0))])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Mistral"])
def test_embeddings_of_base_models(tmp_path: Path, family: str, pooling: str, pooled: Callable[[Any], Any]) -> None:
    folder = make(tmp_path, f"{family}Model")
    llm = load(folder, skip_tokenizer_init=True, pooler_config={"pooling_type": pooling})
    outputs = llm.embed(PROMPTS, pooling_params=RAW, use_tqdm=False)
    for ids, output in zip(PROMPTS, outputs, strict=True):
        expected = pooled(run("AutoModel", folder, ids).last_hidden_state[0])
        np.testing.assert_allclose(output.outputs.embedding, expected, **CLOSE)


@pytest.mark.parametrize("tied", [True, False])
def test_the_qwen3_reranker(tmp_path: Path, tied: bool) -> None:
    """The score is the probability of "yes" where the next token is "no" or "yes"."""
    folder = make(tmp_path, "Qwen3ForCausalLM", head_dim=48, tie_word_embeddings=tied)
    tokenizer = write_tokenizer(folder, pad_token="<pad>", no="no", yes="yes")
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    llm = load(folder, hf_overrides=overrides)
    query, document = "What is the capital of France?", "The capital of France is Paris."
    [output] = llm.score(query, document, use_tqdm=False)
    logits = run("AutoModelForCausalLM", folder, tokenizer(query + document).input_ids).logits[0, -1]
    no_and_yes = logits[tokenizer.convert_tokens_to_ids(["no", "yes"])]
    assert output.outputs.score == pytest.approx(float(no_and_yes.softmax(-1)[1]), abs=1e-4)
    [output] = llm.classify([IDS], pooling_params=RAW, use_tqdm=False)
    logits = run("AutoModelForCausalLM", folder, IDS).logits[0, -1]
    no, yes = logits[tokenizer.convert_tokens_to_ids(["no", "yes"])]
    np.testing.assert_allclose(output.outputs.probs, [yes - no], **CLOSE)
