"""PyTorch ``.bin`` checkpoints, through torch's own loader restricted to tensors.

torch is imported here alone, and only when such a file is opened.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from octavo.errors import ModelError
from octavo.weights.safetensors import StoredTensor

_DTYPE_NAMES = {
    "torch.bool": "BOOL",
    "torch.uint8": "U8",
    "torch.int8": "I8",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.int16": "I16",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int32": "I32",
    "torch.float32": "F32",
    "torch.int64": "I64",
    "torch.float64": "F64",
}


def open_torch_bin(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Load ``.bin`` checkpoints and return their tensors by name; files in torch's zip format are mapped.

    Raises:
        ModelError: torch is not installed, a file is damaged or holds more than tensors, or two files hold a tensor
            of the same name.
    """
    torch = _import_torch()
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        for name, value in _load(torch, path).items():
            if name in tensors:
                raise ModelError(f"{path} holds {name!r}, which an earlier shard holds too; fetch the shards again.")
            tensors[name] = _stored(torch, path, name, value)
    return tensors


def _import_torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ModelError(
            "Reading .bin checkpoints needs PyTorch, which is not installed; run 'pip install torch', or use a "
            "checkpoint in safetensors or GGUF form."
        ) from error


def _load(torch: Any, path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ... on bad files
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path} is not a PyTorch checkpoint of plain tensors ({reason}); fetch it again.") from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ModelError(f"{path} holds no dictionary of named tensors; export the model's state_dict instead.")
    return state


def _stored(torch: Any, path: Path, name: str, value: Any) -> StoredTensor:
    dtype = _DTYPE_NAMES.get(str(getattr(value, "dtype", None)))
    if not torch.is_tensor(value) or dtype is None or value.layout != torch.strided:
        kind = getattr(value, "dtype", type(value).__name__)
        raise ModelError(f"{path} holds {name!r} as {kind}, not as a dense tensor of a known dtype; convert the file.")
    flat = value.detach().contiguous().flatten().view(torch.uint8)  # (n_bytes,)
    return StoredTensor(name, dtype, tuple(value.shape), memoryview(flat.numpy()))
