"""AQLM checkpoints (https://arxiv.org/abs/2401.06118): matrices stored as codes, codebooks and the rows' scales.

A linear ``x`` has, in place of ``x.weight`` (rows, columns):

    x.codes      (rows, columns / group, codebooks)   int8 up to 8 bits, else int16; wrapped around to negative numbers
    x.codebooks  (codebooks, 2**bits, 1, group)       half
    x.scales     (rows, 1, 1, 1)                      half

Source: https://github.com/Vahe1994/AQLM, inference_lib. The config repeats these sizes; some published ones are wrong,
so it is not asked: the tensors' own shapes say all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo import _core
from octavo.errors import ModelError
from octavo.weights.tensor import Codebooks, SourceTensor

FORMAT = "AQLM"
_SUFFIXES = (".codes", ".codebooks", ".scales")
_DENSE = ("F32", "F16", "BF16")
_CODE_BITS = {"I8": (1, 8), "I16": (9, 16)}  # from, to

Shape = tuple[int, int, int, int, int]  # rows, columns, group, codebooks, bits of a code


def with_aqlm(tensors: Mapping[str, SourceTensor]) -> dict[str, SourceTensor]:
    """The tensors with each three of an AQLM linear as one: its weight, in the format AQLM.

    Raises:
        ModelError: one of the three is missing, their shapes do not fit together, or octavo does not run such ones.
    """
    linears = dict.fromkeys(name.rpartition(".")[0] for name in tensors if name.endswith((".codes", ".codebooks")))
    joined = {f"{name}.weight": _joined(name, tensors) for name in linears}
    parts = {f"{name}{suffix}" for name in linears for suffix in _SUFFIXES}
    return {**{name: tensor for name, tensor in tensors.items() if name not in parts}, **joined}


def shape_of(matrix: SourceTensor) -> Shape:
    """What the core wants to know of an AQLM matrix."""
    assert matrix.aqlm is not None
    n_codebooks, size, _, group = matrix.aqlm.vectors.shape
    return matrix.shape[0], matrix.shape[1], group, n_codebooks, size.bit_length() - 1


def floats_of(tensor: SourceTensor) -> npt.NDArray[np.float32]:
    """The values of a dense tensor, flat."""
    values: npt.NDArray[np.float32] = _core.dequantize(tensor.format, tensor.data, math.prod(tensor.shape))
    return values


def take_rows(matrix: SourceTensor, rows: Any) -> Codebooks | None:
    """What goes with some of the rows; None where the matrix is not AQLM."""
    if matrix.aqlm is None:
        return None
    scales = floats_of(matrix.aqlm.scales)[rows]
    return replace(
        matrix.aqlm, scales=replace(matrix.aqlm.scales, format="F32", shape=scales.shape, data=scales, mapped=False)
    )


def _joined(name: str, tensors: Mapping[str, SourceTensor]) -> SourceTensor:
    missing = next((suffix for suffix in _SUFFIXES if f"{name}{suffix}" not in tensors), None)
    if missing is not None:
        raise ModelError(f"The checkpoint lacks the tensor '{name}{missing}'; fetch the model again.")
    codes, vectors, scales = (tensors[f"{name}{suffix}"] for suffix in _SUFFIXES)
    _check(name, codes, vectors, scales)
    n, n_groups, _ = codes.shape
    shape = (n, n_groups * vectors.shape[3])
    return SourceTensor(f"{name}.weight", FORMAT, shape, codes.data, codes.mapped, aqlm=Codebooks(vectors, scales))


def _check(name: str, codes: SourceTensor, vectors: SourceTensor, scales: SourceTensor) -> None:
    shapes = f"codes {codes.shape}, codebooks {vectors.shape} and scales {scales.shape}"
    if len(codes.shape) != 3 or len(vectors.shape) != 4 or codes.shape[2] != vectors.shape[0]:
        raise ModelError(f"{name} has AQLM {shapes}, which do not fit together; fetch the model again.")
    if vectors.shape[2] != 1:
        raise ModelError(
            f"{name} is AQLM with codes for {vectors.shape[2]} rows at a time (out_group_size), where octavo runs only "
            "those for one; use a checkpoint with out_group_size 1, as the published ones have."
        )
    size = vectors.shape[1]
    least, most = _CODE_BITS.get(codes.format, (1, 0))
    if not (size & (size - 1) == 0 and least <= size.bit_length() - 1 <= most):
        raise ModelError(
            f"{name} has AQLM codes stored as {codes.format} for codebooks of {size} vectors, expected a power of two "
            "up to 256 with I8, or up to 65536 with I16; fetch the model again."
        )
    if math.prod(scales.shape) != codes.shape[0] or not {vectors.format, scales.format} <= set(_DENSE):
        raise ModelError(f"{name} has AQLM {shapes}, expected a scale in floats for each row; fetch the model again.")
