"""Tokenizers from every kind of file: ids equal the golden ones, and both ways equal transformers."""

from __future__ import annotations

import json
import lzma
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gguf_files
from octavo.errors import InvalidInputError, InvalidTypeError, ModelError
from octavo.tokenizer import Tokenizer, load_tokenizer, tokenizer_from_gguf
from octavo.weights.gguf import GGUFFile

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = GOLDEN / "tiny-llama-tokenizer"
TEXTS = (GOLDEN / "vocab" / "texts.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
KINDS = {
    "llama-spm": "spm",
    "phi-3": "spm",
    "llama-bpe": "bpe_byte_level",
    "qwen2": "bpe_byte_level",
    "bert-bge": "wordpiece",
}
PREFIX = "tokenizer.ggml."


@pytest.fixture(scope="session")
def vocab_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The golden vocabularies: GGUF files without tensors."""
    folder = tmp_path_factory.mktemp("vocab")
    packed = {name: (GOLDEN / "vocab" / f"{name}.gguf.xz").read_bytes() for name in KINDS}
    return {name: gguf_files.write(folder / name, lzma.decompress(content)) for name, content in packed.items()}


@pytest.fixture(scope="session")
def tokenizers(vocab_files: dict[str, Path]) -> dict[str, Tokenizer]:
    return {name: load_tokenizer(path) for name, path in vocab_files.items()}


def golden_ids(name: str) -> list[list[int]]:
    lines = (GOLDEN / "vocab" / f"{name}.out").read_text().split("\n")
    return [[int(word) for word in line.split()] for line in lines]


@pytest.mark.parametrize("name", KINDS)
def test_golden_ids(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    assert tokenizer.kind == KINDS[name]
    expected = golden_ids(name)
    assert len(expected) == len(TEXTS)
    assert [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS] == expected
    assert tokenizer.encode_batch(TEXTS, add_special_tokens=False) == expected


@pytest.mark.parametrize("name", [name for name in KINDS if name != "bert-bge"])
def test_golden_text_survives(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    assert [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS] == TEXTS


def test_special_tokens_of_golden_files(tokenizers: dict[str, Tokenizer]) -> None:
    spm, phi, llama, qwen, bert = (tokenizers[name] for name in KINDS)
    assert (spm.bos_token, spm.eos_token, spm.eos_token_ids, spm.add_bos) == ("<s>", "</s>", (2,), True)
    assert (phi.eos_token, phi.eos_token_ids, phi.pad_token_id) == ("<|endoftext|>", (32000, 32007), 32000)
    assert (llama.bos_token, llama.eos_token_ids, llama.add_bos) == ("<|begin_of_text|>", (128001, 128009), True)
    assert (qwen.eos_token_ids, qwen.add_bos) == ((151643, 151645), False)
    assert bert.encode("hi") == [101, 7632, 102]
    assert bert.encode_pair("hi", "you") == ([101, 7632, 102, 2017, 102], [0, 0, 0, 1, 1])
    assert spm.encode_pair("hi", "you") == ([1, 7251, 1, 366], [0, 0, 1, 1])
    assert llama.is_special(128009) and not llama.is_special(5) and 128009 in llama.special_ids
    assert spm.encode("<s>")[1:] == [1] and spm.decode([1, 22172], skip_special_tokens=False) == "<s> hello"
    assert phi.encode("<|user|>\n hi", add_special_tokens=False)[:2] == [32010, 7251]
    assert phi.chat_template is not None and spm.chat_template is None


@pytest.mark.parametrize("name", KINDS)
def test_token_bytes_make_the_decoded_text(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    assert len(tokenizer.all_token_bytes) == tokenizer.vocab_size == len(tokenizer.get_vocab())
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        joined = b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")
        if tokenizer.strips_leading_space:
            joined = joined.removeprefix(" ")
        if name != "bert-bge":  # whose decoder also joins punctuation
            assert joined == tokenizer.decode(ids, skip_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 511), max_size=12))
def test_random_ids_decode_as_their_bytes(ids: list[int]) -> None:
    tokenizer = load_tokenizer(TINY)
    joined = b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")
    assert joined == tokenizer.decode(ids, skip_special_tokens=False)
    kept = [i for i in ids if not tokenizer.is_special(i)]
    assert tokenizer.decode(ids) == tokenizer.decode(kept, skip_special_tokens=False)


def test_gguf_and_folder_are_one_tokenizer() -> None:
    folder, file = load_tokenizer(TINY), load_tokenizer(GOLDEN / "gguf" / "tiny-BF16.gguf")
    for name in ("kind", "bos_token_id", "eos_token_ids", "pad_token", "add_bos", "vocab_size", "all_token_bytes"):
        assert getattr(folder, name) == getattr(file, name)
    for text in [*TEXTS, "<|im_start|>user\nHi<|im_end|>"]:
        assert folder.encode(text) == file.encode(text)


def agrees_with_transformers(folder: Path) -> None:
    judge = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    for text in [*TEXTS, "<|im_start|>user\n  Hi <|im_end|> <s> </s> [CLS] x"]:
        for special in (True, False):
            ids = judge.encode(text, add_special_tokens=special)
            assert tokenizer.encode(text, add_special_tokens=special) == ids
            assert tokenizer.decode(ids, skip_special_tokens=special) == judge.decode(ids, skip_special_tokens=special)
    assert (tokenizer.bos_token, tokenizer.eos_token) == (judge.bos_token, judge.eos_token)
    assert (tokenizer.pad_token, tokenizer.chat_template) == (judge.pad_token, judge.chat_template)
    assert tokenizer.convert_ids_to_tokens([5, 300]) == judge.convert_ids_to_tokens([5, 300])


def test_folder_equals_transformers() -> None:
    agrees_with_transformers(TINY)


def test_vocab_json_and_merges_equal_transformers(tmp_path: Path) -> None:
    model = json.loads((TINY / "tokenizer.json").read_text())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "pad_token": {"content": "<|im_end|>", "__type": "AddedToken"},
    } | tokens
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    agrees_with_transformers(tmp_path)


def test_vocab_txt_equals_golden(tmp_path: Path, tokenizers: dict[str, Tokenizer]) -> None:
    tokens = tokenizers["bert-bge"].convert_ids_to_tokens(range(tokenizers["bert-bge"].vocab_size))
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    tokenizer = load_tokenizer(tmp_path)
    assert [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS] == golden_ids("bert-bge")
    assert tokenizer.encode("hi") == [101, 7632, 102]


def protobuf(*fields: tuple[int, Any]) -> bytes:
    """A message of ints, floats and bytes."""
    parts = []
    for number, item in fields:
        if isinstance(item, bytes):
            parts.append(varint(number << 3 | 2) + varint(len(item)) + item)
        elif isinstance(item, float):
            parts.append(varint(number << 3 | 5) + struct.pack("<f", item))
        else:
            parts.append(varint(number << 3) + varint(item % (1 << 64)))
    return b"".join(parts)


def varint(number: int) -> bytes:
    out = []
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def sentencepiece(metadata: dict[str, Any], trainer: bytes) -> bytes:
    """The vocabulary of a GGUF file as a tokenizer.model."""
    columns = (metadata[PREFIX + name] for name in ("tokens", "scores", "token_type"))
    pieces = [
        (1, protobuf((1, token.encode()), (2, score), (3, type_))) for token, score, type_ in zip(*columns, strict=True)
    ]
    return protobuf(*pieces, (2, trainer))


def test_sentencepiece_bpe_equals_golden(tmp_path: Path, vocab_files: dict[str, Path]) -> None:
    trainer = protobuf((3, 2), (40, 0), (41, 1), (42, 2), (43, -1))
    metadata = GGUFFile(vocab_files["llama-spm"]).metadata
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece(metadata, trainer))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|b|>": 32001, "<|a|>": 32000}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.kind == "spm" and tokenizer.add_bos and tokenizer.eos_token_ids == (2,)
    assert [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS] == golden_ids("llama-spm")
    assert tokenizer.encode("<|a|><|b|>") == [1, 32000, 32001]


UNIGRAM = {
    "<pad>": 0.0,
    "</s>": 0.0,
    "<unk>": 0.0,
    "▁": -2.0,
    "▁the": -3.0,
    "▁cat": -4.0,
    "s": -3.5,
    "c": -6.0,
    "a": -5.0,
}
UNIGRAM |= {"t": -5.5, "at": -4.5}


def unigram_file(path: Path, **changes: Any) -> Path:
    metadata = {
        "model": "t5",
        "tokens": list(UNIGRAM),
        "scores": list(UNIGRAM.values()),
        "token_type": [3, 3, 2, *[1] * (len(UNIGRAM) - 3)],
        "eos_token_id": 1,
        "padding_token_id": 0,
        "unknown_token_id": 2,
    } | changes
    return gguf_files.write(path, gguf_files.gguf({PREFIX + key: item for key, item in metadata.items()}))


def test_unigram(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(unigram_file(tmp_path / "m"))
    assert tokenizer.kind == "unigram" and tokenizer.pad_token == "<pad>" and not tokenizer.add_bos
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("the  cats at ")) == [
        "▁the",
        "▁cat",
        "s",
        "▁",
        "at",
        "</s>",
    ]
    assert tokenizer.decode(tokenizer.encode("the cats")) == "the cats"
    assert tokenizer.encode("x", add_special_tokens=False) == [3, 2]


def bpe_metadata(**changes: Any) -> dict[str, Any]:
    metadata = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["a", "b", "ab", "<|im_end|>", "<x y>", "Ġ"],
        "token_type": [1, 1, 1, 3, 4, 1],
        "merges": ["a b"],
        "eos_token_id": 3,
    } | changes
    return {PREFIX + key: item for key, item in metadata.items() if item is not None}


def bpe_file(path: Path, **changes: Any) -> Path:
    return gguf_files.write(path, gguf_files.gguf(bpe_metadata(**changes)))


def test_user_defined_tokens_are_text(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bpe_file(tmp_path / "m"))
    assert tokenizer.encode("ab<x y>b<|im_end|>") == [2, 4, 1, 3]
    assert tokenizer.decode([2, 4, 1, 3]) == "ab<x y>b" and tokenizer.token_bytes(4) == b"<x y>"
    assert not tokenizer.is_special(4) and tokenizer.token_bytes(5) == b" "


def test_file_without_types_and_with_empty_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bpe_file(tmp_path / "m", token_type=None, tokens=["a", "b", "ab", "", ""]))
    assert tokenizer.encode("ab") == [2] and tokenizer.vocab_size == 5


@pytest.mark.parametrize(("add_bos", "add_eos", "expected"), [(True, False, [0, 2]), (False, True, [2, 3])])
def test_bos_and_eos_rules_of_the_file(tmp_path: Path, add_bos: bool, add_eos: bool, expected: list[int]) -> None:
    path = bpe_file(tmp_path / "m", add_bos_token=add_bos, add_eos_token=add_eos, bos_token_id=0)
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode("ab") == expected and tokenizer.encode("ab", add_special_tokens=False) == [2]
    assert tokenizer.add_bos is add_bos


def test_end_of_generation_is_control_tokens_only(tmp_path: Path) -> None:
    tokens = ["<|im_end|>", "<|endoftext|>", "<end_of_turn>", "x"]
    path = bpe_file(tmp_path / "m", tokens=tokens, token_type=[3, 1, 4, 3], merges=None, eos_token_id=3, eot_token_id=1)
    assert load_tokenizer(path).eos_token_ids == (0, 1, 3)


@pytest.mark.parametrize("name", KINDS)
def test_open_file_gives_its_tokenizer_again(vocab_files: dict[str, Path], name: str) -> None:
    file = GGUFFile(vocab_files[name])
    first, second = tokenizer_from_gguf(file), tokenizer_from_gguf(file)
    assert first.encode("Hello worlds") == second.encode("Hello worlds")


def test_named_chat_templates(tmp_path: Path) -> None:
    metadata = bpe_metadata() | {"tokenizer.chat_template": "A", "tokenizer.chat_template.tool_use": "B"}
    path = gguf_files.write(tmp_path / "m", gguf_files.gguf(metadata))
    assert load_tokenizer(path).chat_template == {"default": "A", "tool_use": "B"}
    folder = shutil.copytree(TINY, tmp_path / "folder")
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(folder).chat_template == {"default": "A", "tool_use": "B"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": None}, "holds no tokenizer"),
        ({"model": "rwkv"}, "kind 'rwkv'"),
        ({"pre": "new-scheme"}, "unknown scheme 'new-scheme'"),
        ({"tokens": None}, "without tokens"),
        ({"tokens": [1, 2]}, "wrong type at 'tokenizer.ggml.tokens'"),
        ({"tokens": ["a", "a"], "token_type": None}, "same token under two ids"),
        ({"token_type": [1]}, "1 values at 'tokenizer.ggml.token_type' for 6 tokens"),
        ({"merges": ["ab"]}, "merge that is no pair"),
        ({"merges": ["a q"]}, "damaged tokenizer"),
        ({"model": "llama"}, "without scores"),
        ({"model": "t5", "scores": [0.0] * 6, "precompiled_charsmap": [1, 2]}, "damaged tokenizer normaliser"),
        ({"model": "t5", "scores": [0.0] * 6, "precompiled_charsmap": [4, 0, 0, 0, 9, 9, 9, 9]}, "damaged tokenizer"),
        ({"model": "bert"}, "without the token [UNK]"),
    ],
)
def test_damaged_gguf_tokenizer_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_tokenizer(bpe_file(tmp_path / "m", **changes))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tokenizer.json", "{", "damaged tokenizer"),
        ("tokenizer_config.json", "[]", "not a JSON object"),
        ("tokenizer.model", "no protobuf", "no SentencePiece model"),
        ("config.json", "{}", "holds no tokenizer"),
    ],
)
def test_damaged_folder_is_refused(tmp_path: Path, name: str, content: str, expected: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=expected):
        load_tokenizer(tmp_path)


def test_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_tokenizer(tmp_path / "missing")


def test_wrong_input_is_refused() -> None:
    tokenizer = load_tokenizer(TINY)
    with pytest.raises(InvalidInputError, match=r"half a surrogate pair \(U\+D800\) at position 1"):
        tokenizer.encode("a\ud800")
    with pytest.raises(InvalidInputError, match="surrogate"):
        tokenizer.encode_batch(["a", "\udfff"])
    with pytest.raises(InvalidTypeError, match="not NoneType"):
        tokenizer.encode(None)  # type: ignore[arg-type]
    for ids in ([512], [1, -1]):
        with pytest.raises(InvalidInputError, match="not in the vocabulary; give ids from 0 to 511"):
            tokenizer.decode(ids)
    assert tokenizer.decode([]) == ""


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from octavo.tokenizer import load_tokenizer; load_tokenizer(sys.argv[1]).encode('x');"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'jinja2') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(TINY)], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
