"""Smallest files that pass for models in tests of names and fetching: nothing here can be run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

GGUF = b"GGUF\x03\x00\x00\x00"
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"

TOKENIZER: dict[str, bytes] = {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}
HF_MODEL: dict[str, bytes] = {
    **TOKENIZER,
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode(),
    "generation_config.json": b"{}",
    "model.safetensors": SAFETENSORS,
}


def index(*shards: str) -> bytes:
    """A weight index with one tensor in each shard."""
    return json.dumps({"weight_map": {f"tensor{i}": shard for i, shard in enumerate(shards)}}).encode()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder, which is made where it is not there."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
