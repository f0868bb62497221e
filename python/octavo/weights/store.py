"""Weights on their way into the core: which format each is computed in, and who still has to be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from octavo import _core
from octavo.errors import ModelError
from octavo.weights.source import Checkpoint, SourceTensor

_DENSE = ("F32", "F16", "BF16")
_DTYPE_FORMATS = {"float32": "F32", "float": "F32", "bfloat16": "BF16", "float16": "F16", "half": "F16"}


def target_format(source: str, dtype: str, *, gguf: bool) -> str:
    """The format a matrix is computed in.

    "auto" takes what the file holds; float32 checkpoints (but not GGUFs) become BF16. "float32" is exact: everything
    is dequantised. Other dtypes apply to dense weights.
    """
    if dtype == "auto":
        return "BF16" if source == "F32" and not gguf else source
    wanted = _DTYPE_FORMATS[dtype]
    return wanted if wanted == "F32" or source in _DENSE else source


class WeightLoader:
    """Gives modules the ids of their weights in the core's store, loading each the first time it is asked for."""

    def __init__(
        self, checkpoint: Checkpoint, n_threads: int, dtype: str, *, gguf: bool, progress: Callable[[int], None]
    ) -> None:
        self.store = _core.WeightStore(n_threads)
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._gguf = gguf
        self._progress = progress
        self._formats = {row["name"] for row in _core.formats()}
        self._ids: dict[tuple[str, str], int] = {}
        self.embedding_rows = 0  # of the table that was loaded last

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds ``name``."""
        return name in self._checkpoint

    def linear(self, name: str) -> int:
        """A matrix, repacked for the kernels."""

        def add(tensor: SourceTensor) -> int:
            n, k = self._matrix_shape(tensor)
            target = target_format(tensor.format, self._dtype, gguf=self._gguf)
            added: int = self.store.add_linear(name, tensor.format, n, k, tensor.data, target, tensor.mapped)
            return added

        return self._load("linear", name, add)

    def embedding(self, name: str) -> int:
        """A table whose rows stay in the file."""

        def add(tensor: SourceTensor) -> int:
            n, k = self._matrix_shape(tensor)
            self.embedding_rows = n
            added: int = self.store.add_embedding(name, tensor.format, n, k, tensor.data)
            return added

        return self._load("embedding", name, add)

    def vector(self, name: str) -> int:
        """A vector, as floats."""

        def add(tensor: SourceTensor) -> int:
            added: int = self.store.add_vector(name, tensor.format, int(np.prod(tensor.shape)), tensor.data)
            return added

        return self._load("vector", name, add)

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """The values of a small tensor."""
        tensor = self._tensor(name)
        values: npt.NDArray[np.float32] = _core.dequantize(tensor.format, tensor.data, int(np.prod(tensor.shape)))
        return values

    def check_complete(self, ignored: tuple[str, ...]) -> None:
        """Raises ModelError when the checkpoint holds tensors that the model has no use for."""
        patterns = [re.compile(pattern) for pattern in ignored]
        left = [name for name in self._checkpoint.unused() if not any(p.fullmatch(name) for p in patterns)]
        if left:
            shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
            raise ModelError(
                f"{self._checkpoint.origin} holds tensors that this architecture has no use for ({shown}); its config "
                "and its weights do not belong together."
            )

    def _load(self, kind: str, name: str, add: Callable[[SourceTensor], int]) -> int:
        key = (kind, name)
        if key not in self._ids:
            tensor = self._tensor(name)
            self._ids[key] = add(tensor)
            self._progress(memoryview(tensor.data).nbytes)
        return self._ids[key]

    def _tensor(self, name: str) -> SourceTensor:
        tensor = self._checkpoint.get(name)
        if tensor.format not in self._formats:
            known = ", ".join(sorted(self._formats))
            raise ModelError(f"{name} is stored as {tensor.format}, which octavo cannot read; it reads {known}.")
        return tensor

    def _matrix_shape(self, tensor: SourceTensor) -> tuple[int, int]:
        if len(tensor.shape) != 2:
            raise ModelError(f"{tensor.name} has the shape {tensor.shape}, where a matrix was expected.")
        return tensor.shape[0], tensor.shape[1]
