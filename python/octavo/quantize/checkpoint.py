"""An AQLM checkpoint of a Hugging Face folder, in the layout of the published ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.errors import InvalidInputError
from octavo.quantize.additive import GROUP, Scheme, quantise
from octavo.weights.tensor import SourceTensor

# Matrices of numbered layers are linears, but for routers, which stay exact.
_LINEAR = re.compile(r"(.+\.\d+\..+)\.weight")
_ROUTER = re.compile(r".*(\.gate|\.router|_gate)\.weight")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_COPIED = ("*.json", "*.model", "*.txt", "*.jinja")
_WRITTEN = ("config.json", "*.index.json")  # copies of which would be wrong


@dataclass
class Totals:
    """What became of the quantised matrices."""

    matrices: int = 0
    weights: int = 0
    bits: int = 0
    error: float = 0.0  # sum of squares
    power: float = 0.0

    @property
    def bits_per_weight(self) -> float:
        """Codes, codebooks and scales."""
        return self.bits / self.weights

    @property
    def relative_error(self) -> float:
        """Root mean square of the error, as a share of the weights' own."""
        return float((self.error / self.power) ** 0.5)


def write_aqlm(
    tensors: Iterable[SourceTensor],
    folder: Path,
    out: Path,
    scheme: Scheme,
    progress: Callable[[list[SourceTensor]], Iterable[SourceTensor]],
) -> Totals:
    """Quantises the linears among ``tensors``, which are those of ``folder``, and writes the checkpoint ``out``.

    Args:
        progress: Goes through the tensors, showing how far it is.

    Raises:
        InvalidInputError: there is no linear to quantise, or a codebook would be larger than its matrix.
    """
    tensors = list(tensors)
    _check(tensors, scheme)
    totals, state = Totals(), {}
    for tensor in progress(tensors):
        if _is_linear(tensor):
            state.update(_quantised(tensor, scheme, totals))
        else:
            state[tensor.name] = _dense(tensor)
    kept = [tensor.name for tensor in tensors if not _is_linear(tensor)]
    _write(state, folder, out, _quantization_config(scheme, kept))
    return totals


def _is_linear(tensor: SourceTensor) -> bool:
    is_matrix = len(tensor.shape) == 2 and _LINEAR.fullmatch(tensor.name) is not None
    return is_matrix and not _ROUTER.fullmatch(tensor.name)


def _check(tensors: list[SourceTensor], scheme: Scheme) -> None:
    linears = [tensor for tensor in tensors if _is_linear(tensor)]
    if not linears:
        raise InvalidInputError("The model has no linears in numbered layers, and so nothing to quantise.")
    for tensor in linears:
        n, k = tensor.shape
        if tensor.format not in _DTYPES:
            raise InvalidInputError(f"{tensor.name} is stored as {tensor.format}; give a checkpoint in floats.")
        if k % GROUP:
            raise InvalidInputError(f"{tensor.name} has rows of {k} weights, which are no groups of {GROUP}.")
        if scheme.codebook_weights > n * k:
            raise InvalidInputError(
                f"{tensor.name} has {n * k:,} weights, but its codebooks would have {scheme.codebook_weights:,}; "
                "choose a scheme with fewer bits to a code, such as 2x8."
            )


def _dense(tensor: SourceTensor) -> Any:
    import torch

    values = torch.frombuffer(
        bytearray(memoryview(tensor.data).cast("B")), dtype=getattr(torch, _DTYPES[tensor.format])
    )
    return values.reshape(tensor.shape)


def _quantised(tensor: SourceTensor, scheme: Scheme, totals: Totals) -> dict[str, Any]:
    import torch

    weight = _dense(tensor).float()
    found = quantise(weight, scheme)
    totals.matrices += 1
    totals.weights += weight.numel()
    totals.bits += found.codes.numel() * scheme.bits + 16 * (found.vectors.numel() + found.scales.numel())
    totals.error += float((weight - found.weights()).square().sum(dtype=torch.float64))
    totals.power += float(weight.square().sum(dtype=torch.float64))
    name = tensor.name.removesuffix(".weight")
    integers = torch.int8 if scheme.bits <= 8 else torch.int16
    return {
        f"{name}.codes": found.codes.to(integers),  # the upper half wraps around to negative numbers
        f"{name}.codebooks": found.vectors[:, :, None].contiguous(),
        f"{name}.scales": found.scales[:, None, None, None].contiguous(),
    }


def _quantization_config(scheme: Scheme, kept: list[str]) -> dict[str, Any]:
    """As transformers reads it; version 5 compares with names of modules, earlier ones with names of parameters."""
    names = [*kept, *(name.removesuffix(".weight") for name in kept if name.endswith(".weight"))]
    return {
        "quant_method": "aqlm",
        "nbits_per_codebook": scheme.bits,
        "num_codebooks": scheme.codebooks,
        "in_group_size": GROUP,
        "out_group_size": 1,
        "linear_weights_not_to_quantize": names,
    }


def _write(state: dict[str, Any], folder: Path, out: Path, quantization: dict[str, Any]) -> None:
    from huggingface_hub import save_torch_state_dict

    out.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(state, out, metadata={"format": "pt"})
    for path in sorted({path for pattern in _COPIED for path in folder.glob(pattern)}):
        if path.is_file() and not any(path.match(pattern) for pattern in _WRITTEN):
            shutil.copyfile(path, out / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({**config, "quantization_config": quantization}, indent=2)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
