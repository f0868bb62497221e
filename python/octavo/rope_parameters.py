"""One form for the rotary embedding in a config, whichever era of transformers wrote it.

Until transformers 4 a config has ``rope_theta`` and ``rope_scaling`` (and names of its own for a second frequency);
from 5 on ``rope_parameters``. The canonical form is that of 5::

    {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, ...}

or, where layers differ, one such dict for each of "full_attention" and "sliding_attention". Models without rotary
embeddings ignore it. Source: transformers, modeling_rope_utils.py and the configuration_*.py of the models.
"""

from __future__ import annotations

import math
from typing import Any

from octavo.checks import shown
from octavo.errors import ModelError

# rope_type -> what it cannot do without. "freq_factors" (from a GGUF) stands in for all of them.
ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": ("short_factor", "long_factor", "factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_LISTS = ("short_factor", "long_factor")  # one number for each rotated pair of dimensions
_OPTIONAL = ("factor", "original_max_position_embeddings", "partial_rotary_factor", "beta_fast", "beta_slow")
_LENGTH_TYPES = ("dynamic", "yarn", "longrope")  # scalings that depend on the context's length
_TYPE_ALIASES = {"su": "longrope"}  # Phi-3's first configs

_THETA_KEYS = ("rope_theta", "rotary_emb_base", "global_rope_theta")  # Llama, GPT-NeoX and NomicBERT, ModernBERT
_LOCAL_THETA_KEYS = ("rope_local_base_freq", "local_rope_theta")  # Gemma 3, ModernBERT
_FRACTION_KEYS = ("partial_rotary_factor", "rotary_pct", "rotary_emb_fraction")  # StableLM, GPT-NeoX, NomicBERT
_LEGACY_KEYS = ("rope_scaling", *_THETA_KEYS, *_LOCAL_THETA_KEYS, *_FRACTION_KEYS)

_DEFAULT_THETA = 10000.0
# By model_type, where not the above.
_DEFAULT_THETAS = {"gemma3_text": 1e6, "mixtral": 1e6, "modernbert": 160000.0, "nomic_bert": 1000.0, "smollm3": 2e6}
_DEFAULT_LOCAL_THETAS = {"gemma3_text": 10000.0, "modernbert": 10000.0}


def canonical_rope(config: dict[str, Any]) -> dict[str, Any]:
    """The config with ``rope_parameters`` in canonical form and without the older keys.

    Raises:
        ModelError: an unknown rope type, or a parameter is missing or no number.
    """
    result = {key: value for key, value in config.items() if key not in _LEGACY_KEYS}
    result["rope_parameters"] = _per_layer_kind(config) or _canonical(config, _given(config), _theta(config))
    return result


def _given(config: dict[str, Any]) -> dict[str, Any]:
    """The rope dict of either era; empty where there is none."""
    for key in ("rope_parameters", "rope_scaling"):
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise ModelError(f"config.json has a {key} that is no object; fetch the file again.")
        return value
    return {}


def _per_layer_kind(config: dict[str, Any]) -> dict[str, Any] | None:
    """The canonical form of a model whose full and sliding layers rotate differently, or None."""
    given = _given(config)
    if given and all(isinstance(value, dict) for value in given.values()):
        return {kind: _canonical(config, value, _theta(config)) for kind, value in given.items()}
    local = _first(config, _LOCAL_THETA_KEYS)
    if local is None:
        local = _DEFAULT_LOCAL_THETAS.get(str(config.get("model_type")))
    if local is None:
        return None
    return {
        "full_attention": _canonical(config, given, _theta(config)),
        "sliding_attention": _canonical(config, {}, local),
    }


def _canonical(config: dict[str, Any], given: dict[str, Any], theta: Any) -> dict[str, Any]:
    rope = {"rope_theta": theta, **{key: value for key, value in given.items() if key != "type"}}
    kind = given.get("rope_type") or given.get("type") or "default"
    rope["rope_type"] = _TYPE_ALIASES.get(kind, kind) if isinstance(kind, str) else kind
    fraction = _first(config, _FRACTION_KEYS)
    if fraction is not None:
        rope.setdefault("partial_rotary_factor", fraction)
    _fill_lengths(rope, config)
    _check(rope)
    return rope


def _fill_lengths(rope: dict[str, Any], config: dict[str, Any]) -> None:
    """What scalings know of lengths where the dict itself does not say."""
    if rope["rope_type"] not in _LENGTH_TYPES:
        return
    longest = config.get("max_position_embeddings")
    original = config.get("original_max_position_embeddings") or longest  # Phi-3 has it outside
    if rope["rope_type"] == "dynamic":
        original = longest
        rope["original_max_position_embeddings"] = longest
    elif rope.get("original_max_position_embeddings") is None:
        rope["original_max_position_embeddings"] = original
    known = rope["original_max_position_embeddings"]
    if rope.get("factor") is None and _is_positive(longest) and _is_positive(known):
        rope["factor"] = longest / known


def _check(rope: dict[str, Any]) -> None:
    kind = rope["rope_type"]
    if not isinstance(kind, str) or kind not in ROPE_TYPES:
        raise ModelError(f"config.json asks for RoPE of type {shown(kind)}; octavo knows {', '.join(ROPE_TYPES)}.")
    required = () if "freq_factors" in rope else ROPE_TYPES[kind]
    given = (key for key in _OPTIONAL if rope.get(key) is not None)
    for key in ("rope_theta", *required, *given):
        value = rope.get(key)
        if not (_is_positive_list(value) if key in _LISTS else _is_positive(value)):
            expected = "a list of positive numbers" if key in _LISTS else "a positive number"
            raise ModelError(
                f"config.json gives {shown(value)} for {key} of RoPE type {shown(kind)}, where {expected} was "
                "expected; fetch the file again."
            )


def _theta(config: dict[str, Any]) -> Any:
    theta = _first(config, _THETA_KEYS)
    return _DEFAULT_THETAS.get(str(config.get("model_type")), _DEFAULT_THETA) if theta is None else theta


def _first(config: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((config[key] for key in keys if config.get(key) is not None), None)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _is_positive_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_positive, value))
