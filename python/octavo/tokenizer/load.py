"""Loads a tokenizer from a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import os
from pathlib import Path

from octavo.errors import ModelError
from octavo.tokenizer.from_folder import parts_from_folder
from octavo.tokenizer.from_gguf import parts_from_gguf
from octavo.tokenizer.tokenizer import Tokenizer
from octavo.weights.gguf import GGUFFile


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Load the tokenizer of ``path``: a GGUF file, with or without tensors, or a folder of a Hugging Face model.

    Raises:
        ModelError: there is no tokenizer at ``path``, or it is damaged or of an unknown kind.
    """
    path = Path(path)
    if path.is_dir():
        return Tokenizer(parts_from_folder(path))
    if not path.exists():
        raise ModelError(f"{path} does not exist; give a GGUF file or the folder of a model.")
    file = GGUFFile(path)
    try:
        return tokenizer_from_gguf(file)
    finally:
        file.close()


def tokenizer_from_gguf(file: GGUFFile) -> Tokenizer:
    """The tokenizer of a file that is already open.

    Raises:
        ModelError: the file has no tokenizer, or one that is damaged or of an unknown kind.
    """
    return Tokenizer(parts_from_gguf(file.metadata, str(file.path)))
