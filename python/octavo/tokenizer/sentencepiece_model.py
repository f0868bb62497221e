"""Reads SentencePiece's ``tokenizer.model``: a protobuf message ``ModelProto``, of which a few fields are needed.

ModelProto      1: repeated SentencePiece   2: TrainerSpec   3: NormalizerSpec
SentencePiece   1: string piece   2: float score   3: enum type
TrainerSpec     3: enum model_type (1 unigram, 2 BPE)   40 to 43: int unk_id, bos_id, eos_id, pad_id
NormalizerSpec  2: bytes precompiled_charsmap   3: bool add_dummy_prefix   4: bool remove_extra_whitespaces
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import ModelError
from octavo.tokenizer.vocabulary import TokenType, Vocabulary

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNIGRAM, _BPE = 1, 2


@dataclass(frozen=True)
class SentencePieceModel:
    """The parts of a model file that make a tokenizer; an absent token has the id -1."""

    vocabulary: Vocabulary
    unigram: bool
    unk_id: int
    bos_id: int
    eos_id: int
    pad_id: int
    charsmap: bytes
    add_space_prefix: bool
    remove_extra_spaces: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a ``tokenizer.model``.

    Raises:
        ModelError: the file is no SentencePiece model, or one that is neither unigram nor BPE.
    """
    try:
        return _read_model(memoryview(path.read_bytes()), str(path))
    except (ValueError, IndexError, struct.error) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is no SentencePiece model; give a folder with a tokenizer.json instead.") from None


def _read_model(data: memoryview, source: str) -> SentencePieceModel:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int] = {}
    normalizer: dict[int, int] = {}
    charsmap = b""
    for field, value in _fields(data):
        if field == 1 and isinstance(value, memoryview):
            pieces.append(_piece(value))
        elif field == 2 and isinstance(value, memoryview):
            trainer = {key: item for key, item in _fields(value) if isinstance(item, int)}
        elif field == 3 and isinstance(value, memoryview):
            normalizer = {key: item for key, item in _fields(value) if isinstance(item, int)}
            charsmap = next(
                (bytes(item) for key, item in _fields(value) if key == 2 and not isinstance(item, int)), b""
            )
    model_type = trainer.get(3, _UNIGRAM)
    if not pieces or model_type not in (_UNIGRAM, _BPE):
        raise ModelError(
            f"{source} is no BPE or unigram SentencePiece model; give a folder with a tokenizer.json instead."
        )
    tokens, scores, types = (list(column) for column in zip(*pieces, strict=True))
    return SentencePieceModel(
        vocabulary=Vocabulary(source, tokens, types, scores),
        unigram=model_type == _UNIGRAM,
        unk_id=_signed(trainer.get(40, 0)),
        bos_id=_signed(trainer.get(41, 1)),
        eos_id=_signed(trainer.get(42, 2)),
        pad_id=_signed(trainer.get(43, -1)),
        charsmap=charsmap,
        add_space_prefix=bool(normalizer.get(3, 1)),
        remove_extra_spaces=bool(normalizer.get(4, 1)),
    )


def _piece(data: memoryview) -> tuple[str, float, int]:
    token, score, type_ = "", 0.0, int(TokenType.NORMAL)
    for field, value in _fields(data):
        if field == 1 and isinstance(value, memoryview):
            token = str(value, "utf-8")
        elif field == 2 and isinstance(value, memoryview):
            (score,) = struct.unpack("<f", value)
        elif field == 3 and isinstance(value, int):
            type_ = value
    return token, score, type_


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields (field number, value) of a message: ints as they are, everything else as its bytes."""
    pos = 0
    while pos < len(data):
        key, pos = _varint(data, pos)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, pos = _varint(data, pos)
            yield key >> 3, value
            continue
        if wire_type == _BYTES:
            size, pos = _varint(data, pos)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError("unknown wire type")
        if size > len(data) - pos:
            raise ValueError("truncated")
        yield key >> 3, data[pos : pos + size]
        pos += size


def _varint(data: memoryview, pos: int) -> tuple[int, int]:
    """Returns (value, position after it) of seven bits a byte, lowest first."""
    value = shift = 0
    while shift < 70:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
    raise ValueError("varint too long")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
