"""A tokenizer's decode as data, for the core's detokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from octavo.tokenizer.tokenizer import Tokenizer

_SPECIAL = 1  # left out under skip_special_tokens
_BYTE = 2  # stands for one raw byte in a vocabulary of text pieces
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class TokenTable:
    """What the core needs to turn ids into text."""

    tokens: list[bytes]  # by id
    flags: list[int]  # by id
    strip_leading_space: bool  # drop one space at the start of a text
    whole_byte_runs: bool  # a run of byte tokens that is no UTF-8 becomes one U+FFFD per byte


def token_table(tokenizer: Tokenizer) -> TokenTable:
    """The table of ``tokenizer``."""
    tokens = tokenizer.all_token_bytes
    flags = [0] * len(tokens)
    for special in tokenizer.special_ids:
        flags[special] |= _SPECIAL
    by_pieces = tokenizer.kind == "spm"
    if by_pieces:
        for token, index in tokenizer.get_vocab().items():
            if token.startswith("<0x") and _BYTE_TOKEN.fullmatch(token):
                flags[index] |= _BYTE
    return TokenTable(tokens, flags, tokenizer.strips_leading_space, by_pieces)
