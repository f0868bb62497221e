"""The architectures octavo runs: one file each, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from octavo.nn import Model

# Family -> (module, class).
_FAMILIES = {
    "Granite": ("granite", "Granite"),
    "Llama": ("llama", "Llama"),
    "Mistral": ("mistral", "Mistral"),
    "Mixtral": ("mixtral", "Mixtral"),
    "OPT": ("opt", "OPT"),
    "Olmo2": ("olmo2", "Olmo2"),
    "Phi3": ("phi3", "Phi3"),
    "Qwen2": ("qwen2", "Qwen2"),
    "Qwen2Moe": ("qwen2_moe", "Qwen2Moe"),
    "Qwen3": ("qwen3", "Qwen3"),
    "Qwen3Moe": ("qwen3_moe", "Qwen3Moe"),
    "SmolLM3": ("smollm3", "SmolLM3"),
}
_TASKS = ("ForCausalLM", "Model", "ForSequenceClassification")

# Architecture in config.json -> (module, class).
_MODELS = {f"{family}{task}": entry for family, entry in _FAMILIES.items() for task in _TASKS}

SUPPORTED_ARCHITECTURES = tuple(_MODELS)


def model_class(architecture: str) -> type[Model]:
    """The class of a supported architecture."""
    module, name = _MODELS[architecture]
    return cast(type[Model], getattr(import_module(f"octavo.models.{module}"), name))
