"""Checks SentencePiece's compiled normaliser, which the ``tokenizers`` package trusts blindly.

Layout: u32 bytes of the trie, the trie, the replacement texts, each ended by a zero byte. The trie is a double array
of u32 units (Darts-clone): bits 0-7 the label, bit 8 whether a value follows, bit 9 and 10-30 the offset to the
children; or, with bit 31, a value: where its replacement starts.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelError

_VALUE = 1 << 31
_HAS_VALUE = 1 << 8


def checked_charsmap(charsmap: bytes, source: str) -> bytes:
    """Returns ``charsmap`` if no look-up in it can leave its trie or its texts.

    Raises:
        ModelError: one can; ``source`` is the file to blame.
    """
    trie_bytes = struct.unpack_from("<I", charsmap)[0] if len(charsmap) >= 4 else 0
    if 0 < trie_bytes <= len(charsmap) - 4 and trie_bytes % 4 == 0:
        units = np.frombuffer(charsmap, "<u4", trie_bytes // 4, 4).astype(np.int64)
        if _is_closed(units, charsmap[4 + trie_bytes :]):
            return charsmap
    raise ModelError(f"{source} holds a damaged tokenizer normaliser (precompiled_charsmap); download it again.")


def _is_closed(units: npt.NDArray[np.int64], texts: bytes) -> bool:
    """Whether every child and every value of every unit (n_units,) lies inside, and every text is whole characters."""
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        return False
    nodes = np.flatnonzero(units < _VALUE)
    found = units[nodes]
    children = nodes ^ ((found >> 10) << ((found & 0x200) >> 6))  # a child is at one of the 256 places of this block
    if units[0] >= _VALUE or not np.all(children | 0xFF < len(units)):  # look-ups start at unit 0
        return False
    starts = units[children[(found & _HAS_VALUE) != 0]] & (_VALUE - 1)
    if not np.all(starts <= len(texts)):
        return False
    inside = np.frombuffer(texts + b"\0", np.uint8)[starts]
    return not np.any(inside & 0xC0 == 0x80)  # in the middle of a character
