"""Small random mixtures of experts against transformers in float32, and against themselves in other batches."""

from __future__ import annotations

import json

import numpy as np
import pytest

from moe_folders import MOE_SPECS, make_moe
from octavo import LLM, SamplingParams
from octavo.errors import ModelError
from octavo.weights.safetensors import open_safetensors
from raw_runs import RAW_LOGITS, all_logits, record, run_views
from reference import from_folder

N_PROMPT = 70  # beyond two blocks of the cache
GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False)


@pytest.fixture(scope="module", params=MOE_SPECS)
def model(request, tmp_path_factory):
    """(folder, reference, prompt) of one model."""
    folder = make_moe(tmp_path_factory.mktemp(request.param), MOE_SPECS[request.param])
    return folder, from_folder(folder), np.random.default_rng(0).integers(0, 320, N_PROMPT).tolist()


def load(folder, dtype, **options):
    options = {"kv_cache_memory_bytes": "16M", **RAW_LOGITS, **options}
    return LLM(folder, dtype=dtype, skip_tokenizer_init=True, **options)


def test_exact_mode(model):
    folder, reference, prompt = model
    llm = load(folder, "float32")
    assert np.abs(all_logits(llm, prompt) - reference.logits(prompt)).max() <= 1e-3
    prompts = [prompt, prompt[:33], prompt[40:43], prompt[:1]]
    for ids, [view] in zip(prompts, run_views(llm, prompts, GREEDY), strict=True):
        assert len(view.output) == 64
        reference.check_greedy(ids, view.output)


def test_fast_mode(model):
    """Most tokens go to the same experts as in float32, and the median error shows it, whatever other choices cost."""
    folder, reference, prompt = model
    expected = reference.logits(prompt)
    errors = np.sqrt(np.mean((all_logits(load(folder, "auto"), prompt) - expected) ** 2, axis=1))
    assert np.median(errors) <= 0.02 * expected.std()


def test_bits_do_not_depend_on_the_batch(model):
    folder, _, prompt = model
    params = SamplingParams(temperature=0.7, seed=3, max_tokens=12, logprobs=2, ignore_eos=True, detokenize=False)
    prompts = [prompt, prompt[:33], prompt[5:], prompt[:1]]
    together = load(folder, "auto", num_threads=3, max_num_batched_tokens=24, tensor_parallel_size=2)
    alone = load(folder, "auto", num_threads=1)
    found = [record(view) for [view] in run_views(together, prompts, params)]
    assert found == [record(view) for ids in prompts for [view] in run_views(alone, [ids], params)]


def test_experts_are_stored_one_by_one(model):
    """As in the published checkpoints; transformers holds them stacked in memory."""
    folder, _, _ = model
    names = open_safetensors(sorted(folder.glob("*.safetensors"))).keys()
    assert any(".experts.1." in name for name in names)
    assert not any(name.endswith("experts.gate_up_proj") for name in names)


@pytest.mark.parametrize("change", [{"num_local_experts": 6}, {"num_experts_per_tok": 9}, {"num_experts_per_tok": -1}])
def test_a_config_that_lies_is_refused(tmp_path, change):
    folder = make_moe(tmp_path, MOE_SPECS["mixtral"])
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=r"experts\.5|9 of 5 experts|num_experts_per_tok"):
        load(folder, "auto")
