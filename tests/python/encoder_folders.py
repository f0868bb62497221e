"""Small random encoders in Hugging Face folders, made by transformers, with what sets each family apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pooling_folders import save_model

_SIZES = {
    "vocab_size": 300,
    "num_hidden_layers": 2,
    "max_position_embeddings": 260,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}

# Family -> what differs from the sizes above; heads are of many widths.
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "Bert": {"hidden_size": 120, "num_attention_heads": 5, "intermediate_size": 200},
    "Roberta": {"hidden_size": 72, "num_attention_heads": 4, "intermediate_size": 100, "type_vocab_size": 1},
    "XLMRoberta": {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 160, "type_vocab_size": 1},
    "DistilBert": {"dim": 80, "n_heads": 2, "n_layers": 2, "hidden_dim": 96},
    "MPNet": {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 192},
    "ModernBert": {
        "hidden_size": 144,
        "num_attention_heads": 4,
        "intermediate_size": 88,
        "num_hidden_layers": 5,
        "local_attention": 128,
        "cls_token_id": 0,
        "sep_token_id": 2,
    },
    "NomicBert": {"hidden_size": 112, "num_attention_heads": 2, "intermediate_size": 176},
}
LONGEST = 200


def make_encoder(folder: Path, family: str, task: str = "Model", **config: Any) -> Path:
    """Writes a model of the family; ``task`` is the end of its architecture's name."""
    import transformers

    values = {**_SIZES, **FAMILIES[family], **config}
    if family == "DistilBert":
        values.pop("num_hidden_layers")
    model = getattr(transformers, f"{family}{task}")(getattr(transformers, f"{family}Config")(**values))
    return save_model(model, folder)
