"""Makes a tokenizer from a Hugging Face model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models

from octavo.errors import ModelError
from octavo.tokenizer import spm, wordpiece
from octavo.tokenizer.end_tokens import end_token_ids
from octavo.tokenizer.pre_tokenizers import PRE_TOKENIZERS, byte_level
from octavo.tokenizer.sentencepiece_model import read_sentencepiece
from octavo.tokenizer.token_bytes import TokenizerKind
from octavo.tokenizer.tokenizer import ChatTemplate, TokenizerParts
from octavo.tokenizer.vocabulary import TokenType, Vocabulary, add_special_tokens, add_template

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model")


def parts_from_folder(folder: Path) -> TokenizerParts:
    """The tokenizer of a folder, from its tokenizer.json or the older files that stand in for it.

    Raises:
        ModelError: the folder has no tokenizer, or one that is damaged or of an unknown kind.
    """
    config = {**_read_json(folder / "special_tokens_map.json"), **_read_json(folder / "tokenizer_config.json")}
    try:
        backend = _backend(folder, config)
        _add_configured_tokens(backend, folder, config)
        _add_ends(backend, config)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # the tokenizers package raises nothing more specific
        raise ModelError(f"{folder} holds a damaged tokenizer ({error}); download it again.") from None
    backend.no_truncation()
    backend.no_padding()
    tokens = _tokens_by_id(backend, folder)
    special_ids = frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)
    eos_ids = _model_ids(folder, "eos_token_id")
    bos_id = _named_id(backend, config, "bos_token", _model_ids(folder, "bos_token_id"))
    eos_id = _named_id(backend, config, "eos_token", eos_ids)
    named = [i for i in [eos_id, *eos_ids] if i is not None and i < len(tokens)]
    kind, strips_leading_space = _kind(backend, folder)
    return TokenizerParts(
        backend=backend,
        kind=kind,
        tokens=tokens,
        special_ids=special_ids,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=_named_id(backend, config, "pad_token", []),
        eos_token_ids=end_token_ids(backend.token_to_id, special_ids, named),
        chat_template=_chat_template(folder, config),
        strips_leading_space=strips_leading_space,
    )


def _read_json(path: Path) -> dict[str, Any]:
    """The object in the file; empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object; download it again.")
    return content


