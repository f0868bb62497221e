"""The architectures octavo runs: one file each, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from octavo.nn import CausalLM

# Architecture in config.json -> (module, class).
_MODELS = {
    "LlamaForCausalLM": ("llama", "LlamaForCausalLM"),
}

SUPPORTED_ARCHITECTURES = tuple(_MODELS)


def model_class(architecture: str) -> type[CausalLM]:
    """The class of a supported architecture."""
    module, name = _MODELS[architecture]
    return cast(type[CausalLM], getattr(import_module(f"octavo.models.{module}"), name))
