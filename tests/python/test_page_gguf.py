"""The Basic page's GGUF case: Phi-3 in the mix of types that IQ2_M means, by the path that hf_hub_download prints.

That path is a link into the hub cache; its target has no suffix. The tokenizer is the file's, or a folder's.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smollm2
from octavo import LLM, SamplingParams
from octavo.weights.gguf import GGUFFile
from quantised_rows import add_layer, add_rows, write
from test_page_models import EXAMPLES
from test_tokenizer import PREFIX, protobuf, sentencepiece

gguf = pytest.importorskip("gguf")

VOCABULARY = Path(__file__).parents[1] / "golden" / "vocab" / "phi-3.gguf.xz"
HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 256, 512, 4, 1, 64, 32064
# As llama-quantize stores Phi-3 medium in IQ2_M.
TYPES = {
    "attn_qkv": ("Q4_K", (HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN),
    "attn_output": ("IQ3_S", HIDDEN, HIDDEN),
    "ffn_up": ("IQ2_S", 2 * FFN, HIDDEN),
    "ffn_down": ("IQ2_S", HIDDEN, FFN),
}
FIRST_ADDED, LAST_ADDED = 32000, 32010  # beyond SentencePiece's own; then padding


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The metadata of Phi-3's golden vocabulary."""
    path = tmp_path_factory.mktemp("vocab") / "phi-3"
    path.write_bytes(lzma.decompress(VOCABULARY.read_bytes()))
    return GGUFFile(path).metadata


@pytest.fixture(scope="module")
def model(vocabulary: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The link, in a hub cache."""
    repo = tmp_path_factory.mktemp("hub") / "models--bartowski--Phi-3-medium-4k-instruct-GGUF"
    link = repo / "snapshots" / ("0" * 40) / "Phi-3-medium-4k-instruct-IQ2_M.gguf"
    for folder in (repo / "blobs", link.parent):
        folder.mkdir(parents=True)
    write_model(repo / "blobs" / "0123456789abcdef", vocabulary)
    link.symlink_to(Path("../../blobs/0123456789abcdef"))
    return link


def write_model(path: Path, vocabulary: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_name("Phi 3 Medium 4k Instruct")
    writer.add_block_count(2)
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(2047)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary[PREFIX + "tokens"])
    writer.add_token_scores(vocabulary[PREFIX + "scores"])
    writer.add_token_types(vocabulary[PREFIX + "token_type"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(FIRST_ADDED)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(FIRST_ADDED)
    writer.add_add_bos_token(True)
    writer.add_chat_template(vocabulary["tokenizer.chat_template"])
    add_rows(writer, random, "token_embd.weight", "IQ3_S", VOCAB, HIDDEN, 1.0)
    add_rows(writer, random, "output.weight", "Q5_K", VOCAB, HIDDEN, 3 * HIDDEN**-0.5)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(2):
        add_layer(writer, random, layer, TYPES, HIDDEN)
    write(writer)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of microsoft/Phi-3-medium-4k-instruct without weights: SentencePiece's model, and what was added."""
    folder = tmp_path_factory.mktemp("Phi-3-medium-4k-instruct")
    columns = {PREFIX + name: vocabulary[PREFIX + name][:FIRST_ADDED] for name in ("tokens", "scores", "token_type")}
    trainer = protobuf((3, 2), (40, 0), (41, 1), (42, 2), (43, -1))
    (folder / "tokenizer.model").write_bytes(sentencepiece(columns, trainer))
    tokens = vocabulary[PREFIX + "tokens"]
    added = {
        str(i): {"content": tokens[i], "rstrip": i > FIRST_ADDED, "special": i != 2, "normalized": False}
        for i in (0, 1, 2, *range(FIRST_ADDED, LAST_ADDED + 1))
    }
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "added_tokens_decoder": added,
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "chat_template": vocabulary["tokenizer.chat_template"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def chat(model: Path, *options: str | Path) -> str:
    """What the example prints of greedy answers."""
    greedy = ("--max-tokens", "12", "--temperature", "0", "--kv-cache-memory-bytes", "64M")
    done = smollm2.run_python(EXAMPLES / "chat.py", "--model", model, *options, *greedy)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_chat_by_a_link_with_and_without_a_tokenizer(model: Path, tokenizer: Path) -> None:
    alone = chat(model)
    assert alone.count("<|user|>\\nWrite an essay") == 1 and alone.count("Generated text: ") == 4
    assert chat(model, "--tokenizer", tokenizer) == alone
    assert chat(model.resolve()) == alone


def test_greedy_ids_are_equal(model: Path, tokenizer: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=32)
    conversation = [{"role": "user", "content": "Write an essay about the importance of higher education."}]
    llms = [LLM(model, kv_cache_memory_bytes="64M", **options) for options in ({}, {"tokenizer": str(tokenizer)})]
    own, other = (llm.chat(conversation, params, use_tqdm=False)[0] for llm in llms)
    assert own.prompt_token_ids == other.prompt_token_ids
    assert own.prompt_token_ids[:2] == [1, 32010]  # <s><|user|>
    assert own.outputs[0].token_ids == other.outputs[0].token_ids
    assert len(set(own.outputs[0].token_ids)) > 5
