"""Arguments that scripts written for vLLM pass along and octavo has no use for: accepted, checked, without effect.

What would change results if it were ignored is not here: it is a field of EngineArgs, or refused by name in
octavo.engine_unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo import checks
from octavo.engine_options import OptionGroup
from octavo.errors import InvalidInputError, InvalidTypeError

_COMPAT = OptionGroup("Compatibility", "Accepted so that existing scripts run; none of them has an effect.")
_ONE_PROCESS = "there is one process"
_RECOMPUTED = "a preempted request is computed again"
_MAPPED = "files are mapped"
_NOT_COMPILED = "nothing is compiled or captured"


def _flag(default: bool | None, reason: str) -> Any:
    return _COMPAT.flag(default, f"No effect: {reason}.")


def _text(default: str | None, reason: str) -> Any:
    return _COMPAT.text(default, f"No effect: {reason}.")


def _whole(default: int | None, reason: str, minimum: int = 0) -> Any:
    return _COMPAT.whole(default, f"No effect: {reason}.", minimum=minimum)


def _number(default: float, reason: str) -> Any:
    return _COMPAT.number(default, f"No effect: {reason}.", minimum=0)


def _one_of(default: str | None, reason: str, *choices: str) -> Any:
    return _COMPAT.one_of(default, f"No effect: {reason}.", *choices)


def _mapping(reason: str) -> Any:
    return _COMPAT.mapping(f"No effect: {reason}.")


def _one(name: str, value: Any) -> int:
    number = checks.whole_number(name, value, 1)
    if number != 1:
        raise InvalidInputError(f"{name} must be 1, got {number}; octavo splits a model by tensor_parallel_size alone.")
    return number


def _only_one(flag: str) -> Any:
    return _COMPAT.field(
        1, "Must be 1: a model is split by tensor_parallel_size alone.", _one, {"type": int}, flags=[flag]
    )


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [checks.text(name, value)]
    if not isinstance(value, (Sequence, set, frozenset)):
        raise InvalidTypeError(f"{name} must be text or a list of texts, got {checks.shown(value)}.")
    return [checks.text(f"an item of {name}", item) for item in value]


def _sizes(name: str, value: Any) -> list[int]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidTypeError(f"{name} must be a list of integers, got {checks.shown(value)}.")
    return [checks.whole_number(f"an item of {name}", item, 1) for item in value]


def _level_or_mapping(name: str, value: Any) -> Any:
    if isinstance(value, Mapping) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidTypeError(f"{name} must be a level or a dict, got {checks.shown(value)}.")


def _level_or_json(text: str) -> Any:
    import json

    return json.loads(text)


def _list(check: Any, reason: str, kind: type) -> Any:
    return _COMPAT.field(None, f"No effect: {reason}.", check, {"nargs": "+", "type": kind})


@dataclass(kw_only=True)
class CompatibilityArgs:
    """Arguments without effect; each says why in its help."""

    code_revision: str | None = _text(None, "code from a model's folder is never run")
    config_format: str = _one_of("auto", "there is one way to read a config", "auto", "hf")
    model_impl: str = _one_of("auto", "every model runs on octavo's own code", "auto", "octavo", "vllm")
    disable_cascade_attn: bool = _flag(False, "there is one kind of attention")
    enable_sleep_mode: bool = _flag(False, "it needs no preparation")
    max_seq_len_to_capture: int = _whole(8192, _NOT_COMPILED, 1)
    compilation_config: int | Mapping[str, Any] | None = _COMPAT.field(
        None, f"No effect: {_NOT_COMPILED}.", _level_or_mapping, {"type": _level_or_json}, flags=["-cc"]
    )
    optimization_level: int | None = _whole(None, _NOT_COMPILED)
    cuda_graph_sizes: Sequence[int] | None = _list(_sizes, _NOT_COMPILED, int)
    cudagraph_capture_sizes: Sequence[int] | None = _list(_sizes, _NOT_COMPILED, int)
    max_cudagraph_capture_size: int | None = _whole(None, _NOT_COMPILED)

    ignore_patterns: str | Sequence[str] | None = _list(_words, "only the files a model needs are fetched", str)
    model_loader_extra_config: Mapping[str, Any] | None = _mapping("there are no other loaders to configure")
    safetensors_load_strategy: str | None = _one_of(None, _MAPPED, "lazy", "eager", "prefetch", "torchao")
    pt_load_map_location: str | Mapping[str, Any] | None = _text(None, _MAPPED)
    max_parallel_loading_workers: int | None = _whole(None, _ONE_PROCESS, 1)

    pipeline_parallel_size: int = _only_one("-pp")
    data_parallel_size: int = _only_one("-dp")
    distributed_executor_backend: str | None = _one_of(None, _ONE_PROCESS, "uni", "mp", "ray", "external_launcher")
    enable_expert_parallel: bool = _flag(False, "experts are not spread over devices")
    ray_workers_use_nsight: bool = _flag(False, _ONE_PROCESS)
    worker_cls: str = _one_of("auto", _ONE_PROCESS, "auto")

    swap_space: float = _number(4, _RECOMPUTED)
    preemption_mode: str | None = _one_of(None, _RECOMPUTED, "recompute", "swap")
    prefix_caching_hash_algo: str = _one_of(
        "sha256", "there is one hash", "builtin", "sha256", "sha256_cbor", "sha256_cbor_64bit", "xxhash", "xxhash_cbor"
    )
    calculate_kv_scales: bool = _flag(False, "the cache has no scales")
    use_v2_block_manager: bool = _flag(True, "there is one block manager")
    disable_hybrid_kv_cache_manager: bool | None = _flag(None, "there is one cache for all layers")
    kv_sharing_fast_prefill: bool = _flag(False, "no layers share a cache")

    offload_backend: str = _one_of("auto", "offloaded weights are read where they lie", "auto", "uva", "prefetch")
    offload_group_size: int = _whole(0, "offloading is by bytes; see cpu_offload_gb")
    offload_num_in_group: int = _whole(1, "offloading is by bytes; see cpu_offload_gb", 1)
    offload_prefetch_step: int = _whole(1, "offloading is by bytes; see cpu_offload_gb")
    offload_params: Sequence[str] | None = _list(_words, "offloading is by bytes; see cpu_offload_gb", str)
    cpu_offload_params: Sequence[str] | None = _list(_words, "offloading is by bytes; see cpu_offload_gb", str)

    max_num_partial_prefills: int = _whole(1, "a step takes as many prompts as it has room for", 1)
    max_long_partial_prefills: int = _whole(1, "a step takes as many prompts as it has room for", 1)
    long_prefill_token_threshold: int = _whole(0, "a step takes as many prompts as it has room for")
    num_scheduler_steps: int = _whole(1, "a step is one token", 1)
    multi_step_stream_outputs: bool = _flag(True, "a step is one token")
    num_lookahead_slots: int = _whole(0, "nothing is speculated")
    scheduler_delay_factor: float = _number(0.0, "a request is never held back")
    scheduler_cls: str | None = _text(None, "there is one scheduler")
    scheduler_reserve_full_isl: bool | None = _flag(None, "a request starts when its first tokens fit")
    async_scheduling: bool | None = _flag(None, "scheduling takes next to no time")
    disable_async_output_proc: bool = _flag(False, "outputs are made inside the step")
    stream_interval: int = _whole(1, "a stream gives what is new", 1)
    watermark: float = _number(0.0, "a block is given as long as there is one")

    guided_decoding_backend: str = _one_of(
        "auto", "there is one backend", "auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"
    )
    tokenizer_pool_size: int = _whole(0, "the tokenizer uses threads of its own")
    tokenizer_pool_type: str = _text("ray", "the tokenizer uses threads of its own")
    tokenizer_pool_extra_config: Mapping[str, Any] | None = _mapping("the tokenizer uses threads of its own")
    renderer_num_workers: int = _whole(1, "the tokenizer uses threads of its own", 1)
    additional_config: Mapping[str, Any] | None = _mapping("octavo has all its settings here")
    aggregate_engine_logging: bool = _flag(False, "there is one engine")
