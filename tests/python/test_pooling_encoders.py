"""Encoders by the LLM's methods: pairs with segments, first tokens, and prompts as long as the positions reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.tokenizer.tokenizer import Tokenizer
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


def test_given_token_types(bert: Any) -> None:
    import torch
    from transformers import BertModel

    folder, _ = bert
    ids, types = list(range(5, 25)), [0] * 8 + [1] * 12
    llm = load(folder, task="embed")
    prompts = [{"prompt_token_ids": ids, "token_type_ids": np.array(types)}, {"prompt_token_ids": ids}]
    typed, untyped = llm.embed(prompts, use_tqdm=False)
    model = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    for output, kinds in ((typed, types), (untyped, [0] * 20)):
        with torch.inference_mode():
            hidden = model(torch.tensor([ids]), token_type_ids=torch.tensor([kinds])).last_hidden_state[0, 0]
        expected = torch.nn.functional.normalize(hidden, dim=0).numpy()
        np.testing.assert_allclose(output.outputs.embedding, expected, atol=1e-4)
    [cut] = llm.embed(prompts[:1], truncate_prompt_tokens=10, use_tqdm=False)
    [short] = llm.embed({"prompt_token_ids": ids[:10], "token_type_ids": types[:10]}, use_tqdm=False)
    assert cut.outputs == short.outputs


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ([0, 1, 2], "prompt 1 has the token type 2; this model's token types are at least 0 and below 2"),
        ([0, -1, 1], "prompt 1 has the token type -1"),
        ([0, 1], "prompt 1 has 3 token ids, but 2 token_type_ids"),
        ([0, 1, "1"], "prompt 1 has '1' among its token_type_ids"),
        ("011", "the token_type_ids of prompt 1 are '011'"),
    ],
)
def test_wrong_token_types(bert: Any, types: Any, message: str) -> None:
    llm = load(bert[0], task="embed")
    prompts = ["Hello", {"prompt_token_ids": [5, 6, 7], "token_type_ids": types}, "News"]
    with pytest.raises((InvalidInputError, InvalidTypeError), match=message):
        llm.embed(prompts)
    outputs = llm.embed(prompts, on_error="return", use_tqdm=False)
    assert [output.error is None for output in outputs] == [True, False, True]
    with pytest.raises(InvalidInputError, match="but no prompt_token_ids"):
        llm.embed({"prompt": "Hello", "token_type_ids": [0]})


def test_pairs_are_tokenised_together(bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    encode = Tokenizer.encode_pairs

    def counted(self: Tokenizer, pairs: Any, *args: Any, **kwargs: Any) -> Any:
        batches.append(len(given := list(pairs)))
        return encode(self, given, *args, **kwargs)

    monkeypatch.setattr(Tokenizer, "encode_pairs", counted)
    load(bert[0], task="score").score(QUERY, TEXTS, use_tqdm=False)
    assert batches == [len(TEXTS)]


def test_every_position_can_be_used(bert: Any) -> None:
    [output] = load(bert[0], task="embed", max_num_batched_tokens=16).embed([list(range(5, 101))], use_tqdm=False)
    assert (len(output.prompt_token_ids), len(output.outputs.embedding)) == (96, 64)
