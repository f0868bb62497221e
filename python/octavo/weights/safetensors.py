"""The safetensors format, read by mapping the file: nothing in it is trusted and no tensor is copied.

Layout: an unsigned 64-bit little-endian header length, a JSON header of that many bytes, then the tensors' bytes.
Source: https://github.com/huggingface/safetensors#format. The reader accepts no file that the reference library
refuses, and refuses duplicate keys as well.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.errors import ModelError

MAX_HEADER_BYTES = 100_000_000  # the reference library's limit
MAX_SIZE = 2**63 - 1

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as its file holds it: row-major little-endian bytes, mapped."""

    name: str
    dtype: str  # a key of DTYPE_BYTES
    shape: tuple[int, ...]
    data: memoryview  # flat bytes; keeps the mapping alive


def open_safetensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Map safetensors files and return their tensors by name, in the order of the files.

    Raises:
        ModelError: a file is missing, truncated or malformed, or two files hold a tensor of the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in _read_file(path):
            if tensor.name in tensors:
                raise ModelError(
                    f"{path} holds {tensor.name!r}, which an earlier shard holds too; fetch the shards again."
                )
            tensors[tensor.name] = tensor
    return tensors


def _read_file(path: Path) -> list[StoredTensor]:
    data = _map(path)
    try:
        header, start = _read_header(data)
        return _tensors(header, data[start:])
    except _Malformed as error:
        raise ModelError(f"{path} is not a valid safetensors file: {error}; fetch the file again.") from None


class _Malformed(Exception):
    """What is wrong with the file, as a clause."""


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError:  # an empty file cannot be mapped
        return memoryview(b"")
    except OSError as error:
        raise ModelError(f"{path} cannot be opened ({error.strerror}); check the path and its permissions.") from error


def _read_header(data: memoryview) -> tuple[dict[str, Any], int]:
    """The header as a dict, and the offset of the first tensor byte."""
    if len(data) < 8:
        raise _Malformed(f"it has {len(data)} bytes where the header length alone takes 8")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise _Malformed(
            f"its header claims {length} bytes, but {len(data) - 8} follow and {MAX_HEADER_BYTES} is the limit"
        )
    raw = bytes(data[8 : 8 + length])
    if not raw.startswith(b"{"):
        raise _Malformed("its header does not begin with '{'")
    try:
        header = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_int=_parse_unsigned,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"its header is not valid JSON ({error})") from None
    return header, 8 + length


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _Malformed(f"its header has the key {key!r} twice")
        result[key] = value
    return result


def _parse_unsigned(digits: str) -> int:
    if digits.startswith("-"):
        raise _Malformed(f"its header holds the negative number {digits[:20]}")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise _Malformed(f"its header holds {name}, which JSON does not have")


def _tensors(header: dict[str, Any], body: memoryview) -> list[StoredTensor]:
    """The tensors in file order; together they cover the body exactly."""
    _check_metadata(header.pop("__metadata__", {}))
    spans = sorted((*_entry_span(name, entry), name) for name, entry in header.items())
    tensors = []
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise _Malformed(f"{name!r} begins at byte {begin} of the data where byte {position} was expected")
        tensors.append(_tensor(name, header[name], body[begin:end], end - begin))
        position = end
    if position != len(body):
        raise _Malformed(f"its tensors take {position} bytes but {len(body)} bytes of data follow the header")
    return tensors


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Malformed("its __metadata__ is not an object of strings")


def _entry_span(name: str, entry: Any) -> tuple[int, int]:
    """The (begin, end) byte offsets of a header entry, relative to the data."""
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise _Malformed(f"the tensor name {name!r} is not valid text")
    offsets = _sizes(entry.get("data_offsets")) if isinstance(entry, dict) else None
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _Malformed(f"the data_offsets of {name!r} are not a begin and an end")
    return offsets[0], offsets[1]


def _tensor(name: str, entry: dict[str, Any], data: memoryview, span: int) -> StoredTensor:
    dtype, shape = entry.get("dtype"), _sizes(entry.get("shape"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _Malformed(f"{name!r} has the dtype {dtype!r}, not one of {', '.join(DTYPE_BYTES)}")
    if shape is None:
        raise _Malformed(f"the shape of {name!r} is not a list of sizes")
    n_bytes = _n_elements(name, shape) * DTYPE_BYTES[dtype]
    if n_bytes != span:
        raise _Malformed(f"{name!r} needs {n_bytes} bytes by its shape and dtype but spans {span}")
    if len(data) != span:
        raise _Malformed(f"{name!r} reaches past the end of the file, which is truncated")
    return StoredTensor(name, dtype, shape, data)


def _n_elements(name: str, shape: tuple[int, ...]) -> int:
    n = 1
    for size in shape:
        n *= size
        if n > MAX_SIZE:
            raise _Malformed(f"the shape of {name!r} has more than {MAX_SIZE} elements")
    return n


def _sizes(value: Any) -> tuple[int, ...] | None:
    """The value as sizes if it is a list of ints from 0 to MAX_SIZE (JSON's true is no int), else None."""
    if not isinstance(value, list) or not all(type(size) is int and size <= MAX_SIZE for size in value):
        return None
    return tuple(value)
