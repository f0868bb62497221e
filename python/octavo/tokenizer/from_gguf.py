"""Makes a tokenizer from the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models

from octavo.checks import shown
from octavo.errors import ModelError
from octavo.tokenizer import spm, wordpiece
from octavo.tokenizer.end_tokens import end_token_ids
from octavo.tokenizer.pre_tokenizers import PRE_TOKENIZERS, byte_level
from octavo.tokenizer.token_bytes import TokenizerKind
from octavo.tokenizer.tokenizer import ChatTemplate, TokenizerParts
from octavo.tokenizer.vocabulary import TokenType, Vocabulary, add_special_tokens, add_template

_PREFIX = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"


class _Metadata:
    """Typed look-ups of ``tokenizer.ggml.*``."""

    def __init__(self, metadata: Mapping[str, Any], source: str) -> None:
        self.raw = metadata
        self.source = source

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.raw.get(_PREFIX + key, default))

    def text(self, key: str) -> str | None:
        value = self.raw.get(_PREFIX + key)
        return value if isinstance(value, str) else None

    def items(self, key: str, types: tuple[type, ...], length: int | None = None) -> list[Any]:
        """The array at ``key``, of ``types`` and, where given, of ``length``; empty if the file has none."""
        value = self.raw.get(_PREFIX + key, [])
        if not isinstance(value, list) or (value and not isinstance(value[0], types)):
            raise ModelError(f"{self.source} holds the wrong type at {_PREFIX + key!r}; convert or download it again.")
        if value and length is not None and len(value) != length:
            found = f"{len(value)} values at {_PREFIX + key!r} for {length} tokens"
            raise ModelError(f"{self.source} holds {found}; convert or download it again.")
        return value

    def token_id(self, key: str, default: int | None, n_tokens: int) -> int | None:
        """The id at ``key``; an id past the vocabulary is no id."""
        value = self.raw.get(f"{_PREFIX}{key}_token_id", default)
        return value if isinstance(value, int) and 0 <= value < n_tokens else None


class _Ends(NamedTuple):
    """The tokens before and after a text, and whether encoding adds them."""

    bos: int | None
    eos: int | None
    add_bos: bool
    add_eos: bool


_Built = tuple[Tokenizer, bool]  # and whether decode strips a leading space


class _Kind(NamedTuple):
    kind: TokenizerKind
    defaults: _Ends  # where the file does not say
    unk: int | None  # likewise
    build: Callable[[_Metadata, Vocabulary, int | None], _Built]


def parts_from_gguf(metadata: Mapping[str, Any], source: str) -> TokenizerParts:
    """The tokenizer that the metadata of the GGUF file ``source`` describes.

    Raises:
        ModelError: the file has no tokenizer, or one that is damaged or of an unknown kind.
    """
    reader = _Metadata(metadata, source)
    kind = _kind(reader)
    vocabulary = _vocabulary(reader)
    n_tokens = len(vocabulary.tokens)
    ends = _ends(reader, kind, n_tokens)
    try:
        unk_id = reader.token_id("unknown", kind.unk, n_tokens)
        backend, strips_leading_space = kind.build(reader, vocabulary, unk_id)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # the tokenizers package raises nothing more specific
        raise ModelError(
            f"{source} holds a damaged tokenizer ({shown(str(error))}); convert or download it again."
        ) from None
    add_special_tokens(backend, vocabulary, _strip_right(metadata, vocabulary))
    _add_ends(backend, ends, kind.kind)
    special_ids = vocabulary.special_ids()
    named = [ends.eos, *(reader.token_id(name, None, n_tokens) for name in ("eot", "eom"))]
    return TokenizerParts(
        backend=backend,
        kind=kind.kind,
        tokens=vocabulary.tokens,
        special_ids=special_ids,
        bos_token_id=ends.bos,
        eos_token_id=ends.eos,
        pad_token_id=reader.token_id("padding", None, n_tokens),
        eos_token_ids=end_token_ids(backend.token_to_id, special_ids, named),
        chat_template=_chat_template(metadata),
        strips_leading_space=strips_leading_space,
    )


def _kind(reader: _Metadata) -> _Kind:
    model = reader.text("model")
    if model is None:
        raise ModelError(f"{reader.source} holds no tokenizer; give one with the option tokenizer.")
    if model == "gpt2":
        scheme = PRE_TOKENIZERS.get(reader.text("pre") or "default")
        add_bos = scheme is not None and scheme.add_bos
        return _Kind("bpe_byte_level", _Ends(None, None, add_bos, False), None, _build_byte_level)
    if model in _KINDS:
        return _KINDS[model]
    known = ", ".join(["gpt2", *_KINDS])
    raise ModelError(
        f"{reader.source} holds a tokenizer of the kind {shown(model)}, while octavo knows {known}; give another with"
        " the option tokenizer."
    )


def _vocabulary(reader: _Metadata) -> Vocabulary:
    tokens = reader.items("tokens", (str,))
    if not tokens:
        raise ModelError(f"{reader.source} holds a tokenizer without tokens; convert or download it again.")
    n_tokens = len(tokens)
    types = reader.items("token_type", (int,), n_tokens) or [TokenType.NORMAL] * n_tokens
    if reader.text("model") == "bert":
        tokens = [wordpiece.from_phantom_space(token) for token in tokens]
    if "" in tokens:
        tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    return Vocabulary(reader.source, tokens, types, reader.items("scores", (float, int), n_tokens))


def _build_byte_level(reader: _Metadata, vocabulary: Vocabulary, unk_id: int | None) -> _Built:
    name = reader.text("pre") or "default"
    scheme = PRE_TOKENIZERS.get(name)
    if scheme is None:
        raise ModelError(
            f"{reader.source} cuts words by the unknown scheme {shown(name)}; give the model's own tokenizer with the"
            " option tokenizer."
        )
    merges = [tuple(merge.split(" ", 1)) for merge in reader.items("merges", (str,))]
    if not set(map(len, merges)) <= {2}:
        raise ModelError(f"{reader.source} holds a tokenizer merge that is no pair; convert or download it again.")
    backend = Tokenizer(models.BPE(vocabulary.ids(), merges, ignore_merges=scheme.ignore_merges))
    backend.pre_tokenizer = byte_level(scheme.patterns)
    backend.decoder = decoders.ByteLevel()
    return backend, False


def _build_spm(reader: _Metadata, vocabulary: Vocabulary, unk_id: int | None) -> _Built:
    add_space = reader.flag("add_space_prefix", True)
    return spm.build_bpe(_scored(vocabulary), vocabulary.token(unk_id), add_space), add_space


def _build_unigram(reader: _Metadata, vocabulary: Vocabulary, unk_id: int | None) -> _Built:
    charsmap = bytes(byte & 0xFF for byte in reader.items("precompiled_charsmap", (int,)))
    add_space = reader.flag("add_space_prefix", True)
    remove_spaces = reader.flag("remove_extra_whitespaces", True)
    return spm.build_unigram(_scored(vocabulary), unk_id, charsmap, add_space, remove_spaces), add_space


def _build_wordpiece(reader: _Metadata, vocabulary: Vocabulary, unk_id: int | None) -> _Built:
    lowercase = reader.flag("normalizer.lowercase", True)
    strip_accents = reader.flag("normalizer.strip_accents", lowercase)
    return wordpiece.build(vocabulary, vocabulary.token(unk_id) or "[UNK]", lowercase, strip_accents), True


_KINDS: dict[str, _Kind] = {
    "llama": _Kind("spm", _Ends(1, 2, True, False), 0, _build_spm),
    "t5": _Kind("unigram", _Ends(None, 1, False, True), 2, _build_unigram),
    "bert": _Kind("wordpiece", _Ends(101, 102, True, True), 100, _build_wordpiece),
}


def _scored(vocabulary: Vocabulary) -> Vocabulary:
    if not vocabulary.scores:
        raise ModelError(f"{vocabulary.source} holds a tokenizer without scores; convert or download it again.")
    return vocabulary


def _ends(reader: _Metadata, kind: _Kind, n_tokens: int) -> _Ends:
    if kind.kind == "wordpiece":  # older files call [CLS] the BOS token, and most spell the separator wrong
        cls_id = reader.token_id("cls", reader.token_id("bos", 101, n_tokens), n_tokens)
        sep_id = reader.token_id("seperator", reader.token_id("separator", 102, n_tokens), n_tokens)
        return _Ends(cls_id, sep_id, True, True)
    return _Ends(
        bos=reader.token_id("bos", kind.defaults.bos, n_tokens),
        eos=reader.token_id("eos", kind.defaults.eos, n_tokens),
        add_bos=reader.flag("add_bos_token", kind.defaults.add_bos),
        add_eos=reader.flag("add_eos_token", kind.defaults.add_eos),
    )


def _add_ends(backend: Tokenizer, ends: _Ends, kind: TokenizerKind) -> None:
    before = [ends.bos] if ends.add_bos and ends.bos is not None else []
    after = [ends.eos] if ends.add_eos and ends.eos is not None else []
    if kind == "wordpiece":
        add_template(backend, before, after, between=[])
    elif before and after:  # encoders: RoBERTa, XLM-RoBERTa
        add_template(backend, before, after, between=after, pair_type=0)
    else:
        add_template(backend, before, after)


def _strip_right(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> frozenset[int]:
    """The control tokens of Phi-3 and 3.5 swallow the spaces after them, which GGUF files do not say."""
    name = str(metadata.get("general.name", "")).lower()
    is_phi3 = metadata.get("general.architecture") == "phi3" and metadata.get(_PREFIX + "model") == "llama"
    if not is_phi3 and "phi-3" not in name and "phi3" not in name:
        return frozenset()
    keep = {"<unk>", "<s>", "<|endoftext|>"}
    return frozenset(
        i
        for i, type_ in enumerate(vocabulary.types)
        if type_ in (TokenType.CONTROL, TokenType.USER_DEFINED) and vocabulary.tokens[i] not in keep
    )


def _chat_template(metadata: Mapping[str, Any]) -> ChatTemplate:
    """The file's template, or its templates by name if it has several."""
    templates = {
        key[len(_TEMPLATE) + 1 :] or "default": value
        for key, value in metadata.items()
        if (key == _TEMPLATE or key.startswith(_TEMPLATE + ".")) and isinstance(value, str)
    }
    if set(templates) == {"default"}:
        return templates["default"]
    return templates or None
