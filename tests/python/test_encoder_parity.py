"""Small random encoders of every family against transformers in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from encoder_folders import FAMILIES, make_encoder
from octavo import LLM, PoolingParams
from octavo.errors import InvalidInputError
from octavo.nn.relative_bias import distance_buckets
from octavo.pooling.requests import PoolingRequest, run_requests
from pooling_folders import write_tokenizer

Rows = npt.NDArray[np.float32]

LENGTHS = (1, 2, 31, 32, 33, 64, 65, 97, 130, 200)  # around tiles of keys, and beyond ModernBERT's window
BOUND = 1e-4
N_LABELS = 3
RAW = PoolingParams(use_activation=False)
POOLED: dict[str, Callable[[Rows], Rows]] = {
    "cls": lambda rows: rows[:1],
    "mean": lambda rows: rows.mean(0, keepdims=True),
    "last": lambda rows: rows[-1:],
    "all": lambda rows: rows,
}


def load(folder: Path, **options: Any) -> LLM:
    options = {"dtype": "float32", "kv_cache_memory_bytes": "4M", **options}
    return LLM(folder, skip_tokenizer_init=True, **options)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, 300, n).tolist() for n in LENGTHS]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: Any, tmp_path_factory: Any) -> Path:
    return make_encoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module", params=FAMILIES)
def classifier(request: Any, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    return make_encoder(path, request.param, "ForSequenceClassification", num_labels=N_LABELS)


def pooled(
    llm: LLM, prompts: Sequence[list[int]], pooling: str, types: Sequence[list[int]] | None = None
) -> list[Rows]:
    """Rows of the head, before any normalisation."""
    given = types or [None] * len(prompts)
    requests = [
        PoolingRequest(str(i), ids, PoolingParams(), token_types=kinds)
        for i, (ids, kinds) in enumerate(zip(prompts, given, strict=True))
    ]
    for request in run_requests(llm._model.core, requests, pooling):
        assert request.error is None
    return [request.rows for request in requests]  # type: ignore[misc]


def reference(folder: Path, kind: str = "AutoModel") -> Any:
    import torch
    import transformers

    return getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()


def outputs(model: Any, ids: list[int], types: list[int] | None = None) -> Any:
    import torch

    more = {} if types is None else {"token_type_ids": torch.tensor([types])}
    with torch.inference_mode():
        return model(torch.tensor([ids]), **more)


def test_hidden_states(folder: Path, prompts: list[list[int]]) -> None:
    model, llm = reference(folder), load(folder)
    expected = [outputs(model, ids).last_hidden_state[0].numpy() for ids in prompts]
    for pooling, rows_of in POOLED.items():
        for rows, hidden in zip(pooled(llm, prompts, pooling), expected, strict=True):
            np.testing.assert_allclose(rows, rows_of(hidden), atol=BOUND, rtol=0)


def test_classes(classifier: Path, prompts: list[list[int]]) -> None:
    model, llm = reference(classifier, "AutoModelForSequenceClassification"), load(classifier)
    logits = [outputs(model, ids).logits[0] for ids in prompts]
    raw = llm.classify(prompts, pooling_params=RAW, use_tqdm=False)
    np.testing.assert_allclose([o.outputs.probs for o in raw], np.stack(logits), atol=BOUND, rtol=0)
    probs = [o.outputs.probs for o in llm.classify(prompts, use_tqdm=False)]
    np.testing.assert_allclose(probs, [x.softmax(-1).numpy() for x in logits], atol=BOUND, rtol=0)
    assert np.ptp(probs, axis=0).max() > 0.1


def test_bits_do_not_depend_on_company(folder: Path, prompts: list[list[int]]) -> None:
    for dtype in ("float32", "bfloat16"):
        alone = load(folder, dtype=dtype, num_threads=1)
        expected = {p: [pooled(alone, [ids], p)[0] for ids in prompts] for p in POOLED}
        for options in ({"num_threads": 2}, {"num_threads": 3, "max_num_batched_tokens": 96, "max_num_seqs": 3}):
            together = load(folder, dtype=dtype, **options)
            for pooling, rows in expected.items():
                for one, other in zip(pooled(together, prompts, pooling), rows, strict=True):
                    np.testing.assert_array_equal(one, other)


def test_fast_modes(folder: Path, prompts: list[list[int]]) -> None:
    """Eight bits of bf16: the root mean square error as a share of the rows' own spread."""
    exact = np.concatenate(pooled(load(folder), prompts, "all"))
    for dtype in ("auto", "bfloat16"):
        rows = np.concatenate(pooled(load(folder, dtype=dtype), prompts, "all"))
        assert np.sqrt(np.mean((rows - exact) ** 2)) <= 0.02 * exact.std()


