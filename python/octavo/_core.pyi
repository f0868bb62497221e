"""The C++ core of octavo (bindings/)."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__version__: str
KV_BLOCK_TOKENS: int

class CoreError(ValueError): ...

def isa() -> str: ...
def cpu_name() -> str: ...
def usable_cpus() -> int: ...
def numa_nodes() -> int: ...
def available_memory() -> int: ...
def formats() -> list[dict[str, Any]]: ...
def dequantize(format: str, blocks: Any, n: int) -> npt.NDArray[np.float32]: ...
def dequantize_aqlm(
    shape: tuple[int, int, int, int, int],
    codes: Any,
    codebooks: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]: ...
def search_aqlm(
    groups: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], n_threads: int
) -> npt.NDArray[np.int32]: ...
def quantize(format: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...
def read_strings(buffer: Any, start: int, count: int) -> tuple[list[str], int] | None: ...
def merges_from_scores(tokens: list[str], scores: Sequence[float]) -> list[tuple[str, str]]: ...

class WeightStore:
    def __init__(self, n_threads: int, n_ranks: int = 1) -> None: ...
    def add_linear(self, name: str, format: str, n: int, k: int, rows: Any, target: str, mapped: bool) -> int: ...
    def add_head(self, name: str, format: str, n: int, k: int, rows: Any, target: str, mapped: bool) -> int: ...
    def leave_linear(self, name: str, format: str, n: int, k: int, rows: Any, target: str) -> int: ...
    def add_aqlm(
        self,
        name: str,
        shape: tuple[int, int, int, int, int],
        codes: Any,
        codebooks: npt.NDArray[np.float32],
        scales: npt.NDArray[np.float32],
        target: str,
        mapped: bool,
    ) -> int: ...
    def leave_aqlm(
        self,
        name: str,
        shape: tuple[int, int, int, int, int],
        codes: Any,
        codebooks: npt.NDArray[np.float32],
        scales: npt.NDArray[np.float32],
        target: str,
    ) -> int: ...
    def add_embedding(self, name: str, format: str, n: int, k: int, rows: Any) -> int: ...
    def add_vector(self, name: str, format: str, n: int, rows: Any) -> int: ...
    @property
    def memory_bytes(self) -> int: ...

class Activation:
    silu: Activation
    gelu: Activation
    gelu_tanh: Activation
    quick_gelu: Activation
    relu: Activation
    relu2: Activation
    tanh: Activation
    sigmoid: Activation

class EmbedSource:
    tokens: EmbedSource
    positions: EmbedSource
    types: EmbedSource

class Graph:
    def __init__(self, weights: WeightStore) -> None: ...
    def embed(self, table: int, source: EmbedSource, offset: int) -> int: ...
    def gather(self, width: int) -> int: ...
    def rms_norm(self, x: int, weight: int, eps: float) -> int: ...
    def layer_norm(self, x: int, weight: int, bias: int | None, eps: float) -> int: ...
    def linear(self, x: int, parts: Sequence[tuple[int, int | None]]) -> list[int]: ...
    def attention(
        self,
        q: int,
        k: int,
        v: int,
        *,
        layer: int,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        rope: int,
        window: int,
        scale: float,
        soft_cap: float,
        causal: bool,
        bias: int | None,
    ) -> int: ...
    def moe(
        self,
        x: int,
        *,
        router: int,
        experts: Sequence[Sequence[int]],
        top_k: int,
        normalize: bool,
        activation: Activation,
    ) -> int: ...
    def activation(self, x: int, kind: Activation) -> int: ...
    def scale(self, x: int, factor: float) -> int: ...
    def soft_cap(self, x: int, cap: float) -> int: ...
    def mul(self, a: int, b: int) -> int: ...
    def add(self, a: int, b: int) -> int: ...
    def add_rope(
        self,
        inv_freq: Sequence[float],
        scale: float,
        *,
        switch_length: int,
        long_inv_freq: Sequence[float],
        ntk_theta: float,
        ntk_factor: float,
    ) -> int: ...
    def set_output(self, x: int) -> None: ...
    def width(self, x: int) -> int: ...

class LogprobsMode:
    raw_logprobs: LogprobsMode
    raw_logits: LogprobsMode
    processed_logprobs: LogprobsMode
    processed_logits: LogprobsMode

class HostHook(Protocol):
    def process_logits(self, sequence: int, logits: Any, prompt: list[int], output: list[int]) -> None: ...
    def fill_masks(self, sequences: list[int], outputs: list[Any], masks: Any) -> None: ...

class SamplingConfig:
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    seed: int | None
    max_tokens: int
    min_tokens: int
    eos_token_ids: list[int]
    stop_token_ids: list[int]
    ignore_eos: bool
    stop: list[str]
    include_stop_str_in_output: bool
    detokenize: bool
    skip_special_tokens: bool
    logprobs: int | None
    prompt_logprobs: int | None
    logprobs_mode: LogprobsMode
    logit_bias: Any
    allowed_token_ids: list[int]
    bad_words: list[list[int]]
    host_hook: bool
    host_mask: bool
    logprob_token_ids: list[int]
    prompt_logprob_token_ids: list[int]
    prompt_logprob_start: int
    skip_prefix_cache: bool
    def set_repetition_detection(self, max_pattern_size: int, min_pattern_size: int, min_count: int) -> None: ...

class SequenceView:
    """What is new of a sequence since its last view; prompt_logprobs and pooled come with the last one."""

    id: int
    output: list[int]
    text: str
    logprobs: list[Any]
    prompt_logprobs: list[Any]
    finish_reason: str | None
    stop_token: int
    stop_string: int
    error: str
    n_cached: int
    pooled: npt.NDArray[np.float32] | None
    times: tuple[float, float, float, float]

class EngineStats:
    n_steps: int
    n_prompt_tokens: int
    n_output_tokens: int
    n_cached_tokens: int
    n_preemptions: int
    n_running: int
    n_waiting: int
    n_blocks: int
    n_free_blocks: int

class EngineOptions:
    n_threads: int
    n_ranks: int
    exact: bool
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    enable_prefix_caching: bool
    enable_chunked_prefill: bool
    priority_scheduling: bool
    bidirectional: bool
    kv_cache_bytes: int
    seed: int
    poison_blocks: bool

class Engine:
    def __init__(self, body: Graph, head: Graph, options: EngineOptions) -> None: ...
    def set_token_table(
        self, tokens: Sequence[bytes], flags: Sequence[int], strip_leading_space: bool, whole_byte_runs: bool
    ) -> None: ...
    def add(
        self,
        prompt: Sequence[int],
        sampling: SamplingConfig,
        *,
        priority: int,
        cache_salt: str,
        request: int,
        child: int,
        embeds: npt.NDArray[np.float32] | None = None,
    ) -> int: ...
    def add_pooling(
        self,
        token_ids: Sequence[int],
        pooling: str,
        *,
        token_types: Sequence[int] | None = None,
        priority: int,
        cache_salt: str,
        request: int,
    ) -> int: ...
    def remove(self, ids: Sequence[int]) -> None: ...
    def run(self, ids: Sequence[int], *, any_change: bool, seconds: float, hook: HostHook | None) -> None: ...
    def updates(self, ids: Sequence[int]) -> list[SequenceView]: ...
    def stats(self) -> EngineStats: ...
    def reset_prefix_cache(self) -> None: ...
    def check_integrity(self) -> None: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def embedding_size(self) -> int: ...
    @property
    def kv_block_bytes(self) -> int: ...
    @property
    def n_blocks(self) -> int: ...
    @property
    def arena_bytes(self) -> int: ...
