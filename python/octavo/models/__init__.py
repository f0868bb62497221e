"""The architectures octavo runs: one file each, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from octavo.nn import Model

# Decoders and encoders: family -> (module, class).
_FAMILIES = {
    "GPT2": ("gpt2", "GPT2"),
    "GPTNeoX": ("gpt_neox", "GPTNeoX"),
    "Gemma": ("gemma", "Gemma"),
    "Gemma2": ("gemma2", "Gemma2"),
    "Gemma3": ("gemma3", "Gemma3"),
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
    "StableLm": ("stablelm", "StableLm"),
    "Starcoder2": ("starcoder2", "Starcoder2"),
}
_TASKS = ("ForCausalLM", "Model", "ForSequenceClassification", "ForTokenClassification")
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
_ENCODER_TASKS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")

# Spelt otherwise than the rest of their family.
_OTHERS = {
    "BertForPreTraining": ("bert", "Bert"),
    "GPT2LMHeadModel": ("gpt2", "GPT2"),
    "Gemma3ForConditionalGeneration": ("gemma3", "Gemma3"),
    "Gemma3TextForSequenceClassification": ("gemma3", "Gemma3"),
    "Gemma3TextModel": ("gemma3", "Gemma3"),
}

# Architecture in config.json -> (module, class).
_MODELS = {f"{family}{task}": entry for family, entry in _FAMILIES.items() for task in _TASKS}
_MODELS |= {f"{family}{task}": entry for family, entry in _ENCODERS.items() for task in _ENCODER_TASKS}
_MODELS |= _OTHERS

SUPPORTED_ARCHITECTURES = tuple(_MODELS)


def model_class(architecture: str) -> type[Model]:
    """The class of a supported architecture."""
    module, name = _MODELS[architecture]
    return cast(type[Model], getattr(import_module(f"octavo.models.{module}"), name))
