"""The architectures octavo runs: one file each, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from octavo.nn import Model

# Family -> (module, class).
_FAMILIES = {
    "Llama": ("llama", "Llama"),
}
_TASKS = ("ForCausalLM", "Model", "ForSequenceClassification")
_ENCODERS = {
    "Bert": ("bert", "Bert"),
    "Camembert": ("roberta", "Roberta"),
    "DistilBert": ("distilbert", "DistilBert"),
    "MPNet": ("mpnet", "MPNet"),
    "ModernBert": ("modernbert", "ModernBert"),
    "NomicBert": ("nomic_bert", "NomicBert"),
    "Roberta": ("roberta", "Roberta"),
    "XLMRoberta": ("roberta", "Roberta"),
}
_ENCODER_TASKS = ("Model", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification")

# Architecture in config.json -> (module, class).
_MODELS = {f"{family}{task}": entry for family, entry in _FAMILIES.items() for task in _TASKS}
_MODELS |= {f"{family}{task}": entry for family, entry in _ENCODERS.items() for task in _ENCODER_TASKS}

SUPPORTED_ARCHITECTURES = tuple(_MODELS)


def model_class(architecture: str) -> type[Model]:
    """The class of a supported architecture."""
    module, name = _MODELS[architecture]
    return cast(type[Model], getattr(import_module(f"octavo.models.{module}"), name))
