"""Encoders by the LLM's methods: pairs with segments, first tokens, and prompts as long as the positions reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM
from pooling_folders import save_model, write_tokenizer

QUERY = "What is the capital of France?"
TEXTS = ["The capital of Brazil is Brasilia.", "The capital of France is Paris.", "News"]
_NAMED = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A BERT with one label; its folder and the tokenizer of transformers."""
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = write_tokenizer(folder, single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", **_NAMED)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(**sizes, vocab_size=320, max_position_embeddings=96, num_labels=1)
    return save_model(BertForSequenceClassification(config), folder), tokenizer


def load(folder: Path, **args: Any) -> LLM:
    return LLM(folder, dtype="float32", kv_cache_memory_bytes="8M", **args)


@pytest.mark.parametrize("limit", [None, 24])
def test_segments_reach_the_model(bert: Any, limit: int | None) -> None:
    import torch
    from transformers import BertForSequenceClassification

    folder, tokenizer = bert
    model = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    outputs = load(folder, task="score").score(QUERY, TEXTS, truncate_prompt_tokens=limit, use_tqdm=False)
    for text, output in zip(TEXTS, outputs, strict=True):
        inputs = tokenizer(
            QUERY, text, return_token_type_ids=True, return_tensors="pt", truncation=limit is not None, max_length=limit
        )
        assert inputs["token_type_ids"].any()
        assert output.prompt_token_ids == inputs["input_ids"][0].tolist()
        with torch.inference_mode():
            expected = model(**inputs).logits.sigmoid().item()
        assert output.outputs.score == pytest.approx(expected, abs=1e-4)


def test_encoders_embed_by_their_first_token(bert: Any) -> None:
    import torch
    from transformers import BertModel

    folder, tokenizer = bert
    model = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    llm = load(folder, task="embed")
    outputs = llm.embed(TEXTS, use_tqdm=False)
    for text, output in zip(TEXTS, outputs, strict=True):
        with torch.inference_mode():
            hidden = model(torch.tensor([tokenizer(text).input_ids])).last_hidden_state[0, 0]
        expected = torch.nn.functional.normalize(hidden, dim=0).numpy()
        np.testing.assert_allclose(output.outputs.embedding, expected, atol=1e-4)
    assert all(llm.embed(t, use_tqdm=False)[0].outputs == o.outputs for t, o in zip(TEXTS, outputs, strict=True))


def test_every_position_can_be_used(bert: Any) -> None:
    [output] = load(bert[0], task="embed", max_num_batched_tokens=16).embed([list(range(5, 101))], use_tqdm=False)
    assert (len(output.prompt_token_ids), len(output.outputs.embedding)) == (96, 64)
