"""Small random models in AQLM as it is published, with dense twins whose weights the aqlm package dequantised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEPT = ("embed_tokens", "lm_head", "norm", ".gate.")


@dataclass(frozen=True)
class Scheme:
    """How matrices are stored: ``codebooks`` x ``bits``, a code for ``group`` weights."""

    codebooks: int
    bits: int
    group: int = 8


def make_aqlm(folder: Path, dense: Path, scheme: Scheme, *, legacy: bool = False, seed: int = 0) -> Path:
    """Writes the model of the folder ``dense`` with random codes for its linears, whose weights have the same spread.

    Args:
        legacy: Spell config.json as the first AQLM checkpoints did, sizes of groups the wrong way round.
    """
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for path in sorted(dense.glob("*.safetensors")):
        for name, weight in load_file(path).items():
            if _is_kept(name) or not name.endswith(".weight"):
                tensors[name] = weight.half()
            else:
                parts = _random_aqlm(weight, scheme, generator)
                tensors |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((dense / "config.json").read_text())
    kept = [name for name in tensors if _is_kept(name)]
    (folder / "config.json").write_text(json.dumps({**config, **_quantisation(config, scheme, kept, legacy)}))
    return folder


def _is_kept(name: str) -> bool:
    return any(part in name for part in _KEPT)


def _random_aqlm(weight: Any, scheme: Scheme, generator: Any) -> dict[str, Any]:
    import torch
    from aqlm.utils import pack_int_data

    n, k = weight.shape
    size = 1 << scheme.bits
    codes = torch.randint(size, (n, k // scheme.group, scheme.codebooks), generator=generator)
    books = torch.randn(scheme.codebooks, size, 1, scheme.group, generator=generator) * scheme.codebooks**-0.5
    scales = float(weight.std()) * (0.5 + torch.rand(n, 1, 1, 1, generator=generator))
    return {"codes": pack_int_data(codes, scheme.bits), "codebooks": books.half(), "scales": scales.half()}


def _quantisation(config: Mapping[str, Any], scheme: Scheme, kept: list[str], legacy: bool) -> dict[str, Any]:
    sizes = {"nbits_per_codebook": scheme.bits, "num_codebooks": scheme.codebooks}
    if legacy:
        return {
            "model_type": f"{config['model_type']}_aqlm",
            "aqlm": {**sizes, "in_group_size": 1, "out_group_size": scheme.group},
        }
    groups = {"in_group_size": scheme.group, "out_group_size": 1}
    # transformers 5 compares names of modules with this list of names of parameters, and so needs both.
    kept = [*kept, *(name.removesuffix(".weight") for name in kept)]
    return {"quantization_config": {"quant_method": "aqlm", **sizes, **groups, "linear_weights_not_to_quantize": kept}}


def dequantise(folder: Path, into: Path) -> Path:
    """The same model in float32, dequantised by the aqlm package."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    linears = [name.removesuffix(".codes") for name in tensors if name.endswith(".codes")]
    for name in linears:
        parts = [tensors.pop(f"{name}.{part}") for part in ("codes", "codebooks", "scales")]
        tensors[f"{name}.weight"] = aqlm_weight(*parts)
    save_file({name: value.float() for name, value in tensors.items()}, into / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("quantization_config", "aqlm")}
    config["model_type"] = config["model_type"].removesuffix("_aqlm")
    (into / "config.json").write_text(json.dumps(config))
    return into


def aqlm_weight(codes: Any, codebooks: Any, scales: Any) -> Any:
    """The matrix by the aqlm package, in float32."""
    from aqlm.utils import _dequantize_weight, unpack_int_data

    bits = codebooks.shape[1].bit_length() - 1
    return _dequantize_weight(unpack_int_data(codes, bits), codebooks.float(), scales.float())
