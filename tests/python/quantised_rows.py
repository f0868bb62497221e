"""Rows of weights in any type of GGUF, for files that tests write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo import _core

Bytes = npt.NDArray[np.uint8]

FITTED = ("Q4_K", "Q5_K", "Q6_K")  # which the gguf package does not write
RANDOM = ("IQ2_XXS", "IQ2_S", "IQ3_S", "IQ4_XS", "IQ4_NL", "NVFP4")  # which nobody here does


def random_rows(random: np.random.Generator, kind: str, n: int, k: int, scale: float) -> Bytes:
    """(n, bytes of a row) of about normal weights with the standard deviation ``scale``."""
    import gguf

    if kind in RANDOM:
        return _random_blocks(random, kind, n * k, scale).reshape(n, -1)
    values = (random.standard_normal((n, k)) * scale).astype(np.float32)
    if kind in FITTED:
        return _core.quantize(kind, values.ravel()).reshape(n, -1)
    rows: Bytes = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]).view(np.uint8).reshape(n, -1)
    return rows


def _random_blocks(random: np.random.Generator, kind: str, n_weights: int, scale: float) -> Bytes:
    """Blocks of any bits but those of their scale."""
    import gguf

    size, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = random.integers(0, 256, (n_weights // size, n_bytes), dtype=np.uint8)
    if kind == "NVFP4":
        first = 7 * 8 + int(8 * np.log2(scale / 3))  # E4M3, whose 7 * 8 is 1; E2M1 has a deviation of 3
        blocks[:, :4] = random.integers(max(first, 1), max(first, 1) + 4, (len(blocks), 4))
        return blocks
    blocks[:, :2] = np.frombuffer(np.float16(1).tobytes(), np.uint8)
    spread = float(_core.dequantize(kind, blocks.ravel(), n_weights).std())
    blocks[:, :2] = np.frombuffer(np.float16(scale / spread).tobytes(), np.uint8)
    return blocks


def add_layer(
    writer: Any, random: np.random.Generator, layer: int, matrices: Mapping[str, tuple[str, int, int]], hidden: int
) -> None:
    """Gives a GGUFWriter a layer of (type, n, k) by name, and its norms."""
    for name, (kind, n, k) in matrices.items():
        add_rows(writer, random, f"blk.{layer}.{name}.weight", kind, n, k, k**-0.5)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(hidden, np.float32))


def write(writer: Any) -> None:
    """The file of a GGUFWriter that has everything."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_rows(writer: Any, random: np.random.Generator, name: str, kind: str, n: int, k: int, scale: float) -> None:
    """Gives a GGUFWriter the tensor ``name``, of random_rows()."""
    import gguf

    rows: Any = random_rows(random, kind, n, k, scale)
    if kind in ("F32", "F16"):  # whose shape the writer takes as it is
        rows = rows.view(np.float32 if kind == "F32" else np.float16)
    writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType[kind])
