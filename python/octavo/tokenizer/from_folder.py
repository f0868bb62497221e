"""Makes a tokenizer from a Hugging Face model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from octavo.errors import ModelError
from octavo.tokenizer.end_tokens import end_token_ids
from octavo.tokenizer.families import NAMED_TOKENS, Family, class_name, family_of
from octavo.tokenizer.from_old_files import backend_from_old_files, token_text
from octavo.tokenizer.token_bytes import TokenizerKind
from octavo.tokenizer.tokenizer import ChatTemplate, TokenizerParts
from octavo.tokenizer.vocabulary import add_template

_BERT_OPTIONS = {  # tokenizer_config.json -> BertNormalizer
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def parts_from_folder(folder: Path) -> TokenizerParts:
    """The tokenizer of a folder, from its tokenizer.json or the older files that stand in for it.

    Raises:
        ModelError: the folder has no tokenizer, or one that is damaged or of an unknown kind.
    """
    files = {**_read_json(folder / "special_tokens_map.json"), **_read_json(folder / "tokenizer_config.json")}
    name = class_name(files, _read_json(folder / "config.json"))
    family = family_of(name)
    try:
        backend, config = _backend(folder, name, files)
        if family.frame == "ends":
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


def _backend(folder: Path, name: str, files: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer with all its tokens, and its configuration with the class's special tokens where it has them."""
    family = family_of(name)
    if (folder / "tokenizer.json").is_file():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        _apply_options(backend, family, files)
        _add_configured_tokens(backend, folder, files, family)
        return backend, _with_defaults(backend, family, files)
    backend = backend_from_old_files(folder, name, {**family.tokens, **files})
    config = _with_defaults(backend, family, files)
    _add_configured_tokens(backend, folder, config, family)
    return backend, config


def _with_defaults(backend: Tokenizer, family: Family, files: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: token for key, token in family.tokens.items() if backend.token_to_id(token) is not None}
    return {**known, **files}


def _apply_options(backend: Tokenizer, family: Family, config: Mapping[str, Any]) -> None:
    """What tokenizer_config.json says about a step goes before what tokenizer.json says."""
    normalizer, pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        for key, field in _BERT_OPTIONS.items():
            if key in config:
                setattr(normalizer, field, config[key])
    if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel) and "add_prefix_space" in config:
        pre_tokenizer.add_prefix_space = bool(config["add_prefix_space"])


def _add_configured_tokens(backend: Tokenizer, folder: Path, config: Mapping[str, Any], family: Family) -> None:
    """Add the tokens that stand only in the files beside the tokenizer proper, in the order of their ids."""
    added: dict[int, Any] = {int(i): token for i, token in config.get("added_tokens_decoder", {}).items()}
    for token, i in _read_json(folder / "added_tokens.json").items():
        added.setdefault(int(i), token)
    special = _special_tokens(config, family)
    known = {
        token.content
        for token in backend.get_added_tokens_decoder().values()
        if token.special or token.content not in special
    }
    new: dict[str, AddedToken] = {}
    for added_token in [*(_added_token(added[i], special) for i in sorted(added)), *special.values()]:
        if added_token.content not in known:
            new.setdefault(added_token.content, added_token)
    backend.add_tokens(list(new.values()))


def _special_tokens(config: Mapping[str, Any], family: Family) -> dict[str, AddedToken]:
    """Text -> token of the special tokens that have a name or stand in a list of more."""
    listed = [(key, config.get(key)) for key in NAMED_TOKENS]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = config.get(key) or []
        listed += [("", token) for token in (more.values() if isinstance(more, dict) else more)]
    tokens: dict[str, AddedToken] = {}
    for key, token in listed:
        text = token_text(token)
        if text is None:
            continue
        takes_space = key == "mask_token" and family.mask_takes_space
        flags = token if isinstance(token, dict) else {"lstrip": takes_space}
        tokens.setdefault(text, _flagged(text, flags, special=True))
    return tokens


def _added_token(token: Any, special: Mapping[str, AddedToken]) -> AddedToken:
    text = token_text(token) or ""
    flags = token if isinstance(token, dict) else {}
    return _flagged(text, flags, special=bool(flags.get("special", False)) or text in special)


def _flagged(text: str, flags: Mapping[str, Any], *, special: bool) -> AddedToken:
    names = ("normalized", "lstrip", "rstrip", "single_word")
    return AddedToken(text, special=special, **{name: bool(flags.get(name, False)) for name in names})


def _add_ends(backend: Tokenizer, config: Mapping[str, Any]) -> None:
    """What tokenizer_config.json says about BOS and EOS goes before the tokenizer's own rule."""
    if "add_bos_token" not in config and "add_eos_token" not in config:
        return
    ids = {name: backend.token_to_id(token_text(config.get(f"{name}_token")) or "") for name in ("bos", "eos")}
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
    text = token_text(config.get(name))
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
