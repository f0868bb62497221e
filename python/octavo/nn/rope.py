"""Frequencies of rotary position embeddings (Su et al. 2021, https://arxiv.org/abs/2104.09864) and their scalings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelError

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rope:
    """How a model rotates queries and keys.

    Attributes:
        parameters: Canonical rope parameters (octavo.rope_parameters).
        head_dim: Dimensions of a head; of these partial_rotary_factor are rotated.
    """

    parameters: Mapping[str, Any]
    head_dim: int

    @property
    def freq_factors(self) -> str | None:
        """The name of a tensor (rotated dims / 2,) that divides the frequencies, if the file has one."""
        return self.parameters.get("freq_factors")

    def frequencies(self) -> _Floats:
        """(rotated dims / 2,) radians per position.

        Raises:
            ModelError: the scaling is of a type octavo cannot run.
        """
        kind = self.parameters["rope_type"]
        base = _base_frequencies(self.parameters, self.head_dim)
        if kind == "default" or self.freq_factors is not None:
            return base
        if kind == "linear":
            stretched: _Floats = (base / np.float32(self.parameters["factor"])).astype(np.float32)
            return stretched
        if kind == "llama3":
            return _llama3(base, self.parameters)
        raise ModelError(f"This model scales its RoPE by {kind!r}; octavo runs default, linear and llama3.")


def _base_frequencies(parameters: Mapping[str, Any], head_dim: int) -> _Floats:
    rotated = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
    exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated)
    powers = np.power(np.float32(parameters["rope_theta"]), exponents)
    frequencies: _Floats = (np.float32(1.0) / powers).astype(np.float32)
    return frequencies


def _llama3(base: _Floats, parameters: Mapping[str, Any]) -> _Floats:
    """Llama 3.1: long wavelengths are stretched by ``factor``, short ones kept, those between blended."""
    factor, low, high = (parameters[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = parameters["original_max_position_embeddings"]
    wavelengths = (2 * math.pi / base).astype(np.float32)
    smooth = (np.float32(context) / wavelengths - np.float32(low)) / np.float32(high - low)
    blended = (1 - smooth) * base / np.float32(factor) + smooth * base
    stretched = np.where(wavelengths > context / low, base / np.float32(factor), blended)
    result: _Floats = np.where(wavelengths < context / high, base, stretched).astype(np.float32)
    return result
