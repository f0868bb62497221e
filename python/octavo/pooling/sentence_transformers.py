"""What a Sentence Transformers folder says beside config.json (https://sbert.net/docs/sentence_transformer).

Prompts of config_sentence_transformers.json are not applied: a prompt is tokenised as it was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from octavo.errors import ModelError
from octavo.weights.json_file import MAX_BYTES, read_json_object

_POOLING = {"cls": "CLS", "cls_token": "CLS", "mean": "MEAN", "mean_tokens": "MEAN", "lasttoken": "LAST"}
_SKIPPED = ("Transformer", "Pooling", "Normalize", "Dense", "Dropout")
_ACTIVATIONS = {
    "Identity": None,
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}


@dataclass(frozen=True)
class DenseModule:
    """A linear layer after pooling; its tensors are ``linear.weight`` and, with a bias, ``linear.bias``.

    Attributes:
        folder: Where its weights lie.
        name: What its tensors' names begin with, once they stand beside the model's.
        activation: A name that octavo.nn.activation knows; None for none.
        bias: Whether it has one.
    """

    folder: Path
    name: str
    activation: str | None
    bias: bool


@dataclass(frozen=True)
class SentenceTransformer:
    """The modules of a folder, in so far as octavo runs them.

    Attributes:
        pooling: "CLS", "MEAN" or "LAST"; None where there is no pooling module.
        normalize: Whether a Normalize module ends the chain.
        dense: Linear layers between pooling and normalisation.
        max_seq_length: Most tokens of a text; None for the model's own limit.
        lowercase: Texts are brought to lower case first.
    """

    pooling: str | None = None
    normalize: bool = False
    dense: tuple[DenseModule, ...] = ()
    max_seq_length: int | None = None
    lowercase: bool = False


def read_sentence_transformer(folder: Path | None) -> SentenceTransformer | None:
    """The modules of a folder; None where it has no modules.json.

    Raises:
        ModelError: a file is damaged, or asks for a module or a kind of pooling that octavo does not run.
    """
    if folder is None or not (folder / "modules.json").is_file():
        return None
    modules = _modules(folder / "modules.json")
    kinds = {kind for kind, _ in modules}
    unknown = sorted(kinds - set(_SKIPPED))
    if unknown:
        raise ModelError(
            f"{folder / 'modules.json'} has the module {unknown[0]}, which octavo does not run; it runs "
            f"{', '.join(_SKIPPED)}."
        )
    limits = _limits(folder)
    return SentenceTransformer(
        pooling=next(
            (_pooling_type(folder / path / "config.json") for kind, path in modules if kind == "Pooling"), None
        ),
        normalize="Normalize" in kinds,
        dense=tuple(_dense(folder, path) for kind, path in modules if kind == "Dense"),
        max_seq_length=_positive(limits.get("max_seq_length")),
        lowercase=bool(limits.get("do_lower_case", False)),
    )


def _modules(path: Path) -> list[tuple[str, str]]:
    """(class name, folder) of each module, in order."""
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path} is larger than {MAX_BYTES} bytes, too large for what it should hold; fetch it again.")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [(entry["type"].rpartition(".")[2], _inside(path, entry["path"])) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelError(f"{path} is no list of modules with a type and a path; fetch the file again.") from None


def _inside(path: Path, folder: str) -> str:
    parts = PurePosixPath(folder)
    if parts.is_absolute() or ".." in parts.parts:
        raise ModelError(f"{path} names the folder {folder!r}, which is not inside the model's; fetch the file again.")
    return folder


def _pooling_type(path: Path) -> str:
    config = read_json_object(path)
    named = config.get("pooling_mode")
    modes = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "mode_" in key]
    modes = named if isinstance(named, list) else [named] if isinstance(named, str) else modes
    if len(modes) != 1 or modes[0] not in _POOLING:
        asked = " with ".join(str(mode) for mode in modes) or "none"
        raise ModelError(
            f"{path} asks for the pooling {asked}, which octavo does not run; it runs cls, mean, lasttoken."
        )
    return _POOLING[modes[0]]


def _dense(folder: Path, path: str) -> DenseModule:
    config = read_json_object(folder / path / "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = name.rpartition(".")[2]
    if not name.startswith("torch.nn.modules.") or kind not in _ACTIVATIONS:
        raise ModelError(
            f"{folder / path} has the activation {name}, which octavo does not run; it runs {', '.join(_ACTIVATIONS)}."
        )
    return DenseModule(folder / path, path, _ACTIVATIONS[kind], bool(config.get("bias", True)))


def _limits(folder: Path) -> Mapping[str, Any]:
    """sentence_bert_config.json, or the file of the same kind that is named after another family."""
    files = sorted(folder.glob("sentence_*_config.json"))
    return read_json_object(files[0]) if files else {}


def _positive(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
