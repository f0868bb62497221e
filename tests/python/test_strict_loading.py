"""Checkpoints that lack a tensor their config asks for, or hold one more: each is an error that names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from encoder_folders import FAMILIES, make_encoder
from family_folders import make_model
from gguf_writer import Rules, write_gguf
from moe_folders import MOE_SPECS, make_moe
from octavo import LLM
from octavo.errors import ModelError
from test_family_parity import SPECS
from test_llama_like_parity import SPECS as LLAMA_LIKE

DECODERS = {
    **{name: SPECS[name] for name in ("opt", "opt_galactica", "gpt2", "gpt_neox", "starcoder2", "starcoder2_plain")},
    **{name: SPECS[name] for name in ("stablelm", "stablelm_head_norms", "gemma", "gemma2", "gemma3")},
    **{
        name: LLAMA_LIKE[name]
        for name in ("llama_yarn", "mistral", "qwen2", "qwen3_layer_types", "phi3", "smollm3", "granite", "olmo2")
    },
}
NO_BIASES_AT_ALL = ("lm_head", "embed", "wte", "wpe", "expert", "norm", "ln_", "gate.weight", "relative_attention")


def write(name: str, folder: Path) -> Path:
    if name in DECODERS:
        return make_model(folder, DECODERS[name])
    if name in MOE_SPECS:
        return make_moe(folder, MOE_SPECS[name])
    return make_encoder(folder, name, "ForSequenceClassification", num_labels=3)


def one_of_each(names: list[str]) -> list[str]:
    """The last layer's, and of experts the last's."""
    return list({re.sub(r"\d+", "N", name): name for name in sorted(names)}.values())


def load(folder: Path) -> LLM:
    return LLM(folder, skip_tokenizer_init=True, kv_cache_memory_bytes="1M", num_threads=1)


@pytest.mark.parametrize("name", [*DECODERS, "mixtral", "qwen2_moe", "qwen3_moe", *FAMILIES])
def test_every_tensor_is_asked_for(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write(name, tmp_path)
    file = folder / "model.safetensors"
    tensors = load_file(file)

    def refused(kept: dict[str, Any], message: str) -> None:
        save_file(kept, file)
        with pytest.raises(ModelError, match=message):
            load(folder)

    for missing in one_of_each(list(tensors)):
        known_as = missing.replace("embed_out", "lm_head")
        refused({n: t for n, t in tensors.items() if n != missing}, f"lacks the tensor {known_as!r}")
    modules = [n.removesuffix(".weight") for n in one_of_each(list(tensors)) if n.endswith(".weight")]
    for module in modules:
        weight = tensors[f"{module}.weight"]
        if f"{module}.bias" not in tensors and not any(part in f"{module}.weight" for part in NO_BIASES_AT_ALL):
            refused({**tensors, f"{module}.bias": weight[:, 0].contiguous()}, rf"no use for \('{module}.bias'\)")
    save_file(tensors, file)
    load(folder)


@pytest.mark.parametrize("biased", [True, False])
def test_a_gguf_has_the_biases_that_its_first_layer_has(biased: bool, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_model(tmp_path, LLAMA_LIKE["llama_yarn"])
    tensors = load_file(folder / "model.safetensors")
    biases = {}
    for layer in range(2):
        for part in "qkvo":
            name = f"model.layers.{layer}.self_attn.{part}_proj"
            biases[f"{name}.bias"] = tensors[f"{name}.weight"][:, 0].copy()
    wrong = "model.layers.1.self_attn.k_proj.bias"
    changed = {name: b for name, b in biases.items() if name != wrong} if biased else {wrong: biases[wrong]}
    save_file({**tensors, **changed}, folder / "model.safetensors", metadata={"format": "pt"})
    path = write_gguf(tmp_path / "m.gguf", folder, Rules("llama", interleaved=True))
    message = f"lacks the tensor {wrong!r}" if biased else rf"no use for \('{wrong}'\)"
    with pytest.raises(ModelError, match=message):
        load(path)
