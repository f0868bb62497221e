"""Small random models for pooling, in Hugging Face folders with tokenizers, made by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = (
    "Hello, my name is. The president of the United States is. The capital of France is Paris. The future of AI is. "
    "What is the capital of France? The capital of Brazil is Brasilia. A man eats bread; a woman reads the news."
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "vocab_size": 320,
}


def write_tokenizer(folder: Path, single: str = "$A", pair: str = "$A $B:1", **special: str) -> Any:
    """A byte-level BPE of 300 tokens; ``special`` names its special tokens, which the templates may use."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    named = list(dict.fromkeys(special.values()))
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=named, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([TEXT], trainer)
    ids = [(token, backend.token_to_id(token)) for token in named]
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_model(model: Any, folder: Path, seed: int = 0, dtype: Any = None) -> Path:
    """Writes the model with weights whose activations stay near unit variance, so that results are far apart."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                weight.uniform_(0.8, 1.2)
            elif weight.dim() == 1:
                weight.normal_(std=0.3)
            else:
                weight.normal_(std=1.0 if "embed" in name else weight.shape[1] ** -0.5)
    (model if dtype is None else model.to(dtype)).save_pretrained(folder)
    return folder


def edit_config(folder: Path, **values: Any) -> None:
    """Puts values into config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def write_modules(folder: Path, *kinds: str, pooling: str = "mean_tokens", **limits: Any) -> None:
    """The files of Sentence Transformers for modules that follow the transformer."""
    entries = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, kind in enumerate(kinds, 1):
        path = f"{i}_{kind}"
        entries.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
        (folder / path).mkdir(exist_ok=True)
        if kind == "Pooling":
            (folder / path / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    (folder / "modules.json").write_text(json.dumps(entries))
    if limits:
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits))


def write_dense(folder: Path, n_in: int, n_out: int, activation: str) -> Any:
    """A Dense module's own folder; returns the torch layer it is."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    linear = torch.nn.Linear(n_in, n_out)
    folder.mkdir(exist_ok=True)
    save_file(
        {f"linear.{name}": value.detach() for name, value in linear.named_parameters()}, folder / "model.safetensors"
    )
    config = {"in_features": n_in, "out_features": n_out, "bias": True, "activation_function": activation}
    (folder / "config.json").write_text(json.dumps(config))
    return linear
