"""The tokenizer octavo uses, whatever file it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import tokenizers

from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.tokenizer.token_bytes import TokenizerKind, token_bytes
from octavo.tokenizer.truncation import TruncationSide, kept_positions

ChatTemplate = str | dict[str, str] | None
_BATCH = 512  # texts encoded at once: an encoding takes some 100 bytes a token until its ids are taken


@dataclass(frozen=True)
class TokenizerParts:
    """What a loader finds out about a tokenizer."""

    backend: tokenizers.Tokenizer
    kind: TokenizerKind
    tokens: list[str]  # by id; an id without a token has the empty string
    special_ids: frozenset[int]  # tokens that stand for no text
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    eos_token_ids: tuple[int, ...]  # every id that ends a generation, ascending
    chat_template: ChatTemplate  # a template, named templates, or none
    strips_leading_space: bool  # decode drops one space at the start of a text


class Tokenizer:
    """Turns text into token ids and back.

    Special tokens written in a text are recognised as such, as Hugging Face tokenizers do.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        self.backend = parts.backend
        self.kind: TokenizerKind = parts.kind
        self.bos_token_id = parts.bos_token_id
        self.eos_token_id = parts.eos_token_id
        self.pad_token_id = parts.pad_token_id
        self.eos_token_ids = parts.eos_token_ids
        self.chat_template = parts.chat_template
        self.strips_leading_space = parts.strips_leading_space
        self._tokens = parts.tokens
        self._special_ids = parts.special_ids
        self.add_bos = self.bos_token_id is not None and self.encode("")[:1] == [self.bos_token_id]

    def encode(
        self,
        text: str,
        add_special_tokens: bool = True,
        *,
        max_length: int | None = None,
        truncation_side: TruncationSide = "right",
    ) -> list[int]:
        """Token ids of ``text``, with the model's BOS and EOS where it wants them.

        Args:
            text: Any text.
            add_special_tokens: Whether to add them.
            max_length: How many ids to keep at most; special tokens that were added are kept always.
            truncation_side: Where the others are left out: the start or the end of the text.

        Raises:
            InvalidTypeError: ``text`` is not a string.
            InvalidInputError: ``text`` holds half a surrogate pair, which is no character, or ``max_length`` is less
                than the number of special tokens added.
        """
        encoding = self.backend.encode(_checked_text(text), add_special_tokens=add_special_tokens)
        return _picked(encoding.ids, kept_positions(encoding, max_length, truncation_side))

    def encode_pair(
        self,
        text: str,
        pair: str,
        add_special_tokens: bool = True,
        *,
        max_length: int | None = None,
        truncation_side: TruncationSide = "right",
    ) -> tuple[list[int], list[int]]:
        """Token ids and token types of two texts as the one input of a model that compares them.

        Arguments and errors are those of ``encode``; of two texts that are too long the longer one is cut first.
        """
        pairs = [(text, pair)]
        return self.encode_pairs(pairs, add_special_tokens, max_length=max_length, truncation_side=truncation_side)[0]

    def encode_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        add_special_tokens: bool = True,
        *,
        max_length: int | None = None,
        truncation_side: TruncationSide = "right",
    ) -> list[tuple[list[int], list[int]]]:
        """``encode_pair`` of every pair, on several threads and without the GIL."""
        checked = [(_checked_text(text), _checked_text(pair)) for text, pair in pairs]
        encoded = []
        for encoding in self._encodings(checked, add_special_tokens):
            kept = kept_positions(encoding, max_length, truncation_side)
            encoded.append((_picked(encoding.ids, kept), _picked(encoding.type_ids, kept)))
        return encoded

    def encode_batch(
        self,
        texts: Iterable[str],
        add_special_tokens: bool = True,
        *,
        max_length: int | None = None,
        truncation_side: TruncationSide = "right",
    ) -> list[list[int]]:
        """``encode`` of every text, on several threads and without the GIL."""
        checked = [(_checked_text(text),) for text in texts]
        return [
            _picked(encoding.ids, kept_positions(encoding, max_length, truncation_side))
            for encoding in self._encodings(checked, add_special_tokens)
        ]

    def _encodings(self, inputs: Sequence[tuple[str, ...]], add_special_tokens: bool) -> Iterator[tokenizers.Encoding]:
        """Of texts and pairs of texts."""
        if len(inputs) == 1:  # no threads, which would tie the process against forks
            text, *pair = inputs[0]
            yield self.backend.encode(text, pair[0] if pair else None, add_special_tokens=add_special_tokens)
            return
        for start in range(0, len(inputs), _BATCH):
            part = [texts if len(texts) == 2 else texts[0] for texts in inputs[start : start + _BATCH]]
            yield from self.backend.encode_batch_fast(part, add_special_tokens=add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD.

        Raises:
            InvalidInputError: an id is not in the vocabulary.
        """
        return self.backend.decode(self._checked_ids(ids), skip_special_tokens=skip_special_tokens)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's own spelling of each id.

        Raises:
            InvalidInputError: an id is not in the vocabulary.
        """
        return [self._tokens[i] for i in self._checked_ids(ids)]

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return self.backend.get_vocab(with_added_tokens=True)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes the token adds to a text; of a special token, those of its name.

        Raises:
            InvalidInputError: the id is not in the vocabulary.
        """
        return self.all_token_bytes[self._checked_ids([token_id])[0]]

    @cached_property
    def all_token_bytes(self) -> list[bytes]:
        """``token_bytes`` of every id."""
        return token_bytes(self._tokens, self.kind)

    def is_special(self, token_id: int) -> bool:
        """Whether the token stands for no text, so that ``decode`` skips it by default."""
        return token_id in self._special_ids

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
        return self._special_ids

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._tokens)

    @property
    def bos_token(self) -> str | None:
        """The token put before a text, if the model has one."""
        return self._token(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text, if the model has one."""
        return self._token(self.eos_token_id)

    @property
    def pad_token(self) -> str | None:
        """The token that fills up short texts, if the model has one."""
        return self._token(self.pad_token_id)

    def _token(self, token_id: int | None) -> str | None:
        return None if token_id is None else self._tokens[token_id]

    def _checked_ids(self, ids: Sequence[int]) -> list[int]:
        checked = [int(i) for i in ids]
        if checked and not (0 <= min(checked) and max(checked) < len(self._tokens)):
            wrong = next(i for i in checked if not 0 <= i < len(self._tokens))
            raise InvalidInputError(
                f"The token id {wrong} is not in the vocabulary; give ids from 0 to {len(self._tokens) - 1}."
            )
        return checked


def _picked(values: list[int], positions: Sequence[int] | None) -> list[int]:
    return values if positions is None else [values[i] for i in positions]


def _checked_text(text: str) -> str:
    if not isinstance(text, str):
        raise InvalidTypeError(f"A text to tokenize must be a string, not {type(text).__name__}; convert it first.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"half a surrogate pair (U+{ord(text[error.start]):04X}) at position {error.start}"
            raise InvalidInputError(f"The text holds {half}, which is no character; remove it.") from None
    return text
