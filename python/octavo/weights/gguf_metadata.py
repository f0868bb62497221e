"""The metadata of a GGUF file, with its types checked."""

from __future__ import annotations

import numpy as np

from octavo.checks import shown
from octavo.errors import ModelError
from octavo.weights.gguf import GGUFFile

_MAX_COUNT = 1 << 31

# What files that are no models hold, by their 'general.type'.
_NO_MODELS = {
    "adapter": "a LoRA adapter; merge it into its model first",
    "imatrix": "llama-imatrix's calibration data; give the model that was made with it",
    "mmproj": "a projector of images or sound; give the model that it belongs to",
}


class MetadataReader:
    """Looks up the keys of the file's own architecture and checks their types."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.name = self._architecture_name()

    def _architecture_name(self) -> str:
        kind = self.file.metadata.get("general.type")
        if isinstance(kind, str) and kind in _NO_MODELS:
            raise ModelError(f"{self.file.path} is no model: it holds {_NO_MODELS[kind]}.")
        name = self.file.metadata.get("general.architecture")
        if not isinstance(name, str):
            raise ModelError(f"{self.file.path} lacks the metadata key 'general.architecture'; download it again.")
        return name

    def has(self, key: str) -> bool:
        """Whether there is ``{architecture}.{key}``."""
        return f"{self.name}.{key}" in self.file.metadata

    def number(self, key: str, default: float | None = None) -> float:
        """The number at ``{architecture}.{key}``; without a default the key must be there."""
        full_key = f"{self.name}.{key}"
        value, where = self.file.metadata.get(full_key, default), f"the metadata key {shown(full_key)}"
        if value is None:
            raise ModelError(f"{self.file.path} lacks {where}; download or convert it again.")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ModelError(f"{self.file.path} holds no number at {where}; convert it again.")
        return _shortest(value) if isinstance(value, float) else value

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """The size at ``{architecture}.{key}``, no less than ``least``."""
        value = self.number(key, default)
        if not isinstance(value, int) or not least <= value <= _MAX_COUNT:
            raise ModelError(
                f"{self.file.path} holds {value} as {shown(f'{self.name}.{key}')}, which is no size; download it again."
            )
        return value

    def text(self, key: str, default: str) -> str:
        """The string at ``{architecture}.{key}``."""
        value = self.file.metadata.get(f"{self.name}.{key}", default)
        return value if isinstance(value, str) else default

    def flag(self, key: str, default: bool) -> bool:
        """The truth value at ``{architecture}.{key}``."""
        value = self.file.metadata.get(f"{self.name}.{key}", default)
        return value if isinstance(value, bool) else default


def _shortest(value: float) -> float:
    """The float with the fewest digits that is the same in 32 bits: 1e-05 instead of 9.999999747378752e-06."""
    return float(str(np.float32(value)))
