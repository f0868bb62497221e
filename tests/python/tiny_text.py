"""A tiny random model that writes text: a Llama of noise with the tokenizer of a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import smollm2
from llama_folders import LlamaSpec, make_llama
from octavo import LLM

_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


def make_folder(folder: Path, vocab_size: int = 49152) -> Path:
    """Writes the model; its tokenizer is not in the folder."""
    return make_llama(folder, LlamaSpec({**_SMALL, "vocab_size": vocab_size}))


def load(folder: Path, **options: Any) -> LLM:
    """The model in `folder`, with SmolLM2's tokenizer."""
    return LLM(str(folder), **{"tokenizer": str(smollm2.path()), "kv_cache_memory_bytes": "64M", **options})
