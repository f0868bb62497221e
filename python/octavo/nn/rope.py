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

    def arguments(self, freq_factors: _Floats | None = None) -> dict[str, Any]:
        """What the core's rope is made of: frequencies in radians per position, one for each rotated pair.

        Args:
            freq_factors: (rotated dims / 2,) values that divide the frequencies instead of any scaling.
        """
        p, base = self.parameters, _base_frequencies(self.parameters, self.head_dim)
        kind = "default" if freq_factors is not None else p["rope_type"]
        made: dict[str, Any] = {"scale": 1.0, "switch_length": 0, "long_inv_freq": []}
        made |= {"ntk_theta": 0.0, "ntk_factor": 1.0}
        frequencies = base if freq_factors is None else base / freq_factors
        if kind == "linear":
            frequencies = base / np.float32(p["factor"])
        elif kind == "llama3":
            frequencies = _llama3(base, p)
        elif kind == "yarn":
            frequencies, made["scale"] = _yarn(base, p)
        elif kind == "dynamic":
            made |= {"ntk_theta": p["rope_theta"], "ntk_factor": p["factor"]}
            made["switch_length"] = p["original_max_position_embeddings"]
        elif kind == "longrope":
            frequencies = _divided(base, p, "short_factor")
            made["long_inv_freq"] = _divided(base, p, "long_factor").tolist()
            made["switch_length"] = p["original_max_position_embeddings"]
            made["scale"] = _longrope_scale(p)
        return {"inv_freq": frequencies.astype(np.float32).tolist(), **made}


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


def _yarn(base: _Floats, p: Mapping[str, Any]) -> tuple[_Floats, float]:
    """YaRN (https://arxiv.org/abs/2309.00071): frequencies, and what scales cos and sin."""
    factor, context = p["factor"], p["original_max_position_embeddings"]
    half, theta = len(base), p["rope_theta"]

    def dimension(rotations: float) -> float:  # where a pair turns this often over the original context
        return 2 * half * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(p.get("beta_fast") or 32), dimension(p.get("beta_slow") or 1)
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    ramp = (np.arange(half, dtype=np.float32) - np.float32(low)) / np.float32(max(high - low, 0.001))
    kept = 1 - np.clip(ramp, 0, 1)
    blended: _Floats = (base / np.float32(factor) * (1 - kept) + base * kept).astype(np.float32)
    return blended, _yarn_scale(p)


def _yarn_scale(p: Mapping[str, Any]) -> float:
    if p.get("attention_factor") is not None:
        return float(p["attention_factor"])

    def magnitude(weight: float) -> float:
        return 1.0 if p["factor"] <= 1 else 0.1 * weight * math.log(p["factor"]) + 1.0

    if p.get("mscale") and p.get("mscale_all_dim"):
        return magnitude(p["mscale"]) / magnitude(p["mscale_all_dim"])
    return magnitude(1.0)


def _divided(base: _Floats, p: Mapping[str, Any], key: str) -> _Floats:
    """LongRoPE (https://arxiv.org/abs/2402.13753): a factor for each pair."""
    factors = np.asarray(p[key], dtype=np.float32)
    if factors.shape != base.shape:
        raise ModelError(f"config.json has {len(factors)} numbers in {key}, expected {len(base)}; fetch it again.")
    divided: _Floats = (base / factors).astype(np.float32)
    return divided


def _longrope_scale(p: Mapping[str, Any]) -> float:
    if p.get("attention_factor") is not None:
        return float(p["attention_factor"])
    factor = p["factor"]
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(p["original_max_position_embeddings"]))
