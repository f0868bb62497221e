"""A model's config as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.errors import ModelError


@dataclass(frozen=True)
class ModelConfig:
    """Attribute access to a normalised ``config.json`` (octavo.config.normalize_config)."""

    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise ModelError(f"config.json lacks {name!r}, which this model needs; fetch the file again.") from None

    def get(self, name: str, default: Any) -> Any:
        """The value of ``name``, or ``default`` where it is missing or null."""
        value = self.values.get(name)
        return default if value is None else value

    def require(self, name: str, expected: Any) -> None:
        """Raises ModelError when the config asks for something else than ``expected``, the model's only way."""
        value = self.get(name, expected)
        if value != expected:
            raise ModelError(
                f"config.json gives {value!r} for {name}, but octavo runs this model with {expected!r} only."
            )
