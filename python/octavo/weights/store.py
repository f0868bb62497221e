"""Weights on their way into the core: which format each is computed in, and who still has to be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from octavo import _core
from octavo.checks import shown
from octavo.errors import ModelError
from octavo.nn.trace import Part
from octavo.weights import aqlm
from octavo.weights.source import Checkpoint
from octavo.weights.tensor import Codebooks, SourceTensor

_DENSE = ("F32", "F16", "BF16")
_DTYPE_FORMATS = {"float32": "F32", "float": "F32", "bfloat16": "BF16", "float16": "F16", "half": "F16"}


def target_format(source: str, dtype: str, *, keep_float32: bool) -> str:
    """The format a matrix is computed in.

    "auto" takes what the file holds, but makes BF16 of F32 unless that is to be kept. "float32" is exact: everything
    is dequantised. Other dtypes apply to dense weights; AQLM's sums of vectors are bfloat16 in any of them.
    """
    if source == aqlm.FORMAT:
        return "F32" if _DTYPE_FORMATS.get(dtype) == "F32" else "BF16"
    if dtype == "auto":
        return "BF16" if source == "F32" and not keep_float32 else source
    wanted = _DTYPE_FORMATS[dtype]
    return wanted if wanted == "F32" or source in _DENSE else source


class WeightLoader:
    """Gives modules the ids of their weights in the core's store, loading each the first time it is asked for."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        n_threads: int,
        dtype: str,
        *,
        keep_float32: bool,
        progress: Callable[[int], None],
        n_ranks: int = 1,
        offload_bytes: float = 0,
    ) -> None:
        self.store = _core.WeightStore(n_threads, n_ranks)
        self._offload_bytes = offload_bytes  # of linears that may still be left in their files
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._keep_float32 = keep_float32
        self._progress = progress
        self._formats = {row["name"] for row in _core.formats()}
        self._ids: dict[tuple[str, ...], int] = {}
        self.embedding_rows: dict[str, int] = {}  # by what they are taken by: "tokens", "positions", "types"

    def linear(self, part: Part, *, exact: bool = False) -> int:
        """A matrix, repacked for the kernels or left in its file."""
        name = f"{part.name}.weight"

        def add() -> int:
            tensor = matrix_of(self._tensor(name), part)
            n, k = _matrix_shape(tensor)
            dtype = "float32" if exact else self._dtype
            target = target_format(tensor.format, dtype, keep_float32=self._keep_float32)
            if tensor.aqlm is not None:
                return self._add_aqlm(tensor, tensor.aqlm, target)
            if self._stays_in_file(tensor):
                return self.store.leave_linear(name, tensor.format, n, k, tensor.data, target)
            add_matrix = self.store.add_head if part.screened else self.store.add_linear
            added: int = add_matrix(name, tensor.format, n, k, tensor.data, target, tensor.mapped)
            return added

        return self._load(("linear", name, _rows_key(part), str(exact)), add)

    def _add_aqlm(self, tensor: SourceTensor, parts: Codebooks, target: str) -> int:
        floats = aqlm.floats_of(parts.vectors), aqlm.floats_of(parts.scales)
        matrix = (tensor.name, aqlm.shape_of(tensor), tensor.data, *floats)
        if self._stays_in_file(tensor):
            return self.store.leave_aqlm(*matrix, target)
        return self.store.add_aqlm(*matrix, target, tensor.mapped)

    def _stays_in_file(self, tensor: SourceTensor) -> bool:
        n_bytes = memoryview(tensor.data).nbytes
        stays = tensor.mapped and n_bytes <= self._offload_bytes
        if stays:
            self._offload_bytes -= n_bytes
        return stays

    def bias(self, part: Part) -> int:
        """The vector that goes with a matrix."""
        name = f"{part.name}.bias"
        if part.rows is None:
            return self.vector(name)
        return self._load(("bias", name, _rows_key(part)), lambda: self._add_floats(name, self.floats(name)[part.rows]))

    def embedding(self, name: str, source: str) -> int:
        """A table whose rows stay in the file."""

        def add() -> int:
            tensor = self._tensor(name)
            n, k = _matrix_shape(tensor)
            self.embedding_rows[source] = n
            added: int = self.store.add_embedding(name, tensor.format, n, k, tensor.data)
            return added

        return self._load(("embedding", name), add)

    def vector(self, name: str, plus: float = 0.0) -> int:
        """A vector, as floats, with ``plus`` added."""
        return self._load(("vector", name, str(plus)), lambda: self._add_floats(name, self.floats(name) + plus))

    def constant(self, name: str, values: npt.NDArray[np.float32]) -> int:
        """Computed values as a vector; equal ones are stored once."""
        return self._load(("constant", values.tobytes().hex()), lambda: self._add_floats(name, values))

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """The values of a small tensor, flat."""
        tensor = self._tensor(name)
        values: npt.NDArray[np.float32] = _core.dequantize(tensor.format, tensor.data, int(np.prod(tensor.shape)))
        return values

    def _add_floats(self, name: str, values: npt.NDArray[np.float32]) -> int:
        data = np.ascontiguousarray(values, np.float32)
        added: int = self.store.add_vector(name, "F32", data.size, data)
        return added

    def check_complete(self, ignored: tuple[str, ...]) -> None:
        """Raises ModelError when the checkpoint holds tensors that the model has no use for.

        What is ignored are whole modules: no bias is left over beside a weight that is used.
        """
        patterns = [re.compile(pattern) for pattern in ignored]
        used_modules = {_module(name) for name in self._checkpoint.used()}
        left = [
            name
            for name in self._checkpoint.unused()
            if _module(name) in used_modules or not any(pattern.fullmatch(name) for pattern in patterns)
        ]
        if left:
            names = ", ".join(map(shown, left[:4])) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
            raise ModelError(
                f"{self._checkpoint.origin} holds tensors that this architecture has no use for ({names}); its config "
                "and its weights do not belong together."
            )

    def _load(self, key: tuple[str, ...], add: Callable[[], int]) -> int:
        if key not in self._ids:
            self._ids[key] = add()
        return self._ids[key]

    def _tensor(self, name: str) -> SourceTensor:
        is_new = self._checkpoint.is_unused(name)
        tensor = self._checkpoint.get(name)
        if is_new:
            self._progress(tensor.n_bytes)
        if tensor.aqlm is None and tensor.format not in self._formats:
            known = ", ".join(sorted(self._formats))
            raise ModelError(f"{name} is stored as {tensor.format}, which octavo cannot read; it reads {known}.")
        return tensor


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def matrix_of(tensor: SourceTensor, part: Part) -> SourceTensor:
    """The matrix that ``part`` means, as rows; a view of the tensor's bytes where its rows lie together.

    Raises:
        ModelError: the tensor is no matrix, is quantised but would have to be transposed, or has too few rows.
    """
    if part.transposed and not tensor.turned:
        tensor = _transposed(tensor)
    if part.rows is None:
        return tensor
    n, k = _matrix_shape(tensor)
    last = part.rows.stop - 1 if isinstance(part.rows, slice) else int(part.rows.max())
    if last >= n:
        raise ModelError(f"{tensor.name} has {n} rows, but the model needs row {last}; fetch the model again.")
    rows = np.frombuffer(tensor.data, np.uint8).reshape(n, -1)[part.rows]
    mapped = tensor.mapped and isinstance(part.rows, slice)
    shape = (len(rows), k)
    return replace(tensor, shape=shape, data=rows.reshape(-1), mapped=mapped, aqlm=aqlm.take_rows(tensor, part.rows))


def _transposed(tensor: SourceTensor) -> SourceTensor:
    k, n = _matrix_shape(tensor)
    if tensor.format not in _DENSE:
        raise ModelError(f"{tensor.name} is stored as {tensor.format}, which cannot be transposed; fetch it again.")
    stored = np.frombuffer(tensor.data, np.uint32 if tensor.format == "F32" else np.uint16).reshape(k, n)
    return replace(tensor, shape=(n, k), data=np.ascontiguousarray(stored.T).reshape(-1), mapped=False)


def _rows_key(part: Part) -> str:
    return part.rows.tobytes().hex() if isinstance(part.rows, np.ndarray) else str(part.rows)


def _matrix_shape(tensor: SourceTensor) -> tuple[int, int]:
    if len(tensor.shape) != 2:
        raise ModelError(f"{tensor.name} has the shape {tensor.shape}, where a matrix was expected.")
    return tensor.shape[0], tensor.shape[1]
