"""Families of Llama's shape, and the scalings of its positions, against transformers in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from family_folders import FamilySpec, make_model
from llama_folders import LINEAR_ROPE, LLAMA3_ROPE, SMALL, write_old_config
from octavo import LLM, SamplingParams
from octavo.models import model_class
from raw_runs import RAW_LOGITS, all_logits, record, run_views
from reference import Logits, Reference, from_folder

CONTEXT = 48  # tokens of the context from which scalings stretch: between SHORT and a whole prompt
SHORT = 40
_ORIGINAL = {"rope_theta": 10000.0, "original_max_position_embeddings": CONTEXT}
YARN = {"rope_type": "yarn", "factor": 4.0, **_ORIGINAL}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 8.0}


def longrope(pairs: int) -> dict[str, object]:
    short = [1.0 + 0.02 * i for i in range(pairs)]
    return {"rope_type": "longrope", "short_factor": short, "long_factor": [1.0 + i for i in range(pairs)], **_ORIGINAL}


def spec(family: str, **config: object) -> FamilySpec:
    return FamilySpec(f"{family}ForCausalLM", {**SMALL, "pad_token_id": 0, **config})


SPECS = {
    "llama_yarn": spec("Llama", rope_parameters=YARN),
    "llama_yarn_factor_untruncated": spec(
        "Llama", rope_parameters={**YARN, "attention_factor": 0.7, "truncate": False, "beta_fast": 16}
    ),
    "llama_yarn_mscale": spec("Llama", rope_parameters={**YARN, "mscale": 0.7, "mscale_all_dim": 1.4}),
    "llama_dynamic": spec("Llama", rope_parameters=DYNAMIC, max_position_embeddings=CONTEXT),
    "llama_longrope": spec("Llama", rope_parameters=longrope(16)),
    "mistral": spec("Mistral", sliding_window=None, rope_parameters=LINEAR_ROPE),
    "mistral_window": spec("Mistral", sliding_window=24, head_dim=40),
    "qwen2": spec("Qwen2", tie_word_embeddings=True, rope_parameters=YARN),
    "qwen2_windows": spec(
        "Qwen2",
        use_sliding_window=True,
        sliding_window=20,
        max_window_layers=1,
        rope_parameters=DYNAMIC,
        max_position_embeddings=CONTEXT,
    ),
    "qwen3": spec("Qwen3", head_dim=48, tie_word_embeddings=True),
    "qwen3_layer_types": spec(
        "Qwen3",
        head_dim=32,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=20,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=LLAMA3_ROPE,
    ),
    "phi3": spec("Phi3", sliding_window=27),
    "phi3_longrope": spec(
        "Phi3",
        sliding_window=262144,
        tie_word_embeddings=True,
        original_max_position_embeddings=CONTEXT,
        rope_parameters={**longrope(12), "partial_rotary_factor": 0.75},
    ),
    "smollm3": spec("SmolLM3", num_hidden_layers=3, no_rope_layer_interval=2, tie_word_embeddings=True),
    "smollm3_windows": spec("SmolLM3", no_rope_layers=[1, 0], use_sliding_window=True, sliding_window=24),
    "granite": spec(
        "Granite",
        attention_bias=True,
        embedding_multiplier=1.7,
        residual_multiplier=0.4,
        attention_multiplier=0.11,
        logits_scaling=1.3,
    ),
    "olmo2": spec("Olmo2"),
}
OLD_CONFIGS = ("mistral", "qwen2_windows")  # spelt as transformers 4 did
FAMILIES = ("Granite", "Llama", "Mistral", "Olmo2", "Phi3", "Qwen2", "Qwen3", "SmolLM3")
PROMPT = np.random.default_rng(0).integers(0, 320, 70).tolist()  # beyond two blocks of the cache


@dataclass
class Model:
    folder: Path
    reference: Reference

    def llm(self, **arguments) -> LLM:
        arguments = {"dtype": "float32", "num_threads": 1, **RAW_LOGITS, **arguments}
        return LLM(self.folder, skip_tokenizer_init=True, kv_cache_memory_bytes="16M", **arguments)

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """After each token, in a sequence that grows by one more."""
        return self.reference.logits([*token_ids, 0])[:-1]


@pytest.fixture(scope="module", params=SPECS)
def model(request, tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp(request.param), SPECS[request.param])
    if request.param in OLD_CONFIGS:
        write_old_config(folder / "config.json")
    return Model(folder, from_folder(folder))


def test_exact_mode(model):
    llm = model.llm()
    # From long to short and then upwards: dynamic RoPE in transformers stays at the longest it saw, until it is short.
    for prompt in (PROMPT, PROMPT[:SHORT]):
        assert np.abs(all_logits(llm, prompt) - model.logits(prompt)).max() <= 1e-3
    prompts = [PROMPT[:1], PROMPT[40:43], PROMPT[:33], PROMPT]
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False)
    for ids, [view] in zip(prompts, run_views(llm, prompts, params), strict=True):
        assert len(view.output) == 64
        model.reference.check_greedy(ids, view.output)


def test_default_dtype(model):
    """The root mean square error, as a share of the logits' spread, and the same bits however the work is divided."""
    alone, divided = model.llm(dtype="auto"), model.llm(dtype="auto", num_threads=2, max_num_batched_tokens=29)
    model.reference.logits(PROMPT[:1])  # of a shorter context
    expected = model.logits(PROMPT)
    error = all_logits(alone, PROMPT) - expected
    assert np.sqrt(np.mean(error**2)) <= 0.02 * expected.std()
    prompts = [PROMPT, PROMPT[:33], PROMPT[40:43]]
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=3, prompt_logprobs=3, detokenize=False)
    together = run_views(divided, prompts, params)
    for ids, [view] in zip(prompts, together, strict=True):
        assert record(view) == record(run_views(alone, [ids], params)[0][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_transformers(family):
    import transformers

    config = getattr(transformers, f"{family}Config")
    defaults = model_class(f"{family}ForCausalLM").defaults
    assert {key: getattr(config, key) for key in defaults} == defaults
