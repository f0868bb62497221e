"""BERT's WordPiece tokenizer on the ``tokenizers`` package."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from octavo.errors import ModelError
from octavo.tokenizer.vocabulary import Vocabulary

_SPACE = "▁"


def build(
    vocabulary: Vocabulary,
    unk_token: str,
    lowercase: bool,
    strip_accents: bool | None,
    *,
    split_chinese: bool = True,
) -> Tokenizer:
    """A tokenizer for a vocabulary whose word continuations start with "##".

    Args:
        strip_accents: None: as ``lowercase``.
        split_chinese: Every Chinese character is a word.

    Raises:
        ModelError: the vocabulary lacks ``unk_token``.
    """
    ids = vocabulary.ids()
    if unk_token not in ids:
        raise ModelError(f"{vocabulary.source} holds a tokenizer without the token {unk_token}; download it again.")
    backend = Tokenizer(models.WordPiece(ids, unk_token=unk_token))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def from_phantom_space(token: str) -> str:
    """GGUF marks the starts of words with U+2581, BERT's own vocabulary their continuations with "##"."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[1:] if token.startswith(_SPACE) else f"##{token}"
