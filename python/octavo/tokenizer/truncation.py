"""Which tokens of a text, or of a pair of texts, stay when there is room for fewer."""

from __future__ import annotations

from typing import Literal

from tokenizers import Encoding

from octavo.errors import InvalidInputError

TruncationSide = Literal["left", "right"]


def kept_positions(encoding: Encoding, max_length: int | None, side: TruncationSide) -> list[int] | None:
    """The positions to keep so that ``max_length`` tokens are left; None: all.

    Added special tokens stay. Of a pair the longer text loses tokens until both are as long, as with the truncation
    "longest_first" of transformers.

    Raises:
        InvalidInputError: the special tokens alone are more than ``max_length``.
    """
    if max_length is None or len(encoding.ids) <= max_length:
        return None
    texts: tuple[list[int], list[int]] = ([], [])
    special: list[int] = []
    for position, sequence in enumerate(encoding.sequence_ids):
        (special if sequence is None else texts[sequence]).append(position)
    room = max_length - len(special)
    if room < 0:
        raise InvalidInputError(
            f"max_length is {max_length}, but {len(special)} special tokens are added to every text; allow at least as"
            " many."
        )
    lengths = _shared(len(texts[0]), len(texts[1]), room)
    kept = [_cut(text, n, side) for text, n in zip(texts, lengths, strict=True)]
    return sorted(special + kept[0] + kept[1])


def _cut(positions: list[int], n: int, side: TruncationSide) -> list[int]:
    return positions[:n] if side == "right" else positions[len(positions) - n :]


def _shared(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens two texts keep of ``room``: a text of at most half of it stays whole."""
    if first + second <= room:
        return first, second
    if min(first, second) <= room // 2:
        return (first, room - first) if first <= second else (room - second, second)
    half = room // 2
    return (half, room - half) if first <= second else (room - half, half)
