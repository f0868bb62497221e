"""AQLM checkpoints against the aqlm package and transformers in float32."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from aqlm_folders import Scheme, aqlm_weight, dequantise, make_aqlm
from llama_folders import LlamaSpec, make_llama
from moe_folders import MoeSpec, make_moe
from octavo import LLM, SamplingParams, _core, cli
from octavo.errors import InvalidInputError, ModelError
from pooling_folders import write_tokenizer
from raw_runs import RAW_LOGITS, all_logits, record, run_views
from reference import Reference, from_folder

LLAMA = LlamaSpec()
BIASES = LlamaSpec({"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True})
MIXTRAL = MoeSpec("Mixtral", {"num_local_experts": 3, "sliding_window": None})
WIDE = LlamaSpec({"hidden_size": 256, "intermediate_size": 1200, "num_hidden_layers": 1, "mlp_bias": True})
TALL = LlamaSpec({"hidden_size": 1088, "head_dim": 32, "intermediate_size": 160, "num_hidden_layers": 1})
BROAD = LlamaSpec({"head_dim": 256, "num_key_value_heads": 4, "attention_bias": True, "num_hidden_layers": 1})
WIDE_MIXTRAL = MoeSpec("Mixtral", {"num_local_experts": 3, "intermediate_size": 1064, "num_hidden_layers": 1})
MODELS = {
    "llama_1x16": (LLAMA, Scheme(1, 16)),
    "llama_2x8": (LLAMA, Scheme(2, 8)),
    "llama_1x8": (BIASES, Scheme(1, 8)),
    "llama_2x16": (LLAMA, Scheme(2, 16)),
    "llama_8x8_g32": (BIASES, Scheme(8, 8, group=32)),
    "llama_1x12_g16": (BIASES, Scheme(1, 12, group=16)),
    "wide_llama_2x8": (WIDE, Scheme(2, 8)),
    "wide_llama_3x8_g16": (WIDE, Scheme(3, 8, group=16)),
    "wide_llama_1x16": (WIDE, Scheme(1, 16)),
    "tall_llama_2x8": (TALL, Scheme(2, 8)),
    "tall_llama_4x8_g16": (TALL, Scheme(4, 8, group=16)),
    "broad_llama_2x8": (BROAD, Scheme(2, 8)),
    "wide_mixtral_2x8": (WIDE_MIXTRAL, Scheme(2, 8)),
    "mixtral_1x16": (MIXTRAL, Scheme(1, 16)),
    "mixtral_2x8": (MIXTRAL, Scheme(2, 8)),
    "mixtral_1x8": (MIXTRAL, Scheme(1, 8)),
    "mixtral_2x16": (MIXTRAL, Scheme(2, 16)),
}
N_PROMPT = 70  # beyond two blocks of the cache
GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False)


def load(folder, dtype, **options):
    options = {"kv_cache_memory_bytes": "16M", **RAW_LOGITS, **options}
    return LLM(folder, dtype=dtype, skip_tokenizer_init=True, **options)


def made(tmp_path_factory, spec, scheme, **options):
    dense, folder = tmp_path_factory.mktemp("dense"), tmp_path_factory.mktemp("aqlm")
    (make_moe if isinstance(spec, MoeSpec) else make_llama)(dense, spec)
    return make_aqlm(folder, dense, scheme, **options)


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """(folder, reference, prompt) of one model."""
    folder = made(tmp_path_factory, *MODELS[request.param])
    reference = from_folder(dequantise(folder, tmp_path_factory.mktemp("twin")))
    return folder, reference, np.random.default_rng(0).integers(0, 320, N_PROMPT).tolist()


def test_exact_mode(model):
    folder, reference, prompt = model
    llm = load(folder, "float32")
    assert np.abs(all_logits(llm, prompt) - reference.logits(prompt)).max() <= 2e-3
    prompts = [prompt, prompt[:33], prompt[:1]]
    for ids, [view] in zip(prompts, run_views(llm, prompts, GREEDY), strict=True):
        assert len(view.output) == 64
        reference.check_greedy(ids, view.output)


def test_fast_mode(model):
    """Most tokens go to the same experts as in float32, and the median error shows it, whatever other choices cost."""
    folder, reference, prompt = model
    expected = reference.logits(prompt)
    errors = np.sqrt(np.mean((all_logits(load(folder, "auto"), prompt) - expected) ** 2, axis=1))
    assert np.median(errors) <= 0.02 * expected.std()


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_bits_depend_on_nothing_else(model, dtype):
    """Not on the batch, the chunking, the threads, the ranks, or where the codes lie."""
    folder, _, prompt = model
    params = SamplingParams(temperature=0.7, seed=3, max_tokens=12, logprobs=2, ignore_eos=True, detokenize=False)
    prompts = [prompt, prompt[:33], prompt[5:], prompt[:1]]
    options = {"num_threads": 3, "max_num_batched_tokens": 24, "tensor_parallel_size": 2, "cpu_offload_gb": 0.0004}
    together, alone = load(folder, dtype, **options), load(folder, dtype, num_threads=1)
    found = [record(view) for [view] in run_views(together, prompts, params)]
    assert found == [record(view) for ids in prompts for [view] in run_views(alone, [ids], params)]


@pytest.mark.parametrize("scheme", [Scheme(1, 16), Scheme(2, 8), Scheme(1, 8, group=16)], ids=str)
def test_transformers_own_integration(tmp_path_factory, scheme):
    """The same file, loaded by transformers, whose kernels are the aqlm package's."""
    import numba
    import torch
    from transformers import AutoModelForCausalLM

    numba.set_num_threads(1)  # the package's kernel for 8 bits adds to one sum from several threads, without care
    folder = made(tmp_path_factory, LLAMA, scheme)
    reference = Reference(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    assert type(reference.model.model.layers[0].mlp.up_proj).__name__ == "QuantizedLinear"
    prompt = np.random.default_rng(1).integers(0, 320, N_PROMPT).tolist()
    assert np.abs(all_logits(load(folder, "float32"), prompt) - reference.logits(prompt)).max() <= 2e-3


def test_the_first_checkpoints_spelling(tmp_path_factory):
    """Sizes in the config are not asked: the legacy ones are wrong."""
    folder = made(tmp_path_factory, LLAMA, Scheme(2, 8), legacy=True)
    twin = from_folder(dequantise(folder, tmp_path_factory.mktemp("twin")))
    prompt = list(range(3, 40))
    llm = load(folder, "float32", quantization="aqlm")
    assert np.abs(all_logits(llm, prompt) - twin.logits(prompt)).max() <= 2e-3


@pytest.mark.parametrize("spec", [LLAMA, WIDE], ids=["decoded", "looked up"])
def test_some_linears_stay_dense(tmp_path_factory, spec):
    """As linear_weights_not_to_quantize names them: also such that are computed together with quantised ones."""
    from safetensors.torch import load_file, save_file

    folder = made(tmp_path_factory, spec, Scheme(2, 8))
    tensors = load_file(folder / "model.safetensors")
    kept = [f"model.layers.0.{name}_proj" for name in ("self_attn.k", "mlp.up")]
    for name in kept:
        parts = [tensors.pop(f"{name}.{part}") for part in ("codes", "codebooks", "scales")]
        tensors[f"{name}.weight"] = aqlm_weight(*parts).half()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["linear_weights_not_to_quantize"] += [f"{name}.weight" for name in kept]
    (folder / "config.json").write_text(json.dumps(config))
    prompt = list(range(3, 40))
    expected = from_folder(dequantise(folder, tmp_path_factory.mktemp("twin"))).logits(prompt)
    assert np.abs(all_logits(load(folder, "float32"), prompt) - expected).max() <= 2e-3
    errors = all_logits(load(folder, "auto"), prompt) - expected
    assert np.sqrt(np.mean(errors**2)) <= 0.02 * expected.std()


@pytest.mark.parametrize("scheme", [Scheme(1, 16), Scheme(2, 8), Scheme(3, 5, 16), Scheme(1, 9, 32)], ids=str)
def test_dequantised_weights(scheme):
    import torch
    from aqlm.utils import pack_int_data

    n, k = 19, 96
    codes = pack_int_data(torch.randint(1 << scheme.bits, (n, k // scheme.group, scheme.codebooks)), scheme.bits)
    books = torch.randn(scheme.codebooks, 1 << scheme.bits, 1, scheme.group).half()
    scales = torch.rand(n, 1, 1, 1).half()
    assert int(codes.min()) < 0
    shape = (n, k, scheme.group, scheme.codebooks, scheme.bits)
    found = _core.dequantize_aqlm(shape, codes.numpy(), books.float().numpy(), scales.float().numpy())
    expected = aqlm_weight(codes, books, scales).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(found.astype(np.float16), expected.astype(np.float16))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("codebooks", lambda t: t.repeat(1, 1, 2, 1), "out_group_size"),
        ("codebooks", lambda t: t[:, :200].contiguous(), "power of two"),
        ("codebooks", lambda t: t[:1], "do not fit"),
        ("codebooks", lambda t: t[..., :4].contiguous(), "groups of 4"),
        ("codes", lambda t: t.int(), "stored as I32"),
        ("codes", lambda t: t.short(), "stored as I16"),
        ("codes", lambda t: t[:, :5].contiguous(), "columns, expected"),
        ("codes", lambda t: t[..., 0].contiguous(), "do not fit"),
        ("scales", lambda t: t[:5], "a scale in floats"),
        ("scales", lambda t: t.int(), "a scale in floats"),
    ],
)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_hostile_files_are_refused(tmp_path_factory, part, change, message, dtype):
    from safetensors.torch import load_file, save_file

    folder = made(tmp_path_factory, LLAMA, Scheme(2, 8))
    tensors = load_file(folder / "model.safetensors")
    name = f"model.layers.1.mlp.up_proj.{part}"
    save_file({**tensors, name: change(tensors[name])}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        load(folder, dtype)
    assert "\n" not in str(caught.value) and "up_proj" in str(caught.value)


@pytest.mark.parametrize("part", ["codes", "codebooks", "scales"])
def test_a_missing_part_is_named(tmp_path_factory, part):
    from safetensors.torch import load_file, save_file

    folder = made(tmp_path_factory, LLAMA, Scheme(2, 8))
    tensors = load_file(folder / "model.safetensors")
    del tensors[f"model.layers.0.self_attn.q_proj.{part}"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=rf"lacks the tensor 'model.layers.0.self_attn.q_proj.{part}'"):
        load(folder, "auto")


def test_info(tmp_path_factory, capsys):
    folder = made(tmp_path_factory, LLAMA, Scheme(2, 8))
    write_tokenizer(folder, eos_token="</s>")
    assert cli.main(["info", str(folder)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("AQLM matrices"))
    codes, codebooks = 2 * (3 * 128 * 192 + 2 * 128 * 128 + 2 * 64 * 128) / 4, 14 * 2 * 256 * 8 * 2
    scales = 2 * 2 * (2 * 192 + 128 + 128 + 128 + 2 * 64)
    assert line.split()[2:5] == ["14", f"{(codes + codebooks + scales) / 1024:.1f}", "KiB"]
    assert "tables" in line


def test_quantization_must_be_what_the_file_is(tmp_path):
    folder = make_llama(tmp_path, LLAMA)
    with pytest.raises(InvalidInputError, match="quantization is 'aqlm'"):
        load(folder, "auto", quantization="aqlm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "aqlm"}}))
    load(folder, "auto", quantization="aqlm")  # all of its linears are among those not to quantise
