"""Tokenizers of Hugging Face folders, family by family: ids, pairs, truncation and text equal transformers'."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
import sentencepiece
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from octavo.errors import InvalidInputError, ModelError
from octavo.tokenizer import Tokenizer, load_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS = (GOLDEN / "vocab" / "texts.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
PARTS = (
    "Hello world",
    " \t  ",
    "你好，世界！",
    "🤗👩‍👩‍👧 ✨",
    "\n\n\r\n",
    "def f(x):\n    return x ** 2  # naïve",
    "\x00\x01\x7f\u200b\ufeff\u2028",
    "I'LL don't 3.14159 1,000,000",
    "ﬁ Ⅷ é é Ａ",
    "<s> </s> [CLS] <mask> <|endoftext|>",
)
LINES = [*TEXTS, *PARTS, *(f"{a} {b}" for a, b in itertools.permutations(PARTS, 2))]
CORPUS = [*TEXTS, *PARTS, Path(__file__).read_text(), Path(transformers.__file__).read_text()]
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
Make = Callable[[Path], None]


def write_json(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def byte_level(folder: Path, special: Iterable[str], config: dict[str, Any], **model_config: Any) -> None:
    """vocab.json and merges.txt."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.model.save(str(folder))
    write_json(folder, "tokenizer_config.json", config)
    write_json(folder, "config.json", model_config)


def word_piece(folder: Path, special: Iterable[str], config: dict[str, Any], unk: str = "[UNK]") -> None:
    """vocab.txt."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token=unk))
    backend.normalizer = normalizers.BertNormalizer(lowercase=config.get("do_lower_case", True))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=list(special), show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.model.save(str(folder))
    write_json(folder, "tokenizer_config.json", config)


def sentence_piece(
    folder: Path, file: str, kind: Literal["bpe", "unigram"], config: dict[str, Any], **train: Any
) -> None:
    """SentencePiece's own trainer."""
    corpus = [line for text in CORPUS for line in text.splitlines() if line.strip() and "\0" not in line]
    options = {"hard_vocab_limit": False, "vocab_size": 700, "minloglevel": 2, **train}
    if kind == "bpe":
        options |= {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    with open(folder / file, "wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus), model_writer=writer, model_type=kind, **options
        )
    write_json(folder, "tokenizer_config.json", config)


def gpt2(folder: Path) -> None:
    byte_level(folder, ["<|endoftext|>"], {"tokenizer_class": "GPT2Tokenizer"})


def gpt2_by_model_type(folder: Path) -> None:
    byte_level(folder, ["<|endoftext|>"], {"model_max_length": 64, "add_prefix_space": True}, model_type="gpt2")


def opt(folder: Path) -> None:
    names = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    tokens = {name: {"content": text, "normalized": True, "__type": "AddedToken"} for name, text in names.items()}
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, **tokens}
    byte_level(folder, ["<s>", "<pad>", "</s>"], config, model_type="opt")


def qwen2(folder: Path) -> None:
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|new|>"],
    }
    byte_level(folder, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], config)


MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "__type": "AddedToken"}


def roberta(folder: Path) -> None:
    config = {"tokenizer_class": "RobertaTokenizer", "mask_token": MASK}
    byte_level(folder, ROBERTA_TOKENS, config, model_type="roberta")


def roberta_with_prefix(folder: Path) -> None:
    byte_level(folder, ROBERTA_TOKENS, {"add_prefix_space": True, "mask_token": MASK}, model_type="roberta")


def bert(folder: Path) -> None:
    word_piece(folder, BERT_TOKENS, {"tokenizer_class": "BertTokenizer"})


def bert_cased(folder: Path) -> None:
    word_piece(folder, BERT_TOKENS, {"do_lower_case": False})
    write_json(folder, "config.json", {"model_type": "bert"})


def bert_with_accents(folder: Path) -> None:
    config = {"tokenizer_class": "BertTokenizer", "strip_accents": False, "tokenize_chinese_chars": False}
    word_piece(folder, BERT_TOKENS, config)


def distilbert(folder: Path) -> None:
    word_piece(folder, BERT_TOKENS, {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True})
    write_json(folder, "special_tokens_map.json", {"unk_token": "[UNK]", "additional_special_tokens": ["[NEW]"]})


def mpnet(folder: Path) -> None:
    special = ["<s>", "<pad>", "</s>", "<unk>", *BERT_TOKENS, "<mask>"]
    word_piece(folder, special, {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True})


def llama(folder: Path) -> None:
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": {"content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "__type": "AddedToken"},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
    }
    sentence_piece(folder, "tokenizer.model", "bpe", config)


def llama_with_ends(folder: Path) -> None:
    config = {"legacy": False, "add_bos_token": True, "add_eos_token": True, "pad_token": "[PAD]"}
    sentence_piece(folder, "tokenizer.model", "bpe", {"tokenizer_class": "LlamaTokenizer", **config})


def gemma(folder: Path) -> None:
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>"}
    more = {"bos_piece": "<bos>", "add_dummy_prefix": False, "user_defined_symbols": ["<mask>", "\n\n", "<h1>"]}
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False}
    sentence_piece(folder, "tokenizer.model", "bpe", config, **ids, **more)


