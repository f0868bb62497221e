"""The last step of a pooling task, on rows of floats; each row by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelError

Rows = npt.NDArray[np.float32]  # (n_rows, width)

_TORCH_NAMES = {"Identity": "identity", "Sigmoid": "sigmoid", "Softmax": "softmax", "Tanh": "tanh"}
_PROBLEMS = {"regression": "identity", "multi_label_classification": "sigmoid"}


def classes_activation(config: Mapping[str, Any], n_labels: int) -> str:
    """What turns a classifier's logits into its result: softmax, sigmoid, tanh or identity.

    A function that the files name goes first, then problem_type; else softmax of several labels, sigmoid of one.

    Raises:
        ModelError: the files name a function octavo does not know. Nothing is ever imported by name.
    """
    declared = config.get("sentence_transformers")
    named = declared.get("activation_fn") if isinstance(declared, Mapping) else None
    named = named or config.get("sbert_ce_default_activation_function")
    if named is not None:
        kind = str(named).rpartition(".")[2]
        if not str(named).startswith("torch.nn.modules.") or kind not in _TORCH_NAMES:
            known = ", ".join(_TORCH_NAMES)
            raise ModelError(f"config.json names the activation {named!r}; octavo knows {known} of torch.nn.modules.")
        return _TORCH_NAMES[kind]
    default = "softmax" if n_labels >= 2 else "sigmoid"
    return _PROBLEMS.get(str(config.get("problem_type")), default)


def activate(rows: Rows, activation: str) -> Rows:
    """``rows`` after the activation, in float32."""
    return _FUNCTIONS[activation](rows)


def normalize(rows: Rows) -> Rows:
    """Each row divided by its L2 norm; a row of zeros stays."""
    wide = rows.astype(np.float64)
    norms = np.sqrt(np.square(wide).sum(axis=-1, keepdims=True))
    return _single(wide / np.maximum(norms, 1e-12))


def _softmax(rows: Rows) -> Rows:
    wide = rows.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return _single(powers / powers.sum(axis=-1, keepdims=True))


def _sigmoid(rows: Rows) -> Rows:
    wide = rows.astype(np.float64)
    small = np.exp(-np.abs(wide))
    return _single(np.where(wide >= 0, 1 / (1 + small), small / (1 + small)))


def _single(rows: npt.NDArray[np.float64]) -> Rows:
    result: Rows = rows.astype(np.float32)
    return result


def _identity(rows: Rows) -> Rows:
    return rows


def _tanh(rows: Rows) -> Rows:
    return _single(np.tanh(rows.astype(np.float64)))


_FUNCTIONS: dict[str, Callable[[Rows], Rows]] = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "tanh": _tanh,
}
