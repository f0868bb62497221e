"""`octavo quantize` makes AQLM checkpoints that octavo and transformers read alike."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from llama_folders import LlamaSpec, make_llama
from octavo import LLM, cli
from octavo.quantize.additive import Scheme, quantise
from raw_runs import RAW_LOGITS, all_logits
from reference import Reference, from_folder

SPEC = LlamaSpec({"attention_bias": True, "vocab_size": 331}, dtype="bfloat16", save="shards")
PROMPT = list(range(3, 60))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = make_llama(tmp_path_factory.mktemp("dense"), SPEC)
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def run(*args):
    return cli.main(["quantize", *map(str, args)])


@pytest.mark.parametrize(("scheme", "error"), [("2x8", 0.33), ("4x8", 0.1)])
def test_checkpoints(dense, tmp_path, capsys, scheme, error):
    import numba
    import torch
    from transformers import AutoModelForCausalLM

    out = tmp_path / "out"
    assert run("--aqlm", scheme, dense, out) == 0
    printed = capsys.readouterr()
    found = float(printed.out.split("weights: ")[1])
    assert 0 < found < error
    assert "14 matrices" in printed.out and "100%" in printed.err

    logits = all_logits(LLM(out, dtype="float32", skip_tokenizer_init=True, **RAW_LOGITS), PROMPT)
    numba.set_num_threads(1)  # the package's kernel adds to one sum from several threads, without care
    theirs = Reference(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval())
    assert type(theirs.model.model.layers[0].mlp.up_proj).__name__ == "QuantizedLinear"
    assert np.abs(logits - theirs.logits(PROMPT)).max() <= 2e-3
    original = from_folder(dense).logits(PROMPT)
    noise = np.sqrt(np.mean((logits - original) ** 2)) / original.std()
    assert noise < 4 * error  # the layers' errors add up

    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (config["num_codebooks"], config["nbits_per_codebook"]) == tuple(map(int, scheme.split("x")))
    assert {"lm_head.weight", "model.embed_tokens.weight"} < set(config["linear_weights_not_to_quantize"])
    assert (out / "tokenizer_config.json").is_file() and not list(out.glob("*.index.json"))


def test_a_codebook_larger_than_its_matrix_is_refused(dense, tmp_path, capsys):
    assert run("--aqlm", "1x16", dense, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "codebooks would have 524,288" in error and "2x8" in error
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(dense, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run("--aqlm", "2x8", dense, tmp_path) == 1
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_quantised_checkpoints_are_refused(dense, tmp_path, capsys):
    assert run("--aqlm", "2x8", dense, tmp_path / "once") == 0
    assert run("--aqlm", "2x8", tmp_path / "once", tmp_path / "twice") == 1
    assert "is stored as AQLM" in capsys.readouterr().err
    shutil.copy(dense / "config.json", tmp_path)
    assert run("--aqlm", "2x8", tmp_path / "model.gguf", tmp_path / "twice") == 1


def test_below_round_to_nearest():
    """The error of a random matrix, against rounding groups of 32 to four levels: with scale and minimum 3 bits."""
    import torch

    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(1))
    groups = weight.view(-1, 32)
    low, high = groups.min(1, keepdim=True).values, groups.max(1, keepdim=True).values
    rounded = ((groups - low) / (high - low) * 3).round() / 3 * (high - low) + low
    errors = [
        float((weight - w).square().mean())
        for w in (quantise(weight, Scheme(2, 8, 4)).weights(), rounded.view(256, -1))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_rows_of_zeros_and_unused_vectors():
    import torch

    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(2))
    weight[[0, 17]] = 0
    found = quantise(weight, Scheme(2, 8, 2)).weights()
    assert bool(torch.isfinite(found).all())
    assert float((weight - found).square().mean()) < 0.05
    assert not found[[0, 17]].any()


def test_the_same_seed_gives_the_same_bits():
    import torch

    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(3))
    first, second = (quantise(weight, Scheme(2, 8, 2)) for _ in range(2))
    assert torch.equal(first.codes, second.codes) and torch.equal(first.vectors, second.vectors)