def xlm_roberta(folder: Path) -> None:
    config = {"tokenizer_class": "XLMRobertaTokenizer"}
    sentence_piece(folder, "sentencepiece.bpe.model", "unigram", config, normalization_rule_name="nmt_nfkc")


def t5(folder: Path) -> None:
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "pad_piece": "<pad>"}
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
    sentence_piece(folder, "spiece.model", "unigram", config, **ids)


FAMILIES: list[Make] = [
    gpt2,
    gpt2_by_model_type,
    opt,
    qwen2,
    roberta,
    roberta_with_prefix,
    bert,
    bert_cased,
    bert_with_accents,
    distilbert,
    mpnet,
    llama,
    llama_with_ends,
    gemma,
    xlm_roberta,
    t5,
]
Judged = tuple[Tokenizer, Any]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda make: make.__name__)
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A folder's tokenizer, and transformers' own of the same folder."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    request.param(folder)
    return load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)


def test_ids_and_text(judged: Judged) -> None:
    tokenizer, judge = judged
    for special in (True, False):
        expected = judge(LINES, add_special_tokens=special)["input_ids"]
        assert tokenizer.encode_batch(LINES, special) == expected
        for text, ids in zip(LINES, expected, strict=True):
            assert tokenizer.encode(text, special) == ids
            assert tokenizer.decode(ids, special) == judge.decode(ids, skip_special_tokens=special)


def test_named_tokens(judged: Judged) -> None:
    tokenizer, judge = judged
    assert (tokenizer.bos_token, tokenizer.eos_token) == (judge.bos_token, judge.eos_token)
    assert tokenizer.pad_token == judge.pad_token
    assert tokenizer.special_ids == {i for i, token in judge.added_tokens_decoder.items() if token.special}
    assert tokenizer.get_vocab() == judge.get_vocab()


def judged_pair(judge: Any, text: str, pair: str, **options: Any) -> tuple[list[int], list[int]]:
    """As a batch: a single empty second text would be no pair to transformers."""
    expected = judge([text], [pair], return_token_type_ids=True, **options)
    return expected["input_ids"][0], expected["token_type_ids"][0]


def test_pairs(judged: Judged) -> None:
    tokenizer, judge = judged
    for text, pair in zip(LINES, reversed(LINES), strict=True):
        assert tokenizer.encode_pair(text, pair) == judged_pair(judge, text, pair)


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation(judged: Judged, side: Literal["left", "right"]) -> None:
    tokenizer, judge = judged
    judge.truncation_side = side
    pairs = [(LINES[i], LINES[-i - 1]) for i in range(0, len(LINES), 5)]
    for length, (text, pair) in itertools.product((4, 5, 9, 12, 40), pairs):
        limit = {"max_length": length, "truncation": True}
        cut: Any = {"max_length": length, "truncation_side": side}
        assert tokenizer.encode(text, **cut) == judge(text, **limit)["input_ids"]
        assert tokenizer.encode_batch([text], **cut) == [judge(text, **limit)["input_ids"]]
        assert tokenizer.encode_pair(text, pair, **cut) == judged_pair(judge, text, pair, **limit)


def test_a_tokenizer_json_alone(judged: Judged, tmp_path: Path) -> None:
    judge = judged[1]
    judge.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode_batch(LINES) == judge(LINES)["input_ids"]
    assert tokenizer.encode_pair(LINES[3], LINES[4]) == judged_pair(judge, LINES[3], LINES[4])


def test_unigram_pieces_are_those_of_sentencepiece(tmp_path: Path) -> None:
    xlm_roberta(tmp_path)
    judge = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sentencepiece.bpe.model"))
    tokenizer = load_tokenizer(tmp_path)
    for text in [*(line for line in LINES if "<" not in line), "\x85", " a \x85 ", "a\x85", "  a", "a\u3000 \u3000"]:
        pieces = [i + 1 if i else 3 for i in judge.encode(text)]
        assert tokenizer.encode(text, add_special_tokens=False) == pieces


def test_no_room_for_special_tokens(tmp_path: Path) -> None:
    bert(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.encode("some words", max_length=2)) == 2
    with pytest.raises(InvalidInputError, match="max_length is 2, but 3 special tokens"):
        tokenizer.encode_pair("some", "words", max_length=2)


def test_options_change_a_tokenizer_json(tmp_path: Path) -> None:
    bert(tmp_path)
    judge = transformers.AutoTokenizer.from_pretrained(tmp_path)
    judge.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("HÉLLO") == judge.encode("HÉLLO")
    write_json(tmp_path, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    cased = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).encode("HÉLLO") == cased.encode("HÉLLO") != judge.encode("HÉLLO")


def test_pieces_that_are_renumbered_otherwise_are_refused(tmp_path: Path) -> None:
    sentence_piece(tmp_path, "sentencepiece.bpe.model", "unigram", {"tokenizer_class": "CamembertTokenizer"})
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
