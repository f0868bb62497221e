"""cpu_offload_gb and tensor_parallel_size change where weights lie and who multiplies them, and no bit of a result."""

from __future__ import annotations

import gc
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from llama_folders import LlamaSpec, make_llama
from octavo import LLM
from raw_runs import RAW_LOGITS, all_logits

IDS = list(range(2, 90))


def load(model, **options):
    return LLM(model, skip_tokenizer_init=True, **{"kv_cache_memory_bytes": "16M", **RAW_LOGITS, **options})


def anonymous_memory():
    """Bytes this process holds that belong to no file."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


@pytest.fixture(scope="module", params=["float32", "bfloat16", "float16"])
def folder(request, tmp_path_factory):
    """A small Llama stored in a dtype; float32 is computed in bfloat16."""
    spec = LlamaSpec({"mlp_bias": True, "vocab_size": 331}, dtype=request.param)
    return make_llama(tmp_path_factory.mktemp(request.param), spec)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_weights_in_the_file_give_the_same_bits(folder, dtype):
    packed, left = load(folder, dtype=dtype), load(folder, dtype=dtype, cpu_offload_gb=1)
    np.testing.assert_array_equal(all_logits(packed, IDS), all_logits(left, IDS))
    assert left._model.weight_bytes < packed._model.weight_bytes / 20  # norms and biases


def test_only_as_much_stays_in_the_file_as_was_asked_for(folder):
    everything = load(folder)._model.weight_bytes
    budget = 100_000
    left = load(folder, cpu_offload_gb=budget / 2**30)
    stored_per_byte = 0.5 if "float32" in str(folder) else 1
    saved = everything - left._model.weight_bytes
    assert 0.5 * budget * stored_per_byte < saved <= budget * stored_per_byte + 4096  # strips are padded


def test_a_gguf_left_in_its_file_takes_less_memory(smollm2_path):
    bits, used = [], []
    for offload in (0, 1):
        gc.collect()
        before = anonymous_memory()
        llm = load(smollm2_path, cpu_offload_gb=offload)
        bits.append(all_logits(llm, IDS))
        used.append(anonymous_memory() - before)
        weight_bytes = llm._model.weight_bytes
        assert (weight_bytes > 60 << 20) == (offload == 0)
        del llm
    np.testing.assert_array_equal(*bits)
    assert used[1] < used[0] - (50 << 20)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_ranks_give_the_same_bits(folder, n_threads):
    expected = all_logits(load(folder, num_threads=1), IDS)
    for n_ranks in (1, 2, 3):
        llm = load(folder, num_threads=n_threads, tensor_parallel_size=n_ranks)
        np.testing.assert_array_equal(all_logits(llm, IDS), expected)


def test_more_ranks_than_threads_run_and_say_so(folder, caplog):
    caplog.set_level(logging.INFO, "octavo")
    llm = load(folder, num_threads=2, tensor_parallel_size=64, cpu_offload_gb=0.0001)
    assert all_logits(llm, IDS).shape[0] == len(IDS)
    assert any("tensor_parallel_size=64 is more than the 2 threads" in message for message in caplog.messages)
