"""An AQLM checkpoint of a Hugging Face folder, in the layout of the published ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from octavo.errors import InvalidInputError
from octavo.quantize.additive import Scheme, quantise, relative_error
from octavo.quantize.calibrate import Calibration, Layer
from octavo.quantize.codes import GROUP
from octavo.weights.tensor import SourceTensor

# Matrices of numbered layers are linears, but for routers, which stay exact.
_LINEAR = re.compile(r"(?P<layer>.+?\.\d+)\..+\.weight")
_ROUTER = re.compile(r".*(\.gate|\.router|_gate)\.weight")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TIED_HEAD = "lm_head.weight"  # in no checkpoint, but transformers would replace it, too
_COPIED = ("*.json", "*.model", "*.txt", "*.jinja")
_WRITTEN = ("config.json", "*.index.json")  # copies of which would be wrong


@dataclass
class Totals:
    """What became of the quantised matrices."""

    matrices: int = 0
    weights: int = 0
    bits: int = 0
    error: float = 0.0  # sum over matrices of the square of their relative error

    @property
    def bits_per_weight(self) -> float:
        """Codes, codebooks and scales."""
        return self.bits / self.weights

    @property
    def relative_error(self) -> float:
        """Root mean square over the matrices of their outputs' error, as a share of the outputs."""
        return float((self.error / self.matrices) ** 0.5)


def write_aqlm(
    tensors: Iterable[SourceTensor],
    folder: Path,
    out: Path,
    scheme: Scheme,
    sequences: Callable[[], Sequence[Sequence[int]]],
    progress: Callable[[list[SourceTensor]], Iterable[SourceTensor]],
) -> Totals:
    """Quantises the linears among ``tensors``, which are those of ``folder``, and writes the checkpoint ``out``.

    Args:
        sequences: Makes the token ids to calibrate with, all of one length.
        progress: Goes through the linears, showing how far it is.

    Raises:
        InvalidInputError: there is no linear to quantise, a codebook would be larger than its matrix, or the model
            cannot be calibrated.
    """
    tensors = list(tensors)
    _check(tensors, scheme)
    linears = sorted(filter(_is_linear, tensors), key=_number)
    kept = [tensor for tensor in tensors if not _is_linear(tensor)]
    totals, state = Totals(), {tensor.name: _dense(tensor) for tensor in kept}
    calibration = Calibration(folder, list(dict.fromkeys(map(_layer, linears))), sequences())
    for name, members in groupby(progress(linears), key=_layer):
        with calibration.layer(name) as layer:
            for tensor in members:
                state.update(_quantised(tensor, scheme, layer, totals))
    _write(state, folder, out, _quantization_config(scheme, [tensor.name for tensor in kept]))
    return totals


def _is_linear(tensor: SourceTensor) -> bool:
    is_matrix = len(tensor.shape) == 2 and _LINEAR.fullmatch(tensor.name) is not None
    return is_matrix and not _ROUTER.fullmatch(tensor.name)


def _layer(linear: SourceTensor) -> str:
    """The module of the numbered layer that a linear is in."""
    found = _LINEAR.fullmatch(linear.name)
    assert found is not None
    return found["layer"]


def _number(linear: SourceTensor) -> int:
    return int(_layer(linear).rpartition(".")[2])


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


def _quantised(tensor: SourceTensor, scheme: Scheme, layer: Layer, totals: Totals) -> dict[str, Any]:
    import torch

    weight, name = _dense(tensor).float(), tensor.name.removesuffix(".weight")
    hessian = layer.hessian(name)
    found = quantise(weight, scheme, hessian)
    approximation = found.weights()
    layer.replace(name, approximation)
    totals.matrices += 1
    totals.weights += weight.numel()
    totals.bits += found.codes.numel() * scheme.bits + 16 * (found.vectors.numel() + found.scales.numel())
    totals.error += relative_error(weight, approximation, hessian) ** 2
    integers = torch.int8 if scheme.bits <= 8 else torch.int16
    return {
        f"{name}.codes": found.codes.to(integers),  # the upper half wraps around to negative numbers
        f"{name}.codebooks": found.vectors[:, :, None].contiguous(),
        f"{name}.scales": found.scales[:, None, None, None].contiguous(),
    }


def _quantization_config(scheme: Scheme, kept: list[str]) -> dict[str, Any]:
    """As transformers reads it; version 5 compares with names of modules, earlier ones with names of parameters."""
    kept = list(dict.fromkeys([*kept, _TIED_HEAD]))
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
