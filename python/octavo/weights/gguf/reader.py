"""Reads the header of one GGUF file (versions 2 and 3, little endian) and maps its tensors.

Layout, all integers little endian:

    "GGUF"  u32 version  u64 n_tensors  u64 n_keys
    n_keys    x  string key, u32 type, value
    n_tensors x  string name, u32 n_dims, u64 dims[n_dims] (fastest first), u32 type, u64 offset
    padding to ``general.alignment``; tensor data, each tensor at its offset from here

A string is a u64 length and that many bytes. The file is not trusted: every count and length is held against the bytes
that are left before anything is allocated for it, and whatever is wrong is a ModelError of one sentence.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from octavo import _core
from octavo.checks import shown
from octavo.errors import ModelError
from octavo.weights.gguf.types import GGML_TYPES

_MAGIC = b"GGUF"
_DEFAULT_ALIGNMENT = 32  # bytes
_MAX_DIMS = 4
_MAX_ARRAY = 1 << 24  # elements; the largest vocabularies have 2**18
_MIN_KEY_BYTES = 8 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_HEADER = struct.Struct("<4sIQQ")

_TYPE_BOOL, _TYPE_STRING, _TYPE_ARRAY = 7, 8, 9
_SCALARS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    _TYPE_BOOL: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}


class GGUFTensor(NamedTuple):
    """One tensor as it lies in its file."""

    name: str
    type_id: int  # a key of GGML_TYPES
    shape: tuple[int, ...]  # numpy order: (N, K) is N rows of K weights
    offset: int  # bytes from the start of the file
    nbytes: int
    data: memoryview  # (nbytes,) read-only bytes of the mapped file


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a file that starts with the GGUF magic, whatever its name."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class GGUFFile:
    """The metadata and the tensors of one GGUF file.

    The tensors' ``data`` are views of the mapped file: nothing is read before it is used. After ``close`` the map lives
    for as long as an array still uses it.

    Raises:
        ModelError: the file is missing, is no GGUF, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GGUFTensor] = {}
        self._map = _map_file(self.path)
        try:
            _HeaderParser(self.path, self._map).parse_into(self.metadata, self.tensors)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the map; metadata stays readable."""
        self.tensors.clear()
        try:
            self._map.close()
        except BufferError:  # an array still uses the map, which goes with the last one
            pass


def _map_file(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < _HEADER.size:
                raise ModelError(f"{path} is too short to be a GGUF file; download it again.")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"{path} cannot be opened ({error.strerror}); give a readable GGUF file.") from None


class _HeaderParser:
    """A cursor over the mapped bytes; every read checks that the bytes are there."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._size = len(data)
        self._pos = 0

    def parse_into(self, metadata: dict[str, Any], tensors: dict[str, GGUFTensor]) -> None:
        n_tensors, n_keys = self._read_prologue()
        for _ in range(n_keys):
            key = self._read_name("metadata key")
            if key in metadata:
                self._fail(f"holds the metadata key {shown(key)} twice")
            metadata[key] = self._read_value(key)
        alignment = self._alignment(metadata)
        infos = [self._read_tensor_info() for _ in range(n_tensors)]
        data_start = -(-self._pos // alignment) * alignment
        with memoryview(self._data) as whole:
            for name, type_id, shape, offset in infos:
                if name in tensors:
                    self._fail(f"holds the tensor {shown(name)} twice")
                if offset % alignment:
                    self._fail(f"puts the tensor {shown(name)} at an offset that is no multiple of {alignment}")
                tensors[name] = self._map_tensor(whole, name, type_id, shape, data_start + offset)
        self._check_overlaps(tensors)

    def _fail(self, what: str) -> NoReturn:
        raise ModelError(f"{self._path} {what}: the file is damaged or not meant for this version; download it again.")

    def _read_prologue(self) -> tuple[int, int]:
        """Returns (n_tensors, n_keys), both small enough for the file."""
        magic, version, n_tensors, n_keys = _HEADER.unpack_from(self._data, 0)
        self._pos = _HEADER.size
        if magic != _MAGIC:
            raise ModelError(f"{self._path} does not start with the GGUF magic; give a GGUF file.")
        if version and not version & 0xFFFF:
            raise ModelError(f"{self._path} is a big-endian GGUF file; convert it to little endian.")
        if version not in (2, 3):
            raise ModelError(f"{self._path} is GGUF version {version}, but versions 2 and 3 are read; convert it anew.")
        left = self._size - self._pos
        if n_keys * _MIN_KEY_BYTES + n_tensors * _MIN_TENSOR_BYTES > left:
            self._fail(f"claims {n_keys} metadata keys and {n_tensors} tensors in {left} bytes")
        return n_tensors, n_keys

    def _take(self, n_bytes: int, what: str) -> int:
        """Moves past ``n_bytes``; returns where they start."""
        start = self._pos
        if n_bytes > self._size - start:
            self._fail(f"ends within {what}")
        self._pos = start + n_bytes
        return start

    def _read_u32(self, what: str) -> int:
        return int(_U32.unpack_from(self._data, self._take(4, what))[0])

    def _read_u64(self, what: str) -> int:
        return int(_U64.unpack_from(self._data, self._take(8, what))[0])

    def _read_string(self, what: str) -> bytes:
        length = self._read_u64(what)
        start = self._take(length, what)
        return self._data[start : start + length]

    def _read_name(self, what: str) -> str:
        raw = self._read_string(f"a {what}")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"has a {what} that is not UTF-8")

    def _read_value(self, key: str) -> Any:
        what = f"the value of {shown(key)}"
        type_id = self._read_u32(what)
        if type_id == _TYPE_STRING:
            return self._read_string(what).decode("utf-8", "replace")
        if type_id != _TYPE_ARRAY:
            return self._read_numbers(type_id, 1, key, what)[0]
        item_type = self._read_u32(what)
        count = self._read_u64(what)
        if count > _MAX_ARRAY:
            self._fail(f"claims {count} elements for {shown(key)}, where at most {_MAX_ARRAY} are read")
        if item_type == _TYPE_STRING:
            return self._read_strings(count, what)
        return self._read_numbers(item_type, count, key, what)

    def _read_numbers(self, type_id: int, count: int, key: str, what: str) -> list[Any]:
        dtype = _SCALARS.get(type_id)
        if dtype is None:
            self._fail(f"gives {shown(key)} the unknown type {type_id}")
        start = self._take(count * dtype.itemsize, what)
        if dtype.kind == "b":  # a byte other than 0 and 1 is no bool numpy could hold
            numbers = np.frombuffer(self._data, np.uint8, count, start) != 0
        else:
            numbers = np.frombuffer(self._data, dtype, count, start)
        return list(numbers.tolist())

    def _read_strings(self, count: int, what: str) -> list[str]:
        found = _core.read_strings(self._data, self._pos, count)
        if found is None:
            self._fail(f"ends within {what}")
        strings, self._pos = found
        return strings

    def _alignment(self, metadata: dict[str, Any]) -> int:
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            self._fail("has a 'general.alignment' that is no power of two")
        return alignment

    def _read_tensor_info(self) -> tuple[str, int, tuple[int, ...], int]:
        """Returns (name, type_id, shape in numpy order, offset from the start of the data)."""
        name = self._read_name("tensor name")
        what = f"the description of the tensor {shown(name)}"
        n_dims = self._read_u32(what)
        if not 1 <= n_dims <= _MAX_DIMS:
            self._fail(f"gives the tensor {shown(name)} {n_dims} dimensions, where 1 to {_MAX_DIMS} are possible")
        shape = tuple(self._read_u64(what) for _ in range(n_dims))[::-1]
        type_id = self._read_u32(what)
        return name, type_id, shape, self._read_u64(what)

    def _map_tensor(
        self, whole: memoryview, name: str, type_id: int, shape: tuple[int, ...], offset: int
    ) -> GGUFTensor:
        """Checks that a tensor of this type and shape lies at ``offset`` of the file."""
        ggml_type = GGML_TYPES.get(type_id)
        if ggml_type is None:
            self._fail(f"gives the tensor {shown(name)} the unknown type {type_id}")
        if 0 in shape:
            self._fail(f"gives the tensor {shown(name)} the empty shape {shape}")
        if shape[-1] % ggml_type.block_size:
            self._fail(
                f"gives the tensor {shown(name)} rows of {shape[-1]} weights, which are no whole {ggml_type.name}"
                f" blocks of {ggml_type.block_size}"
            )
        nbytes = math.prod(shape) // ggml_type.block_size * ggml_type.type_size
        if offset + nbytes > self._size:
            self._fail(f"ends within the data of the tensor {shown(name)}")
        return GGUFTensor(name, type_id, shape, offset, nbytes, whole[offset : offset + nbytes])

    def _check_overlaps(self, tensors: dict[str, GGUFTensor]) -> None:
        by_offset = sorted(tensors.values(), key=lambda tensor: tensor.offset)
        for before, after in pairwise(by_offset):
            if before.offset + before.nbytes > after.offset:
                self._fail(f"lets the tensors {shown(before.name)} and {shown(after.name)} overlap")
