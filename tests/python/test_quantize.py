"""`octavo quantize` makes AQLM checkpoints that octavo and transformers read alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoder_folders import make_encoder
from family_folders import FamilySpec, make_model
from llama_folders import LlamaSpec, make_llama
from moe_folders import MOE_SPECS, make_moe
from octavo import LLM, cli
from octavo.errors import InvalidInputError
from octavo.quantize.additive import Scheme, quantise, relative_error
from octavo.quantize.calibrate import Calibration
from raw_runs import RAW_LOGITS, all_logits
from reference import Reference, from_folder

SPEC = LlamaSpec(
    {"attention_bias": True, "vocab_size": 331, "max_position_embeddings": 64}, dtype="bfloat16", save="shards"
)
GEMMA3 = FamilySpec(
    "Gemma3ForCausalLM",
    {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 24,
    },
)
GOLDEN = Path(__file__).parents[1] / "golden"
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
    found = float(printed.out.split("outputs: ")[1])
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


def test_a_tied_head(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    folder = make_llama(tmp_path / "dense", LlamaSpec({"tie_word_embeddings": True}))
    assert run("--aqlm", "2x8", folder, tmp_path / "out") == 0
    theirs = Reference(AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval())
    assert type(theirs.model.lm_head) is torch.nn.Linear
    ours = all_logits(LLM(tmp_path / "out", dtype="float32", skip_tokenizer_init=True, **RAW_LOGITS), PROMPT)
    assert np.abs(ours - theirs.logits(PROMPT)).max() <= 2e-3


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


def correlated_inputs(rows, k, seed):
    """H of inputs of which the first few directions hold most of the power."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(k, k, generator=generator) / (1 + torch.arange(k)[:, None])
    inputs = torch.randn(rows, k, generator=generator) @ mixed
    return inputs.T @ inputs / rows


def test_correlated_inputs_count_by_their_power():
    import torch

    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(4))
    hessian = correlated_inputs(1000, 128, seed=5)
    errors = [relative_error(weight, quantise(weight, Scheme(2, 8, 2), h).weights(), hessian) for h in (None, hessian)]
    assert errors[1] < 0.6 * errors[0]


def test_later_groups_make_up_for_earlier_ones():
    """Inputs of equal power, all much alike: without feedback errors would add up as they do for unlike inputs."""
    import torch

    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(6))
    alike = torch.full((128, 128), 0.9) + 0.1 * torch.eye(128)
    errors = [relative_error(weight, quantise(weight, Scheme(2, 8, 2), h).weights(), alike) for h in (None, alike)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_the_unit_of_inputs_does_not_count(scale):
    import torch

    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(7))
    found = quantise(weight, Scheme(2, 8, 2), scale * correlated_inputs(100, 64, seed=8)).weights()
    assert bool(torch.isfinite(found).all())
    assert float((weight - found).square().mean()) < 0.1


def codes_in(folder):
    from safetensors.torch import load_file

    tensors = {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}
    return {name: value for name, value in tensors.items() if name.endswith(".codes")}


@pytest.fixture(scope="module")
def with_tokenizer(tmp_path_factory):
    spec = replace(SPEC, config={**SPEC.config, "vocab_size": 512})
    folder = make_llama(tmp_path_factory.mktemp("with_tokenizer"), spec)
    for path in (GOLDEN / "tiny-llama-tokenizer").glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


def test_a_text_calibrates(with_tokenizer, tmp_path):
    """By a text or by none, and again: the same codes, which another text changes."""
    import torch

    for name in ("chinese", "code"):
        text = (GOLDEN / "texts" / f"{name}.txt").read_text(encoding="utf-8")
        (tmp_path / f"{name}.txt").write_text(text * 4, encoding="utf-8")
    runs = {"a": "chinese", "b": "chinese", "c": "code", "d": None, "e": None}
    for out, text in runs.items():
        options = [] if text is None else ["--calibration", tmp_path / f"{text}.txt"]
        assert run("--aqlm", "2x8", *options, with_tokenizer, tmp_path / out) == 0
    codes = {out: codes_in(tmp_path / out) for out in runs}

    def same(one, other):
        assert set(codes[one]) == set(codes[other])
        return all(torch.equal(codes[one][name], codes[other][name]) for name in codes[one])

    assert same("a", "b") and same("d", "e")
    assert not same("a", "c") and not same("a", "d")


def test_layers_meet_what_they_meet_in_the_whole_model(tmp_path):
    """With windows of attention and rotations that differ by layer, and but for what was replaced."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path, GEMMA3)
    sequences = [list(range(3, 60)), list(range(60, 117))]

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.model.layers[0].mlp.up_proj.weight.data *= 0.5
    met = []
    model.model.layers[2].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].flatten(0, 1)))
    with torch.no_grad():
        model(torch.tensor(sequences))

    names = [f"model.layers.{i}" for i in range(3)]
    calibration = Calibration(folder, names, sequences)
    for name in names:
        with calibration.layer(name) as layer:
            if name == names[0]:
                layer.replace(f"{name}.mlp.up_proj", model.model.layers[0].mlp.up_proj.weight.data)
            hessian = layer.hessian(f"{name}.mlp.down_proj")
    torch.testing.assert_close(hessian, met[0].T @ met[0], rtol=1e-3, atol=1e-3 * float(hessian.diagonal().mean()))


def test_models_that_transformers_does_not_run(dense, tmp_path):
    with pytest.raises(InvalidInputError, match="has no module encoder.layers.0"):
        Calibration(dense, ["encoder.layers.0"], [PROMPT])
    config = json.loads((dense / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["UnheardOfForCausalLM"]}))
    with pytest.raises(InvalidInputError, match="transformers cannot load"):
        Calibration(tmp_path, ["model.layers.0"], [PROMPT])


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_mixtures_of_experts(tmp_path, name):
    spec = MOE_SPECS[name]
    spec = replace(spec, config={**spec.config, "max_position_embeddings": 64, "hidden_size": 256, "bos_token_id": 1})
    for folder in ("dense", "out"):
        (tmp_path / folder).mkdir()
    folder, out = make_moe(tmp_path / "dense", spec), tmp_path / "out"
    assert run("--aqlm", "2x8", folder, out) == 0
    assert any(".experts.1." in codes for codes in codes_in(out))
    logits = all_logits(LLM(out, dtype="float32", skip_tokenizer_init=True, **RAW_LOGITS), PROMPT)
    original = from_folder(folder).logits(PROMPT)
    assert np.corrcoef(logits.ravel(), original.ravel())[0, 1] > 0.8


def test_encoders_need_a_text(tmp_path, capsys):
    (tmp_path / "bert").mkdir()
    folder = make_encoder(tmp_path / "bert", "Bert", hidden_size=128, num_attention_heads=2, intermediate_size=128)
    assert run("--aqlm", "2x8", folder, tmp_path / "out") == 1
    assert "--calibration" in capsys.readouterr().err


def test_texts_that_do_not_calibrate(with_tokenizer, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("Too short.")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    for name, said in (("short", "give at least 64"), ("latin", "cannot be read"), ("none", "cannot be read")):
        assert run("--aqlm", "2x8", "--calibration", tmp_path / f"{name}.txt", with_tokenizer, tmp_path / "out") == 1
        error = capsys.readouterr().err
        assert f"{name}.txt" in error and said in error
    assert not (tmp_path / "out").exists()


def test_the_same_seed_gives_the_same_bits():
    import torch

    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(3))
    first, second = (quantise(weight, Scheme(2, 8, 2)) for _ in range(2))
    assert torch.equal(first.codes, second.codes) and torch.equal(first.vectors, second.vectors)