def _backend(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name in _SENTENCEPIECE_FILES:
        if (folder / name).is_file():
            return _sentencepiece_backend(folder / name, config)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_level_backend(folder, config)
    if (folder / "vocab.txt").is_file():
        return _wordpiece_backend(folder / "vocab.txt", config)
    raise ModelError(
        f"{folder} holds no tokenizer; put tokenizer.json there, or vocab.json with merges.txt, tokenizer.model or"
        " vocab.txt."
    )


def _sentencepiece_backend(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    if "XLMRoberta" in str(config.get("tokenizer_class")):
        raise ModelError(
            f"{path} numbers its tokens otherwise than the model; put the model's tokenizer.json beside it."
        )
    model = read_sentencepiece(path)
    unk_token = model.vocabulary.token(model.unk_id)
    if model.unigram:
        backend = spm.build_unigram(
            model.vocabulary, model.unk_id, model.charsmap, model.add_space_prefix, model.remove_extra_spaces
        )
    else:
        backend = spm.build_bpe(model.vocabulary, unk_token, model.add_space_prefix)
    add_special_tokens(backend, model.vocabulary)
    add_bos = bool(config.get("add_bos_token", not model.unigram)) and model.bos_id >= 0
    add_eos = bool(config.get("add_eos_token", model.unigram)) and model.eos_id >= 0
    add_template(backend, [model.bos_id] if add_bos else [], [model.eos_id] if add_eos else [])
    return backend


def _byte_level_backend(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    backend = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    scheme = "qwen2" if "Qwen" in str(config.get("tokenizer_class")) else "gpt-2"
    backend.pre_tokenizer = byte_level(PRE_TOKENIZERS[scheme].patterns)
    backend.decoder = decoders.ByteLevel()
    return backend


def _wordpiece_backend(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    tokens = path.read_text(encoding="utf-8").splitlines()
    special = {_text(config.get(name)) for name in _NAMED_TOKENS} | {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"}
    types = [int(TokenType.CONTROL if token in special else TokenType.NORMAL) for token in tokens]
    vocabulary = Vocabulary(str(path), tokens, types, [])
    lowercase = bool(config.get("do_lower_case", True))
    strip_accents = config.get("strip_accents")
    backend = wordpiece.build(
        vocabulary, "[UNK]", lowercase, lowercase if strip_accents is None else bool(strip_accents)
    )
    add_special_tokens(backend, vocabulary)
    ids = vocabulary.ids()
    if "[CLS]" in ids and "[SEP]" in ids:
        add_template(backend, [ids["[CLS]"]], [ids["[SEP]"]])
    return backend


def _text(token: Any) -> str | None:
    """A token in a configuration is its text, or an object that holds it as "content"."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def _add_configured_tokens(backend: Tokenizer, folder: Path, config: Mapping[str, Any]) -> None:
    """Add the tokens that stand only in the files beside the tokenizer proper, in the order of their ids."""
    added: dict[int, Any] = {int(i): token for i, token in config.get("added_tokens_decoder", {}).items()}
    for token, i in _read_json(folder / "added_tokens.json").items():
        added.setdefault(int(i), token)
    named = {text for name in _NAMED_TOKENS if (text := _text(config.get(name)))}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    configured = [_added_token(added[i], named) for i in sorted(added)]
    configured += [AddedToken(text, special=True, normalized=False) for text in sorted(named)]
    new: dict[str, AddedToken] = {}
    for added_token in configured:
        if added_token.content not in known:
            new.setdefault(added_token.content, added_token)
    backend.add_tokens(list(new.values()))


def _added_token(token: Any, named: set[str]) -> AddedToken:
    text = _text(token) or ""
    flags = token if isinstance(token, dict) else {}
    return AddedToken(
        text,
        special=bool(flags.get("special", False)) or text in named,
        normalized=bool(flags.get("normalized", False)),
        lstrip=bool(flags.get("lstrip", False)),
        rstrip=bool(flags.get("rstrip", False)),
        single_word=bool(flags.get("single_word", False)),
    )


def _add_ends(backend: Tokenizer, config: Mapping[str, Any]) -> None:
    """What tokenizer_config.json says about BOS and EOS goes before the tokenizer's own rule."""
    if "add_bos_token" not in config and "add_eos_token" not in config:
        return
    ids = {name: backend.token_to_id(_text(config.get(f"{name}_token")) or "") for name in ("bos", "eos")}
    wanted = {name: [i] if i is not None and config.get(f"add_{name}_token") else [] for name, i in ids.items()}
    add_template(backend, wanted["bos"], wanted["eos"])


def _tokens_by_id(backend: Tokenizer, folder: Path) -> list[str]:
    vocab = backend.get_vocab(with_added_tokens=True)
    size = max(vocab.values(), default=-1) + 1
    if size > 2 * len(vocab) + 65536:
        raise ModelError(f"{folder} numbers {len(vocab)} tokens up to {size - 1}; download its tokenizer again.")
    tokens = [""] * size
    for text, i in vocab.items():
        tokens[i] = text
    return tokens


def _model_ids(folder: Path, key: str) -> list[int]:
    """The ids that generation_config.json, else config.json, gives for ``key``: one, several or none."""
    for name in ("generation_config.json", "config.json"):
        ids = _read_json(folder / name).get(key)
        if ids is not None:
            return [i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int) and i >= 0]
    return []


def _named_id(backend: Tokenizer, config: Mapping[str, Any], name: str, model_ids: list[int]) -> int | None:
    """The id of the configured token, else the model's own."""
    text = _text(config.get(name))
    token_id = backend.token_to_id(text) if text is not None else None
    if token_id is None and model_ids and backend.id_to_token(model_ids[0]) is not None:
        return model_ids[0]
    return token_id


def _kind(backend: Tokenizer, folder: Path) -> tuple[TokenizerKind, bool]:
    """The kind, and whether decode strips a leading space."""
    model, decoder = backend.model, repr(backend.decoder)
    if isinstance(model, models.WordPiece):
        return "wordpiece", True
    strips = "Strip(" in decoder or ("Metaspace(" in decoder and 'prepend_scheme="never"' not in decoder)
    if isinstance(model, models.Unigram):
        return "unigram", strips
    if isinstance(model, models.BPE):
        return ("bpe_byte_level" if "ByteLevel(" in decoder else "spm"), strips
    raise ModelError(f"{folder} holds a tokenizer of a kind octavo does not know; use BPE, unigram or WordPiece.")


def _chat_template(folder: Path, config: Mapping[str, Any]) -> ChatTemplate:
    """The folder's template, or its templates by name if it has several; files go before tokenizer_config.json."""
    configured = config.get("chat_template", _read_json(folder / "chat_template.json").get("chat_template"))
    if isinstance(configured, list):
        configured = {item["name"]: item["template"] for item in configured if isinstance(item, dict)}
    templates: dict[str, str] = dict(configured) if isinstance(configured, dict) else {}
    if isinstance(configured, str):
        templates["default"] = configured
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text(encoding="utf-8")
    if set(templates) == {"default"}:
        return templates["default"]
    return templates or None
