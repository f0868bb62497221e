"""Small random models of every family in Hugging Face folders, made by transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]
Layout = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class FamilySpec:
    """One model.

    Attributes:
        architecture: Its class in transformers, such as "OPTForCausalLM".
        config: Arguments of its configuration.
        dtype: What the checkpoint is stored in.
        layout: What published checkpoints call and hold, of what transformers writes.
        suffix: ".safetensors" or ".bin" (PyTorch's).
        omit: Keys that published config.json files of this family leave out.
        spelt: What they say in other words than transformers writes now.
    """

    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    layout: Layout | None = None
    suffix: str = ".safetensors"
    omit: tuple[str, ...] = ()
    spelt: Mapping[str, Any] = field(default_factory=dict)


def make_model(folder: Path, spec: FamilySpec, seed: int = 0) -> Path:
    """Writes the model into ``folder``."""
    import torch
    import transformers

    torch.manual_seed(seed)
    made = getattr(transformers, spec.architecture)
    model = made(made.config_class(**spec.config))
    enliven(model)
    model.to(getattr(torch, spec.dtype)).save_pretrained(folder)
    if spec.layout is not None or spec.suffix == ".bin":
        _rewrite(folder, spec)
    _respell(folder / "config.json", spec)
    return folder


def enliven(model: Any) -> None:
    """Weights with which activations stay near unit variance, so that logits are far apart and every op counts."""
    import torch

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    head = None if head is None else head.weight
    with torch.no_grad():
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                _enliven(module, name, weight, is_head=weight is head)


def _enliven(module: Any, name: str, weight: Any, *, is_head: bool) -> None:
    if is_head:
        weight.normal_(std=3.0 * weight.shape[1] ** -0.5)
    elif name == "bias":
        weight.normal_(std=0.3)
    elif weight.dim() == 1:  # a norm's, around 1, or around 0 where 1 is added to it
        weight.add_(weight.new_empty(weight.shape).uniform_(-0.2, 0.2))
    elif "Embedding" in type(module).__name__:
        weight.normal_(std=1.0)
    else:
        n_in = weight.shape[0] if type(module).__name__ == "Conv1D" else weight.shape[-1]
        weight.normal_(std=n_in**-0.5)


def _rewrite(folder: Path, spec: FamilySpec) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    if spec.layout is not None:
        tensors = spec.layout(tensors)
    if spec.suffix == ".bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, path, metadata={"format": "pt"})


def _respell(path: Path, spec: FamilySpec) -> None:
    config = json.loads(path.read_text())
    kept = {key: value for key, value in config.items() if key not in spec.omit}
    path.write_text(json.dumps({**kept, **spec.spelt}))
