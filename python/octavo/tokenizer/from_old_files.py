"""Makes a tokenizer from the files of Hugging Face folders that have no tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from octavo.errors import ModelError
from octavo.tokenizer import spm, wordpiece
from octavo.tokenizer.families import add_frame, family_of
from octavo.tokenizer.pre_tokenizers import PRE_TOKENIZERS, byte_level
from octavo.tokenizer.sentencepiece_model import SentencePieceModel, read_sentencepiece
from octavo.tokenizer.vocabulary import TokenType, Vocabulary, add_special_tokens, add_template

_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_RENUMBERED = ("Camembert", "MBart", "MBart50", "Nllb", "Barthez")  # as XLM-RoBERTa's, each in a way of its own


def backend_from_old_files(folder: Path, name: str, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a folder by the files of its class.

    Args:
        name: The class, as families.class_name gives it.
        config: tokenizer_config.json, with the class's special tokens where it gives none.

    Raises:
        ModelError: the folder has no tokenizer.
    """
    for file in _SENTENCEPIECE_FILES:
        if (folder / file).is_file():
            return _sentencepiece_backend(folder / file, name, config)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_level_backend(folder, name, config)
    if (folder / "vocab.txt").is_file():
        return _wordpiece_backend(folder / "vocab.txt", name, config)
    raise ModelError(
        f"{folder} holds no tokenizer; put tokenizer.json there, or vocab.json with merges.txt, tokenizer.model or"
        " vocab.txt."
    )


def token_text(token: Any) -> str | None:
    """A token in a configuration is its text, or an object that holds it as "content"."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def _sentencepiece_backend(path: Path, name: str, config: Mapping[str, Any]) -> Tokenizer:
    if name in _RENUMBERED:
        raise ModelError(
            f"{path} numbers its tokens otherwise than the model; put the model's tokenizer.json beside it."
        )
    model = read_sentencepiece(path)
    if name == "XLMRoberta":
        model = _as_fairseq(model)
    unk_token = model.vocabulary.token(model.unk_id)
    add_space = bool(config.get("add_prefix_space", model.add_space_prefix))
    if model.unigram:
        backend = spm.build_unigram(
            model.vocabulary, model.unk_id, model.charsmap, add_space, model.remove_extra_spaces
        )
    else:
        first_only = config.get("legacy") is False
        backend = spm.build_bpe(model.vocabulary, unk_token, add_space, first_only=first_only)
    add_special_tokens(backend, model.vocabulary)
    if family_of(name).frame == "double":
        add_frame(backend, "double", model.bos_id, model.eos_id)
        return backend
    add_bos = bool(config.get("add_bos_token", not model.unigram)) and model.bos_id >= 0
    add_eos = bool(config.get("add_eos_token", model.unigram)) and model.eos_id >= 0
    before, after = [model.bos_id] if add_bos else [], [model.eos_id] if add_eos else []
    if model.unigram:
        add_template(backend, before, after, between=[], pair_type=0)
    else:
        add_template(backend, before, after)
    return backend


def _as_fairseq(model: SentencePieceModel) -> SentencePieceModel:
    """XLM-RoBERTa's numbering: four special tokens in fairseq's order, the pieces from the fourth, the mask token."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    old = model.vocabulary
    control = int(TokenType.CONTROL)
    vocabulary = Vocabulary(
        source=old.source,
        tokens=[*first, *old.tokens[3:], "<mask>"],
        types=[control, control, control, int(TokenType.UNKNOWN), *old.types[3:], int(TokenType.NORMAL)],
        scores=[0.0] * 4 + old.scores[3:] + [0.0],
    )
    return replace(model, vocabulary=vocabulary, unk_id=3, bos_id=0, eos_id=2, pad_id=1)


def _byte_level_backend(folder: Path, name: str, config: Mapping[str, Any]) -> Tokenizer:
    backend = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    if name == "Qwen2":
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = byte_level(PRE_TOKENIZERS["qwen2"].patterns)
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    backend.decoder = decoders.ByteLevel()
    _add_family_frame(backend, name, config)
    return backend


def _wordpiece_backend(path: Path, name: str, config: Mapping[str, Any]) -> Tokenizer:
    name = name if family_of(name).frame != "ends" else "Bert"
    config = {**family_of(name).tokens, **config}
    tokens = [line.rstrip("\r") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]
    vocabulary = Vocabulary(str(path), tokens, [int(TokenType.NORMAL)] * len(tokens), [])
    backend = wordpiece.build(
        vocabulary,
        token_text(config.get("unk_token")) or "[UNK]",
        bool(config.get("do_lower_case", True)),
        config.get("strip_accents"),
        split_chinese=bool(config.get("tokenize_chinese_chars", True)),
    )
    _add_family_frame(backend, name, config)
    return backend


def _add_family_frame(backend: Tokenizer, name: str, config: Mapping[str, Any]) -> None:
    first, last = (backend.token_to_id(token_text(config.get(key)) or "") for key in ("cls_token", "sep_token"))
    frame = family_of(name).frame
    if frame != "ends" and first is not None and last is not None:
        add_frame(backend, frame, first, last)
