"""Weights that pooling adds to a model: linear layers after pooling, a classifier made of output rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo import _core
from octavo.errors import ModelError
from octavo.pooling.plan import PoolingPlan
from octavo.pooling.sentence_transformers import DenseModule
from octavo.tokenizer.tokenizer import Tokenizer
from octavo.weights.source import Checkpoint, open_tensors
from octavo.weights.tensor import SourceTensor

CLASSIFIER = "score.weight"


def with_pooling_weights(
    checkpoint: Checkpoint, plan: PoolingPlan, config: Mapping[str, Any], tokenizer: Tokenizer | None
) -> Checkpoint:
    """The checkpoint with what the plan adds to it.

    Raises:
        ModelError: a file of weights is missing or damaged, or the vocabulary lacks a token of the classifier.
    """
    added = {tensor.name: tensor for dense in plan.dense for tensor in _dense_tensors(dense)}
    if plan.label_tokens:
        added[CLASSIFIER] = _classifier(checkpoint, plan, config, tokenizer)
    return checkpoint.joined(added) if added else checkpoint


def _dense_tensors(dense: DenseModule) -> list[SourceTensor]:
    files = [path for name in ("model.safetensors", "pytorch_model.bin") if (path := dense.folder / name).is_file()]
    if not files:
        raise ModelError(f"{dense.folder} lacks model.safetensors, the weights of that layer; fetch the model again.")
    return [replace(t, name=f"{dense.name}.{name}") for name, t in open_tensors((files[0],)).items()]


def _classifier(
    checkpoint: Checkpoint, plan: PoolingPlan, config: Mapping[str, Any], tokenizer: Tokenizer | None
) -> SourceTensor:
    rows = _output_rows(checkpoint, [_token_id(token, tokenizer) for token in plan.label_tokens], config)
    values = rows[1:] - rows[:1] if plan.label_difference else rows
    return SourceTensor(CLASSIFIER, "F32", values.shape, np.ascontiguousarray(values), mapped=False)


def _token_id(token: str, tokenizer: Tokenizer | None) -> int:
    token_id = None if tokenizer is None else tokenizer.backend.token_to_id(token)
    if token_id is None:
        raise ModelError(f"classifier_from_token names {token!r}, which is no token of this model's tokenizer.")
    return token_id


def _output_rows(checkpoint: Checkpoint, ids: list[int], config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """(len(ids), hidden) rows of the output layer, or of the embedding table that stands in for it."""
    name = "model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight"
    tensor = checkpoint.get(name)
    n, k = tensor.shape
    if max(ids) >= n:
        raise ModelError(f"{name} has {n} rows, but the classifier needs row {max(ids)}; fetch the model again.")
    stored = np.frombuffer(tensor.data, np.uint8).reshape(n, -1)[ids]
    values: npt.NDArray[np.float32] = _core.dequantize(tensor.format, stored.reshape(-1), len(ids) * k)
    return values.reshape(len(ids), k)
