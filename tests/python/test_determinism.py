"""A prompt's tokens and logprobs are the same bits whatever else runs, however it is chunked, cached or threaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_folders import LLAMA3_ROPE, LlamaSpec, make_llama
from octavo import LLM, SamplingParams, loading
from raw_runs import record, run_views

BLOCK = 32  # tokens in a block of the cache
MAX_PROMPT = 100
MAX_OUTPUT = 24
# The longest request needs 4 blocks: a few of them together do not fit.
TINY_CACHE = 5

FOLDERS = {
    "bf16": LlamaSpec({"head_dim": 40, "rope_parameters": LLAMA3_ROPE}, dtype="bfloat16"),
    "fp16_biases": LlamaSpec({"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}, dtype="float16"),
}
MODELS = {  # name -> (folder or golden file, dtype)
    "bf16": ("bf16", "auto"),
    "fp16": ("fp16_biases", "auto"),
    "exact": ("bf16", "float32"),
    "Q4_1": ("tiny-Q4_1.gguf", "auto"),
    "Q8_0": ("tiny-Q8_0.gguf", "auto"),
    "Q4_K": ("tiny-Q4_K.gguf", "auto"),
}


@pytest.fixture(scope="module", autouse=True)
def poisoned_blocks():
    """Every block of the cache is full of NaN when it is handed out."""
    engine_options = loading._engine_options

    def poisoning(*args):
        options = engine_options(*args)
        options.poison_blocks = True
        return options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_engine_options", poisoning)
        yield


@dataclass(frozen=True)
class Setup:
    """How an engine runs requests; none of it may change a result."""

    max_num_batched_tokens: int = 512
    num_threads: int = 1
    max_num_seqs: int = 64
    enable_prefix_caching: bool = False
    enable_chunked_prefill: bool = True
    scheduling_policy: str = "fcfs"
    tiny_cache: bool = False


SETUPS = st.builds(
    Setup,
    max_num_batched_tokens=st.sampled_from([7, 32, 64, 512]),
    num_threads=st.integers(1, 3),
    max_num_seqs=st.sampled_from([1, 2, 3, 64]),
    enable_prefix_caching=st.booleans(),
    enable_chunked_prefill=st.booleans(),
    scheduling_policy=st.sampled_from(["fcfs", "priority"]),
    tiny_cache=st.booleans(),
)


@st.composite
def sampling_params(draw):
    logprobs = st.sampled_from([None, 0, 3, -1])
    common = {
        "max_tokens": draw(st.integers(1, MAX_OUTPUT)),
        "logprobs": draw(logprobs),
        "prompt_logprobs": draw(st.one_of(st.none(), logprobs)),
        "repetition_penalty": draw(st.sampled_from([1.0, 1.3])),
        "ignore_eos": draw(st.booleans()),
        "detokenize": False,
    }
    if draw(st.booleans()):
        return SamplingParams(temperature=0, **common)
    return SamplingParams(
        temperature=draw(st.sampled_from([0.5, 1.0, 1.7])),
        seed=draw(st.integers(0, 2**40)),
        n=draw(st.integers(1, 2)),
        top_k=draw(st.sampled_from([0, 5])),
        top_p=draw(st.sampled_from([1.0, 0.9])),
        min_p=draw(st.sampled_from([0.0, 0.05])),
        **common,
    )


@st.composite
def requests(draw):
    """(prompt, parameters, priority) of one request; prompts share beginnings of any length."""
    shared = np.random.default_rng(draw(st.integers(0, 1))).integers(0, 320, MAX_PROMPT)
    own = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, 320, MAX_PROMPT)
    n_prompt = draw(st.integers(1, MAX_PROMPT))
    n_shared = draw(st.integers(0, n_prompt))
    prompt = [*shared[:n_shared].tolist(), *own[n_shared:n_prompt].tolist()]
    return prompt, draw(sampling_params()), draw(st.integers(0, 2))


class Lab:
    """One model under many setups; engines live on, so that their caches are old and full."""

    def __init__(self, path, dtype):
        self._arguments = {"model": path, "dtype": dtype, "skip_tokenizer_init": True, "max_logprobs": -1}
        self.engine = cache(self._make)

    def _make(self, setup):
        options = {**self._arguments, **vars(setup)}
        n_blocks = TINY_CACHE if options.pop("tiny_cache") else 200
        return LLM(**options, max_model_len=160, kv_cache_memory_bytes=n_blocks * self._block_bytes)

    @property
    def _block_bytes(self):
        return _block_bytes(*(self._arguments[key] for key in ("model", "dtype")))

    def alone(self, prompt, params):
        """The records of a prompt run alone on one thread in one piece."""
        return self.together(Setup(), [(prompt, params, 0)])[0]

    def together(self, setup, batch):
        """The records of each of many requests."""
        prompts, params, priorities = map(list, zip(*batch, strict=True))
        views = run_views(self.engine(setup), prompts, params, priorities)
        return [[record(view) for view in samples] for samples in views]


@cache
def _block_bytes(path, dtype):
    llm = LLM(path, dtype=dtype, skip_tokenizer_init=True, kv_cache_memory_bytes="8M")
    return llm._model.core.kv_block_bytes


@pytest.fixture(scope="module")
def lab(golden, tmp_path_factory):
    """Labs by the name of their model."""

    @cache
    def folder(name):
        return make_llama(tmp_path_factory.mktemp(name), FOLDERS[name])

    @cache
    def get(name):
        source, dtype = MODELS[name]
        return Lab(folder(source) if source in FOLDERS else golden / "gguf" / source, dtype)

    return get


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(setup=SETUPS, batch=st.lists(requests(), min_size=1, max_size=6))
def test_same_bits_together_as_alone(name, lab, setup, batch):
    together = lab(name).together(setup, batch)
    for (prompt, params, _), records in zip(batch, together, strict=True):
        assert records == lab(name).alone(prompt, params)


LIVELY = SamplingParams(temperature=1.0, seed=3, max_tokens=MAX_OUTPUT, ignore_eos=True, logprobs=-1, detokenize=False)


def many_requests(n, n_prompt):
    rng = np.random.default_rng(n_prompt)
    return [(rng.integers(0, 320, n_prompt).tolist(), LIVELY, i % 3) for i in range(n)]


@pytest.mark.parametrize("name", MODELS)
def test_same_bits_after_preemption(name, lab):
    setup = Setup(num_threads=2, enable_prefix_caching=True, scheduling_policy="priority", tiny_cache=True)
    batch = many_requests(6, BLOCK - 5)  # one block each at first, two in the end
    together = lab(name).together(setup, batch)
    assert lab(name).engine(setup)._model.core.stats().n_preemptions > 0
    assert together == [lab(name).alone(prompt, params) for prompt, params, _ in batch]


@pytest.mark.parametrize("name", MODELS)
def test_same_bits_from_the_prefix_cache(name, lab):
    setup = Setup(num_threads=2, enable_prefix_caching=True, max_num_batched_tokens=64)
    prompt = np.random.default_rng(6).integers(0, 320, MAX_PROMPT).tolist()
    batch = [([*prompt[:n], 7], LIVELY, 0) for n in (99, 99, 64, 65, 31)]
    first, second = (lab(name).together(setup, batch) for _ in range(2))
    n_cached = sum((len(ids) - 1) // BLOCK * BLOCK for ids, _, _ in batch)  # of the second time alone
    assert lab(name).engine(setup)._model.core.stats().n_cached_tokens >= n_cached
    assert first == second == [lab(name).alone(prompt, params) for prompt, params, _ in batch]


@pytest.mark.parametrize("name", MODELS)
def test_same_bits_in_batches_of_every_size(name, lab):
    batch = many_requests(40, 45)
    alone = [lab(name).alone(prompt, params) for prompt, params, _ in batch]
    for n in (2, 3, 8, 9, 40):
        assert lab(name).together(Setup(num_threads=3), batch[:n]) == alone[:n]


def test_same_bits_of_a_real_model(golden, smollm2_path):
    def load(**options):
        return LLM(smollm2_path, kv_cache_memory_bytes="64M", max_logprobs=-1, **options)

    alone = load(num_threads=1, enable_prefix_caching=False)
    texts = [(golden / "texts" / f"{name}.txt").read_text("utf-8") for name in ("chinese", "code", "constitution")]
    prompts = [alone.get_tokenizer().encode(text)[:150] for text in texts]
    prompts += [prompts[1][:70], prompts[2][:9]]
    params = SamplingParams(temperature=0.8, seed=11, max_tokens=12, logprobs=-1)
    expected = [[record(view) for view in run_views(alone, [ids], params)[0]] for ids in prompts]
    together = load(num_threads=2, max_num_batched_tokens=96)
    for _ in range(2):  # the second time from the prefix cache
        views = run_views(together, prompts, params)
        assert [[record(view) for view in samples] for samples in views] == expected
