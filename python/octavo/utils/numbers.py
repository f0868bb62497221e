"""Numbers as people write them."""

from __future__ import annotations

import argparse
from decimal import Decimal, InvalidOperation

_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def human_readable_int(value: str) -> int:
    """An integer with an optional suffix: "1k" is 1000, "1K" is 1024, "25.6k" is 25600; also m, g, t and M, G, T.

    Raises argparse.ArgumentTypeError, so that it can be the `type` of an argument.
    """
    text = value.strip()
    digits, suffix = (text[:-1], text[-1]) if text and text[-1] in {*_DECIMAL, *_BINARY} else (text, "")
    if suffix in _BINARY and "." in digits:
        raise argparse.ArgumentTypeError(
            f"{value!r} has decimals with the binary suffix {suffix!r}; use {suffix.lower()!r}, a power of ten, or no "
            "decimals."
        )
    scale = _DECIMAL.get(suffix) or _BINARY.get(suffix) or 1
    try:
        number = Decimal(digits) * scale
        whole = int(number)
    except (InvalidOperation, ValueError, OverflowError):
        whole, number = 0, Decimal("NaN")
    if number != whole:
        raise argparse.ArgumentTypeError(f"{value!r} is no integer; write one such as 4096, 4k (4000) or 4K (4096).")
    return whole
