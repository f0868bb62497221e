"""SentencePiece vocabularies (BPE by scores, and unigram) on the ``tokenizers`` package."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from octavo import _core
from octavo.tokenizer.charsmap import checked_charsmap
from octavo.tokenizer.vocabulary import Vocabulary

_SPACE = "▁"


def build_bpe(
    vocabulary: Vocabulary, unk_token: str | None, add_space_prefix: bool, *, first_only: bool = False
) -> Tokenizer:
    """A tokenizer that merges by score, falls back to bytes, and writes spaces as U+2581.

    Args:
        add_space_prefix: Texts, and what follows a special token in them, begin with a space more than they have.
        first_only: That space goes before a text only, and only where the text begins with none.
    """
    merges = _core.merges_from_scores(vocabulary.tokens, vocabulary.scores)
    backend = Tokenizer(models.BPE(vocabulary.ids(), merges, unk_token=unk_token, fuse_unk=True, byte_fallback=True))
    if add_space_prefix and first_only:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "first", split=False)
    else:
        spaces: list[normalizers.Normalizer] = [normalizers.Prepend(_SPACE)] if add_space_prefix else []
        backend.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", _SPACE)])
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if add_space_prefix else steps)
    return backend


def build_unigram(
    vocabulary: Vocabulary, unk_id: int | None, charsmap: bytes, add_space_prefix: bool, remove_extra_spaces: bool
) -> Tokenizer:
    """A tokenizer that takes the most likely cut; ``charsmap`` is SentencePiece's compiled normaliser, or empty."""
    scored = list(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    backend = Tokenizer(models.Unigram(scored, unk_id, False))
    steps: list[normalizers.Normalizer] = []
    if charsmap:
        steps.append(normalizers.Precompiled(checked_charsmap(charsmap, vocabulary.source)))
    if remove_extra_spaces:
        steps += [normalizers.Replace(Regex(r" +\z"), ""), normalizers.Replace(Regex(" {2,}"), _SPACE)]
    backend.normalizer = normalizers.Sequence(steps)
    scheme = "always" if add_space_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, scheme)
    backend.decoder = decoders.Metaspace(_SPACE, scheme)
    return backend
