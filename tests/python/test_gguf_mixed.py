"""Files whose tensors are of many types, each computed as it is stored, against what gguf dequantises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM
from quantised_rows import add_layer, add_rows, write
from raw_runs import RAW_LOGITS, all_logits
from reference import from_llama_gguf

gguf = pytest.importorskip("gguf")

HIDDEN, FFN, HEADS, HEAD_DIM, VOCAB = 256, 250, 4, 24, 300  # one head of keys; no size but HIDDEN fills strips of 16
SHAPES = {
    "attn_q": (HEADS * HEAD_DIM, HIDDEN),
    "attn_k": (HEAD_DIM, HIDDEN),
    "attn_v": (HEAD_DIM, HIDDEN),
    "attn_output": (HIDDEN, HEADS * HEAD_DIM),
    "ffn_gate": (FFN, HIDDEN),
    "ffn_up": (FFN, HIDDEN),
    "ffn_down": (HIDDEN, FFN),
}
# What the rows of each hold: attn_output's are no whole blocks of 256 and fall back, ffn_down's no blocks at all.
LAYERS = (
    ("Q4_K", "Q6_K", "Q8_0", "Q5_0", "IQ2_S", "Q5_K", "F16"),
    ("IQ3_S", "Q4_0", "BF16", "IQ4_NL", "MXFP4", "IQ2_XXS", "F32"),
    ("TQ2_0", "IQ4_XS", "F16", "Q5_1", "NVFP4", "TQ1_0", "BF16"),
)
# Of 256 normal values, the largest of them 3.1, to eight bits: a step is 3.1 / 127, and its error step / sqrt(12).
ROUNDING = 3.1 / 127 / 12**0.5


def write_model(path: Path, embedding: str, head: str | None) -> Path:
    """A llama; where there is no head, the embedding is it."""
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(len(LAYERS))
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"t{i}" for i in range(VOCAB)])
    add_rows(writer, random, "token_embd.weight", embedding, VOCAB, HIDDEN, 0.2)
    if head is not None:
        add_rows(writer, random, "output.weight", head, VOCAB, HIDDEN, 0.2)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer, kinds in enumerate(LAYERS):
        matrices = {name: (kind, *SHAPES[name]) for name, kind in zip(SHAPES, kinds, strict=True)}
        add_layer(writer, random, layer, matrices, HIDDEN)
    write(writer)
    return path


@pytest.fixture(params=[("Q4_K", "Q6_K"), ("IQ3_S", "Q5_K"), ("Q8_0", None), ("IQ2_S", None)], ids=str)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.gguf", *request.param)


def test_every_tensor_is_computed_as_it_is_stored(model: Path) -> None:
    prompt = np.random.default_rng(1).integers(0, VOCAB, 50).tolist()
    wanted = from_llama_gguf(model).logits(prompt)
    options: dict[str, Any] = {"skip_tokenizer_init": True, "kv_cache_memory_bytes": "16M", **RAW_LOGITS}
    exact = all_logits(LLM(model, dtype="float32", **options), prompt)
    assert np.abs(exact - wanted).max() <= 2e-3
    # Fast mode rounds activations and nothing else: four times a layer in a row (for attn_output, ffn_gate and ffn_up,
    # ffn_down), and errors of layers add up as squares. Weights in another type would cost more: Q8_0 as Q4_K 8 %.
    fast = all_logits(LLM(model, **options), prompt)
    assert np.sqrt(np.mean((fast - wanted) ** 2)) / wanted.std() <= 4 * ROUNDING * len(LAYERS) ** 0.5
