"""Makes small GGUF files, byte by byte, so that tests can also make wrong ones."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(item: Any) -> bytes:
    """A metadata value with its type."""
    if isinstance(item, bool):
        return struct.pack("<I?", BOOL, item)
    if isinstance(item, int):
        return struct.pack("<II", U32, item)
    if isinstance(item, float):
        return struct.pack("<If", F32, item)
    if isinstance(item, str):
        return struct.pack("<I", STRING) + string(item)
    types = {str: STRING, float: F32, int: I32}
    item_type = types[type(item[0])] if item else I32
    encode = {STRING: string, F32: lambda x: struct.pack("<f", x), I32: lambda x: struct.pack("<i", x)}[item_type]
    return struct.pack("<IIQ", ARRAY, item_type, len(item)) + b"".join(map(encode, item))


def tensor_info(name: str, dims: tuple[int, ...], type_id: int, offset: int) -> bytes:
    """A tensor's description; ``dims`` in the file's order, fastest first."""
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_id, offset)


def gguf(
    metadata: dict[str, Any] | None = None,
    tensors: list[bytes] | None = None,
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole file."""
    metadata, tensors = metadata or {}, tensors or []
    header = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))
    header += b"".join(string(key) + value(item) for key, item in metadata.items()) + b"".join(tensors)
    return header + bytes(-len(header) % alignment) + data


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