@pytest.mark.parametrize("family", ["Bert", "NomicBert"])
def test_token_types(family: str, tmp_path: Path, prompts: list[list[int]]) -> None:
    folder = make_encoder(tmp_path, family)
    types = [[int(i >= len(ids) // 2) for i in range(len(ids))] for ids in prompts]
    types[3] = None  # type: ignore[call-overload]
    model = reference(folder)
    for rows, ids, kinds in zip(pooled(load(folder), prompts, "all", types), prompts, types, strict=True):
        expected = outputs(model, ids, kinds).last_hidden_state[0]
        np.testing.assert_allclose(rows, expected, atol=BOUND, rtol=0)


def test_names_of_the_first_checkpoints(tmp_path: Path, prompts: list[list[int]]) -> None:
    """bert-base-uncased calls the norms' vectors gamma and beta to this day."""
    from safetensors.numpy import load_file, save_file

    folder = make_encoder(tmp_path, "Bert")
    expected = outputs(reference(folder), prompts[4]).last_hidden_state[0]
    file = folder / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in load_file(file).items():
        end = ".".join(name.split(".")[-2:])
        tensors[name.removesuffix(end) + old.get(end, end)] = tensor
    assert sum("gamma" in name for name in tensors) == 5
    save_file(tensors, file)
    np.testing.assert_allclose(pooled(load(folder), [prompts[4]], "all")[0], expected, atol=BOUND, rtol=0)


def test_scores_of_pairs(tmp_path: Path) -> None:
    """A cross-encoder reads both texts as one sequence, the second under token type 1."""
    from transformers import AutoTokenizer

    folder = make_encoder(tmp_path, "Bert", "ForSequenceClassification", num_labels=1, vocab_size=320)
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    write_tokenizer(folder, single="[CLS] $A [SEP]", pair=pair, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
    query, texts = "What is the capital of France?", ["The capital of France is Paris.", "A man eats bread."]
    scores = LLM(folder, dtype="float32", kv_cache_memory_bytes="4M").score(query, texts, use_tqdm=False)
    model = reference(folder, "AutoModelForSequenceClassification")
    for text, score in zip(texts, scores, strict=True):
        inputs = AutoTokenizer.from_pretrained(folder)(query, text, return_token_type_ids=True)
        logit = outputs(model, inputs.input_ids, inputs.token_type_ids).logits[0, 0]
        assert sum(inputs.token_type_ids) > 1 and score.prompt_token_ids == inputs.input_ids
        assert score.outputs.score == pytest.approx(float(logit.sigmoid()), abs=BOUND)


def test_a_reranker_keeps_its_order_in_the_default_dtype(tmp_path: Path) -> None:
    """Where scores in float32 differ by more than the rounding of eight bits, the order is the same."""
    folder = make_encoder(tmp_path, "XLMRoberta", "ForSequenceClassification", num_labels=1, num_hidden_layers=6)
    model = reference(folder, "AutoModelForSequenceClassification")
    rng = np.random.default_rng(3)
    documents = [rng.integers(3, 300, 60).tolist() for _ in range(40)]
    judged = np.array([outputs(model, ids).logits[0, 0] for ids in documents])
    llm = load(folder, dtype="auto")
    raw = np.array([o.outputs.probs[0] for o in llm.classify(documents, pooling_params=RAW, use_tqdm=False)])
    assert np.abs(raw - judged).max() <= 0.05 * judged.std()
    far_apart = judged[:, None] - judged[None, :] > 0.1 * judged.std()
    assert (raw[:, None] > raw[None, :])[far_apart].all() and far_apart.mean() > 0.4


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_language_models_embed(family: str, tmp_path: Path, prompts: list[list[int]]) -> None:
    folder = make_encoder(tmp_path, family, "ForMaskedLM")
    expected = outputs(reference(folder), prompts[4]).last_hidden_state[0]
    np.testing.assert_allclose(pooled(load(folder), [prompts[4]], "all")[0], expected, atol=BOUND, rtol=0)


def test_modernbert_classifies_the_mean(tmp_path: Path, prompts: list[list[int]]) -> None:
    folder = make_encoder(tmp_path, "ModernBert", "ForSequenceClassification", classifier_pooling="mean")
    model = reference(folder, "AutoModelForSequenceClassification")
    raw = load(folder).classify(prompts, pooling_params=RAW, use_tqdm=False)
    expected = [outputs(model, ids).logits[0].numpy() for ids in prompts]
    np.testing.assert_allclose([o.outputs.probs for o in raw], expected, atol=BOUND, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_tokens(family: str, tmp_path: Path, prompts: list[list[int]]) -> None:
    folder = make_encoder(tmp_path, family, "ForTokenClassification", num_labels=N_LABELS)
    model, llm = reference(folder, "AutoModelForTokenClassification"), load(folder)
    raw = llm.encode(prompts, RAW, pooling_task="token_classify", use_tqdm=False)
    probs = llm.encode(prompts, pooling_task="token_classify", use_tqdm=False)
    for ids, row, prob in zip(prompts, raw, probs, strict=True):
        logits = outputs(model, ids).logits[0]
        np.testing.assert_allclose(row.outputs.data, logits, atol=BOUND, rtol=0)
        np.testing.assert_allclose(prob.outputs.data, logits.softmax(-1), atol=BOUND, rtol=0)
    for method in (llm.classify, llm.embed):
        with pytest.raises(InvalidInputError, match="token_classify|--convert embed"):
            method(prompts)


def test_mpnets_buckets() -> None:
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = np.arange(-600, 601)
    expected = MPNetEncoder.relative_position_bucket(torch.from_numpy(distances)).numpy()
    np.testing.assert_array_equal(distance_buckets(distances, 32, 128), expected)
