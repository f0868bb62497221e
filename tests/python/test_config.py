"""config.json of both eras in one form, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.config import check_architecture, load_config, normalize_config
from octavo.errors import ModelError

LLAMA = {"model_type": "llama", "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8}
LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
GEMMA3 = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


def test_both_eras_give_the_same(tmp_path: Path) -> None:
    old = {**LLAMA, "rope_theta": 500000.0, "rope_scaling": LLAMA3, "torch_dtype": "bfloat16"}
    new = {**LLAMA, "rope_parameters": {**LLAMA3, "rope_theta": 500000.0}, "dtype": "bfloat16", "head_dim": 64}
    expected = {
        **LLAMA,
        "head_dim": 64,
        "dtype": "bfloat16",
        "rope_parameters": {**LLAMA3, "rope_theta": 500000.0},
    }
    assert normalize_config(old) == expected
    assert normalize_config(new) == expected
    assert "rope_scaling" in old  # the caller's dict is left alone


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"rope_type": "default", "rope_theta": 10000.0}),
        ({"model_type": "smollm3"}, {"rope_type": "default", "rope_theta": 2e6}),
        ({"rope_theta": 5.0, "rope_scaling": None}, {"rope_type": "default", "rope_theta": 5.0}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}},
            {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2},
        ),
        (
            {
                "rope_theta": 7.0,
                "rope_parameters": {"rope_type": "yarn", "factor": 4.0},
                "max_position_embeddings": 64,
            },
            {"rope_type": "yarn", "rope_theta": 7.0, "factor": 4.0, "original_max_position_embeddings": 64},
        ),
        (
            {
                "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0]},
                "original_max_position_embeddings": 4096,
                "max_position_embeddings": 131072,
            },
            {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "factor": 32.0,
                "short_factor": [1.0],
                "long_factor": [2.0],
                "original_max_position_embeddings": 4096,
            },
        ),
        (
            {"rotary_emb_base": 10000, "rotary_pct": 0.25},
            {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.25},
        ),
        (
            {"rope_scaling": {"rope_type": "llama3", "freq_factors": "rope_freqs.weight"}},
            {"rope_type": "llama3", "rope_theta": 10000.0, "freq_factors": "rope_freqs.weight"},
        ),
        ({"rope_parameters": GEMMA3}, GEMMA3),
        (
            {
                "rope_theta": 1e6,
                "rope_local_base_freq": 10000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            GEMMA3,
        ),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, GEMMA3),
        (
            {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
            {
                "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
    ],
)
def test_rope_has_one_form(given: dict[str, Any], expected: dict[str, Any]) -> None:
    result = normalize_config(given)
    assert result["rope_parameters"] == expected
    assert not {"rope_theta", "rope_scaling", "rope_local_base_freq", "rotary_pct"} & set(result)
    assert normalize_config(result) == result


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "magic"},
        {"rope_type": ["llama3"]},
        {"rope_type": "linear"},
        {"rope_type": "linear", "factor": 0},
        {"rope_type": "linear", "factor": float("nan")},
        {"rope_type": "linear", "factor": "2"},
        {"rope_type": "linear", "factor": True},
        {"rope_type": "llama3", "factor": 8.0},
        {"rope_type": "longrope", "short_factor": [], "long_factor": [1.0]},
        {"rope_type": "longrope", "short_factor": 1.0, "long_factor": [1.0]},
        {"rope_type": "default", "partial_rotary_factor": -1},
        {"rope_theta": float("inf")},
        [],
        3,
    ],
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_senseless_rope_is_refused(key: str, rope: Any) -> None:
    with pytest.raises(ModelError, match=r"^config\.json .*\.$"):
        normalize_config({key: rope})


def test_text_config_is_lifted() -> None:
    result = normalize_config(
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "torch_dtype": "bfloat16",
            "vision_config": {"hidden_size": 1152},
            "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "rope_scaling": None, "dtype": None},
        }
    )
    assert result["architectures"] == ["Gemma3ForConditionalGeneration"]
    assert (result["model_type"], result["hidden_size"], result["dtype"]) == ("gemma3_text", 2560, "bfloat16")
    assert not {"text_config", "vision_config"} & set(result)
    assert result["rope_parameters"]["full_attention"]["rope_theta"] == 1e6


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"hidden_size": 64, "num_attention_heads": 4}, {"num_key_value_heads": 4, "head_dim": 16}),
        ({"hidden_size": 64, "num_attention_heads": 4, "head_dim": 32}, {"head_dim": 32}),
        ({"hidden_size": 64, "num_attention_heads": 4, "head_dim": None}, {"head_dim": 16}),
        ({"n_embd": 768, "n_head": 12, "n_layer": 6}, {"hidden_size": 768, "num_hidden_layers": 6, "head_dim": 64}),
        ({"dim": 768, "n_heads": 12, "n_layers": 6}, {"num_attention_heads": 12, "num_hidden_layers": 6}),
        ({"torch_dtype": "torch.float16"}, {"dtype": "float16"}),
        ({}, {"dtype": None}),
    ],
)
def test_what_is_left_out_is_filled_in(given: dict[str, Any], expected: dict[str, Any]) -> None:
    result = normalize_config(given)
    assert {key: result[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("quantisation", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
        ({"quant_method": "awq"}, "AWQ"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "FP8"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({}, "an unnamed method"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_quantised_checkpoints_are_refused_by_name(quantisation: dict[str, Any], name: str, nested: bool) -> None:
    config: dict[str, Any] = {"quantization_config": quantisation}
    with pytest.raises(ModelError) as caught:
        normalize_config({"text_config": config} if nested else config)
    assert name in str(caught.value)
    assert "GGUF" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 0},
        {"hidden_size": -1},
        {"hidden_size": "64"},
        {"hidden_size": True},
        {"vocab_size": 2**40},
        {"hidden_size": 65, "num_attention_heads": 4},
        {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 3},
        {"text_config": []},
        {"quantization_config": "gptq"},
        {"dtype": 16},
    ],
)
def test_senseless_values_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"^config\.json .*\.$"):
        normalize_config(config)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["llama3", "yarn"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(LLAMA3)), inner, max_size=4),
)
_KEYS = st.sampled_from(
    ("architectures", "model_type", "text_config", "quantization_config", "torch_dtype", "dtype")
    + ("rope_scaling", "rope_parameters", "rope_theta")
    + ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "n_head")
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=st.dictionaries(_KEYS, _VALUES))
def test_any_object_is_refused_or_normalised(config: dict[str, Any]) -> None:
    try:
        result = normalize_config(config)
    except ModelError:
        return
    assert normalize_config(result) == result
    with pytest.raises(ModelError):
        check_architecture(result, ["LlamaForCausalLM"])


def test_an_unknown_architecture_is_told_what_there_is() -> None:
    supported = ["Qwen2ForCausalLM", "Qwen2Model", "LlamaForCausalLM", "GPT2LMHeadModel"]
    assert check_architecture({"architectures": ["New", "LlamaForCausalLM"]}, supported) == "LlamaForCausalLM"
    with pytest.raises(ModelError, match=r"the architecture New; octavo runs the families GPT2, Llama, Qwen2\."):
        check_architecture({"architectures": ["New"]}, supported)


@pytest.mark.parametrize("architectures", [None, [], "LlamaForCausalLM"])
def test_no_architecture_at_all(architectures: Any) -> None:
    with pytest.raises(ModelError, match="no architecture"):
        check_architecture({"architectures": architectures}, ["LlamaForCausalLM"])


def test_load_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert load_config(tmp_path) == LLAMA


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' + b"1" * 5000 + b"}"])
def test_a_damaged_config_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_config(tmp_path)


def test_a_huge_config_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="larger than"):
        load_config(tmp_path)
