"""The bytes that each token adds to a text."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

import numpy as np

TokenizerKind = Literal["bpe_byte_level", "spm", "wordpiece", "unigram"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_NO_BYTE = 256


def _byte_alphabet() -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Code point -> byte of GPT-2's alphabet, _NO_BYTE for the rest.

    Visible Latin-1 characters stand for themselves, the other bytes, in order, for the code points from 256.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = np.full(256 + len(hidden) + 1, _NO_BYTE, np.uint16)
    alphabet[visible] = visible
    alphabet[256 : 256 + len(hidden)] = hidden
    return alphabet


_BYTE_ALPHABET = _byte_alphabet()


def token_bytes(tokens: list[str], kind: TokenizerKind) -> list[bytes]:
    """The bytes of every token: of byte-level BPE the bytes it spells, else its text.

    A word-initial token starts with its space, also where a decoder would strip that from the start of a text.
    """
    if kind == "bpe_byte_level":
        return _byte_level_bytes(tokens)
    if kind == "wordpiece":
        return [token[2:].encode() if token.startswith("##") else f" {token}".encode() for token in tokens]
    plain = [token.replace("▁", " ").encode() for token in tokens]
    if kind == "spm":
        for i, token in enumerate(tokens):
            if token.startswith("<0x") and (byte := _BYTE_TOKEN.fullmatch(token)):
                plain[i] = bytes([int(byte[1], 16)])
    return plain


def _byte_level_bytes(tokens: list[str]) -> list[bytes]:
    """One character is one byte, so the whole vocabulary is translated at once and cut by the tokens' lengths.

    A token with a character outside the alphabet is plain text.
    """
    code_points = np.frombuffer("".join(tokens).encode("utf-32-le"), np.uint32)
    spelled = _BYTE_ALPHABET[np.minimum(code_points, len(_BYTE_ALPHABET) - 1)]
    ends = np.cumsum(np.fromiter(map(len, tokens), np.int64, len(tokens)))
    blob = spelled.astype(np.uint8).tobytes()
    result = [blob[start:end] for start, end in pairwise([0, *ends.tolist()])]
    for i in np.unique(np.searchsorted(ends, np.flatnonzero(spelled == _NO_BYTE), side="right")).tolist():
        result[i] = tokens[i].encode()
    return result
