"""The architectures octavo runs: one file each, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from octavo.nn import Model

# Family -> (module, class).
_FAMILIES = {
    "Llama": ("llama", "Llama"),
    "Mixtral": ("mixtral", "Mixtral"),
    "OPT": ("opt", "OPT"),
    "Qwen2Moe": ("qwen2_moe", "Qwen2Moe"),
    "Qwen3Moe": ("qwen3_moe", "Qwen3Moe"),
}
_TASKS = ("ForCausalLM", "Model", "ForSequenceClassification")

# Architecture in config.json -> (module, class).
_MODELS = {f"{family}{task}": entry for family, entry in _FAMILIES.items() for task in _TASKS}

SUPPORTED_ARCHITECTURES = tuple(_MODELS)


def model_class(architecture: str) -> type[Model]:
    """The class of a supported architecture."""
    module, name = _MODELS[architecture]
    return cast(type[Model], getattr(import_module(f"octavo.models.{module}"), name))
