"""A model's ``config.json``, read with suspicion and brought to one form: a plain dict with Hugging Face's names.

Configs of 2023 and of transformers 5 spell the same things differently, and some families have names of their own for
what the others share. After ``normalize_config`` there is one spelling.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from octavo.checks import shown
from octavo.errors import ModelError
from octavo.pooling.config import PoolerConfig as PoolerConfig  # where scripts look for it
from octavo.rope_parameters import canonical_rope
from octavo.weights.json_file import read_json_object

MAX_CONFIG_BYTES = 16 << 20

# Other names for what Hugging Face's attribute maps call by the name on the right; both are kept.
_ALIASES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "hidden_dim": "intermediate_size",
}
_TASK = re.compile(r"(For[A-Z]\w*|LMHeadModel|Model)$")  # ends the name of an architecture, after its family
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "vocab_size",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "decoder_sparse_step",
)
_NUMBERS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
_METHOD_NAMES = {"gptq": "GPTQ", "awq": "AWQ", "bitsandbytes": "bitsandbytes", "fp8": "FP8", "fbgemm_fp8": "FP8"}
_INSTEAD = "use a GGUF of the model (owner/repo:Q4_K_M) or its unquantised checkpoint instead"


def load_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` as it stands.

    Raises:
        ModelError: there is no such file, it is too large, or it holds no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json; fetch it into the folder, or name a folder in HF layout.")
    return read_json_object(path, max_bytes=MAX_CONFIG_BYTES)


def check_architecture(config: dict[str, Any], supported: Collection[str]) -> str:
    """The first architecture in the config that is supported.

    Raises:
        ModelError: there is none; the sentence lists the families that are supported.
    """
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    known = next((name for name in names if name in supported), None)
    if known is None:
        asked = f"the architecture {', '.join(names)}" if names else "no architecture"
        families = sorted({_TASK.sub("", name) for name in supported})
        raise ModelError(f"config.json names {asked}; octavo runs the families {', '.join(families)}.")
    return known


def normalize_config(config: dict[str, Any], defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A copy of the config in canonical form; doing it twice changes nothing.

    - ``text_config`` is lifted to the top, over what is there; parts for other modalities are dropped.
    - ``quantization_config`` replaces the ``aqlm`` of the first AQLM checkpoints; no other method is run.
    - ``dtype`` replaces ``torch_dtype``: "bfloat16", "float16", "float32", ... or None.
    - ``rope_parameters`` replaces ``rope_theta`` and ``rope_scaling``; see octavo.rope_parameters.
    - ``hidden_size`` and its like are there for families with other names, ``num_key_value_heads`` defaults to the
      number of heads, ``head_dim`` to hidden_size / heads.

    Args:
        defaults: What the model's family takes for keys that are missing.

    Raises:
        ModelError: the checkpoint is quantised by a method octavo does not run, or a value makes no sense.
    """
    result = _with_aqlm_of_2024({**(defaults or {}), **_lift_text_config(config)})
    _refuse_quantisation(result)
    result["dtype"] = _dtype(result)
    result.pop("torch_dtype", None)
    for alias, name in _ALIASES.items():
        if result.get(alias) is not None and result.get(name) is None:
            result[name] = result[alias]
    _check_sizes(result)
    _fill_heads(result)
    return canonical_rope(result)


def _lift_text_config(config: dict[str, Any]) -> dict[str, Any]:
    text = config.get("text_config")
    if text is None:
        return dict(config)
    if not isinstance(text, dict):
        raise ModelError("config.json has a text_config that is no object; fetch the file again.")
    outer = {key: value for key, value in config.items() if not key.endswith("_config") or key == "quantization_config"}
    inner = {key: value for key, value in text.items() if value is not None or key not in outer}
    return {**outer, **inner, "architectures": config.get("architectures")}


def _with_aqlm_of_2024(config: dict[str, Any]) -> dict[str, Any]:
    """The first AQLM checkpoints named a model type of their own and had no quantization_config."""
    if "aqlm" not in config:
        return config
    model_type = str(config.get("model_type")).removesuffix("_aqlm")
    rest = {key: value for key, value in config.items() if key != "aqlm"}
    return {"quantization_config": {"quant_method": "aqlm"}, **rest, "model_type": model_type}


def _refuse_quantisation(config: dict[str, Any]) -> None:
    quantisation = config.get("quantization_config")
    if quantisation is None:
        return
    if not isinstance(quantisation, dict):
        raise ModelError("config.json has a quantization_config that is no object; fetch the file again.")
    method = _method(quantisation)
    if method == "aqlm":
        return
    name = _METHOD_NAMES.get(method, method)
    raise ModelError(f"This checkpoint is quantised with {name}, which octavo does not run; {_INSTEAD}.")


def _method(quantisation: dict[str, Any]) -> str:
    """The quantisation method; bitsandbytes' first configs leave it out."""
    if quantisation.get("load_in_4bit") or quantisation.get("load_in_8bit"):
        return "bitsandbytes"
    return str(quantisation.get("quant_method") or "an unnamed method").lower()


def _dtype(config: dict[str, Any]) -> str | None:
    dtype = config.get("dtype")
    if dtype is None:
        dtype = config.get("torch_dtype")
    if dtype is not None and not isinstance(dtype, str):
        raise ModelError(f"config.json gives {shown(dtype)} for dtype, where a name such as 'bfloat16' was expected.")
    return dtype.removeprefix("torch.") if dtype else None


def _check_sizes(config: dict[str, Any]) -> None:
    for name in _SIZES:
        value = config.get(name)
        if value is not None and (type(value) is not int or not 0 < value < 2**31):
            raise ModelError(
                f"config.json gives {shown(value)} for {name}, where a positive integer was expected; fetch the file "
                "again."
            )
    for name in _NUMBERS:
        value = config.get(name)
        if value is not None and (type(value) not in (int, float) or not 0 <= value < 1):
            raise ModelError(
                f"config.json gives {shown(value)} for {name}, where a small number was expected; fetch the file again."
            )


def _fill_heads(config: dict[str, Any]) -> None:
    heads = config.get("num_attention_heads")
    if heads is None:
        return
    if config.get("num_key_value_heads") is None:
        config["num_key_value_heads"] = heads
    if heads % config["num_key_value_heads"]:
        raise ModelError(
            f"config.json gives {heads} attention heads and {config['num_key_value_heads']} key-value heads; the first "
            "must be a multiple of the second."
        )
    if config.get("head_dim") is None and config.get("hidden_size") is not None:
        config["head_dim"] = _head_dim(config["hidden_size"], heads)


def _head_dim(hidden_size: int, heads: int) -> int:
    if hidden_size % heads:
        raise ModelError(
            f"config.json gives a hidden_size of {hidden_size} for {heads} heads and no head_dim; the first must be a "
            "multiple of the second."
        )
    return hidden_size // heads
