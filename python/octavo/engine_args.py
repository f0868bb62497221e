"""Every argument of the engine: its type, default and effect, in Python and on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, TypeVar

from octavo import checks
from octavo.engine_compat import CompatibilityArgs
from octavo.engine_options import OptionGroup, json_object, option_of, read_int, text_or_path
from octavo.engine_unknown import explain_unknown
from octavo.errors import InvalidInputError
from octavo.pooling.config import PoolerConfig, read_pooler_config
from octavo.utils.argparse_utils import human_readable_int

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CPU_MAX_NUM_BATCHED_TOKENS = 512
CPU_MAX_NUM_SEQS = 64
LARGEST_THAT_FITS = -1  # max_model_len="auto"

_Container = TypeVar("_Container", bound=argparse._ActionsContainer)
_NO_EFFECT = "Accepted so that existing scripts run; no effect"

_MODEL = OptionGroup("Model", "Which model to run and how to read it.")
_POOLING = OptionGroup("Pooling", "How a pooling model makes its results.")
_LOAD = OptionGroup("Load", "How the model's files are found and loaded.")
_PARALLEL = OptionGroup("Parallel", "What the model runs on.")
_CACHE = OptionGroup("Cache", "The cache of keys and values.")
_OFFLOAD = OptionGroup("Offload", "Weights that stay outside the device's memory.")
_SCHEDULER = OptionGroup("Scheduler", "Which requests run together.")
_ENGINE = OptionGroup("Engine", "Everything else.")

_RUNNER_OF_TASK = {
    "auto": ("auto", "auto"),
    "generate": ("generate", "none"),
    "embed": ("pooling", "embed"),
    "embedding": ("pooling", "embed"),
    "classify": ("pooling", "classify"),
    "score": ("pooling", "classify"),
    "reward": ("pooling", "none"),
}

_JSON = {"type": json_object, "metavar": "JSON"}
_DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")


def _max_model_len(name: str, value: Any) -> int:
    number = LARGEST_THAT_FITS if value == "auto" else checks.plain(read_int(name, value))
    return LARGEST_THAT_FITS if number == LARGEST_THAT_FITS else checks.whole_number(name, number, 1)


def _max_model_len_from_cli(value: str) -> int:
    return LARGEST_THAT_FITS if value == "auto" else human_readable_int(value)


def _dtype(name: str, value: Any) -> str:
    word = str(value).removeprefix("torch.")
    if word not in _DTYPES:
        raise InvalidInputError(f"{name} must be one of {', '.join(_DTYPES)}, got {checks.shown(value)}.")
    return word


def _token_or_switch(name: str, value: Any) -> str | bool:
    return value if isinstance(value, bool) else checks.text(name, value)


def _no_processors(name: str, value: Any) -> None:
    if value:
        raise InvalidInputError(
            f"{name} of an engine are not run; give functions to requests by SamplingParams(logits_processors=...)."
        )


def _fraction(name: str, value: Any) -> float:
    number = checks.real_number(name, value, 0, 1)
    if number == 0:
        raise InvalidInputError(f"{name} must be above 0 and at most 1, got {number}.")
    return number


def generation_config_field(default: str | None) -> Any:
    """The field of that name; octavo.as_vllm gives it another default."""
    return _MODEL.field(
        default,
        "Default sampling parameters: auto for the model's own, or a folder; None for octavo's.",
        text_or_path,
        {},
        optional=True,
    )


@checks.reject_unknown_arguments(explain_unknown)
@dataclass
class EngineArgs(CompatibilityArgs):
    """Arguments of the engine; `LLM` takes the same ones.

    A wrong value raises InvalidInputError (a ValueError); a wrong type or an unknown argument raises InvalidTypeError
    (a TypeError). Sizes may be written as text, such as "4k" (4000) or "2G" (2 * 2**30).
    """

    model: str = _MODEL.text(DEFAULT_MODEL, "Folder, GGUF file, hub name or pkg:// name of the model.")
    tokenizer: str | None = _MODEL.text(None, "Folder or hub name to take the tokenizer from; None is the model.")
    tokenizer_mode: str = _MODEL.one_of("auto", f"{_NO_EFFECT}: there is one way to tokenize.", "auto", "hf", "slow")
    skip_tokenizer_init: bool = _MODEL.flag(False, "Load no tokenizer: prompts and outputs are token ids only.")
    enable_prompt_embeds: bool = _MODEL.flag(False, "Take rows of embeddings as prompts (prompt_embeds).")
    runner: str = _MODEL.one_of("auto", "What the model is run for.", "auto", "generate", "pooling")
    convert: str = _MODEL.one_of("auto", "Turn a model into one for pooling.", "auto", "none", "embed", "classify")
    task: str | None = _MODEL.one_of(None, "Another way to give runner and convert.", *_RUNNER_OF_TASK)
    dtype: str = _MODEL.field(
        "auto", "Type of computation; auto follows the model's files, float32 is exact.", _dtype, {"choices": _DTYPES}
    )
    quantization: str | None = _MODEL.one_of(
        None, "Format the weights must have; None takes what the files hold.", "aqlm", "gguf", flags=["-q"]
    )
    max_model_len: int | str | None = _MODEL.field(
        None,
        "Most tokens of a prompt and its output; None is the model's own, auto (-1) the most that memory holds.",
        _max_model_len,
        {"type": _max_model_len_from_cli},
    )
    seed: int | None = _MODEL.whole(
        0,
        "Seed of the samples of requests without one; None draws one at random.",
        minimum=-(2**63),
        maximum=2**63 - 1,
        optional=True,
    )
    max_logprobs: int = _MODEL.whole(20, "Most logprobs a request may ask for; -1 sets no limit.", minimum=-1)
    logprobs_mode: str = _MODEL.one_of(
        "raw_logprobs",
        "Whether logprobs come before or after penalties and filters, as log probabilities or as logits.",
        *("raw_logprobs", "processed_logprobs", "raw_logits", "processed_logits"),
    )
    generation_config: str | None = generation_config_field(None)
    override_generation_config: Mapping[str, Any] | None = _MODEL.mapping(
        "Default sampling parameters that go before those of generation_config."
    )
    chat_template: str | None = _MODEL.text(None, "Chat template: a file or the template itself; None is the model's.")
    hf_config_path: str | None = _MODEL.text(None, "Folder or hub name to take config.json from; None is the model.")
    hf_overrides: Mapping[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] | None = _MODEL.mapping(
        "Values that replace those of config.json; in Python also a function of the whole config.", or_callable=True
    )
    rope_scaling: Mapping[str, Any] | None = _MODEL.mapping("Replaces rope_scaling of config.json.")
    rope_theta: float | None = _MODEL.number(None, "Replaces rope_theta of config.json.", minimum=0)
    trust_remote_code: bool = _MODEL.flag(False, f"{_NO_EFFECT}: code from a model's folder is never run.")
    enforce_eager: bool = _MODEL.flag(False, f"{_NO_EFFECT} on CPU.")
    disable_sliding_window: bool = _MODEL.flag(
        False, "Attend to everything, in a context cut to the length of the model's sliding window."
    )
    logits_processors: Sequence[Any] | None = _MODEL.field(
        None,
        "Must be empty: give functions to a request by SamplingParams(logits_processors=...).",
        _no_processors,
        {"nargs": "*"},
    )
    pooler_config: PoolerConfig | Mapping[str, Any] | None = _POOLING.field(
        None, "How hidden states become results (octavo.pooling.PoolerConfig).", read_pooler_config, _JSON
    )
    override_pooler_config: PoolerConfig | Mapping[str, Any] | None = _POOLING.field(
        None, "Goes before pooler_config, key by key.", read_pooler_config, _JSON
    )

    load_format: str = _LOAD.one_of(
        "auto", "Which of the model's weight files to load.", "auto", "safetensors", "pt", "gguf"
    )
    revision: str | None = _LOAD.text(None, "Branch, tag or commit of the model on the hub.")
    tokenizer_revision: str | None = _LOAD.text(None, "Branch, tag or commit of the tokenizer on the hub.")
    hf_token: str | bool | None = _LOAD.field(
        None,
        "Token for the hub; True takes the stored one, False sends none.",
        _token_or_switch,
        {"nargs": "?", "const": True},
    )
    download_dir: str | None = _LOAD.text(None, "Folder for files from the hub; None is the hub's own cache.")
    use_tqdm_on_load: bool = _LOAD.flag(True, "Show progress while files are fetched and loaded.")

    device: str = _PARALLEL.one_of("auto", "What to run on; auto takes a GPU when there is one.", "auto", "cpu", "cuda")
    num_threads: int | None = _PARALLEL.whole(
        None, "Threads to compute with; None is what the process may use.", minimum=1
    )
    tensor_parallel_size: int = _PARALLEL.whole(
        1,
        "Devices to split the model over; on CPU groups of threads, best one for each NUMA node.",
        minimum=1,
        flags=["-tp"],
    )
    disable_custom_all_reduce: bool = _PARALLEL.flag(False, f"{_NO_EFFECT} on CPU.")

    block_size: int | None = _CACHE.whole(None, f"{_NO_EFFECT}: a block of the cache holds 32 tokens.", minimum=1)
    kv_cache_dtype: str = _CACHE.one_of(
        "auto", "Type of the cache; auto is bfloat16, or float32 for dtype float32.", "auto", "bfloat16", "float32"
    )
    kv_cache_memory_bytes: int | str | None = _CACHE.whole(
        None, "Bytes the cache may grow to; None takes a share of the free memory.", minimum=1
    )
    enable_prefix_caching: bool | None = _CACHE.flag(None, "Keep computed prefixes for later prompts; None is True.")
    gpu_memory_utilization: float = _CACHE.field(
        0.9, "Share of a GPU's memory to use, above 0 and at most 1; no effect on CPU.", _fraction, {"type": float}
    )
    num_gpu_blocks_override: int | None = _CACHE.whole(
        None, "Blocks of 32 tokens that the cache holds, in place of kv_cache_memory_bytes.", minimum=1
    )

    cpu_offload_gb: float = _OFFLOAD.number(
        0,
        "GiB of weights, from the first layer on, to leave in the mapped file (CPU) or in host memory (GPU).",
        minimum=0,
    )

    max_num_batched_tokens: int | str | None = _SCHEDULER.whole(
        None, f"Most tokens computed in one step; None is {CPU_MAX_NUM_BATCHED_TOKENS} on CPU.", minimum=1
    )
    max_num_seqs: int | None = _SCHEDULER.whole(
        None, f"Most samples generated at once; None is {CPU_MAX_NUM_SEQS} on CPU.", minimum=1
    )
    enable_chunked_prefill: bool | None = _SCHEDULER.flag(None, "Split long prompts over several steps; None is True.")
    scheduling_policy: str = _SCHEDULER.one_of(
        "fcfs", "First come first served, or by the priority of each request.", "fcfs", "priority"
    )

    disable_log_stats: bool = _ENGINE.flag(True, "Leave RequestOutput.metrics empty.")

    def __post_init__(self) -> None:
        for field in fields(self):
            setattr(self, field.name, option_of(field).checked(field.name, getattr(self, field.name)))
        self.resolve_runner()

    @classmethod
    def add_cli_args(cls, parser: _Container) -> _Container:
        """Adds every argument to a parser, in groups, or to one argument group; returns what it was given."""
        groups: dict[str, argparse._ActionsContainer] = {}
        for field in _in_order(cls):
            option = option_of(field)
            title, description = option.group.title, option.group.description
            if isinstance(parser, argparse.ArgumentParser) and title not in groups:
                groups[title] = parser.add_argument_group(title, description)
            option.add_to(groups.get(title, parser), field.name, field.default)
        return parser

    @classmethod
    def from_cli_args(cls, args: argparse.Namespace) -> EngineArgs:
        """From parsed arguments; those that are none of the engine's are left alone."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls) if hasattr(args, field.name)})

    def resolve_runner(self) -> tuple[str, str]:
        """(runner, convert) with `task` taken into account; raises InvalidInputError when they disagree."""
        runner, convert = _RUNNER_OF_TASK[self.task or "auto"]
        for name, given, meant in (("runner", self.runner, runner), ("convert", self.convert, convert)):
            if "auto" not in (given, meant) and given != meant:
                raise InvalidInputError(
                    f"task={self.task!r} means {name}={meant!r}, but {name}={given!r} is given; leave one of them out."
                )
        return (runner if self.runner == "auto" else self.runner, convert if self.convert == "auto" else self.convert)

    def override_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of config.json's content with hf_overrides, the window and rope arguments applied."""
        if callable(self.hf_overrides):
            overridden = self.hf_overrides(dict(config))
        else:
            overridden = _merged(config, self.hf_overrides or {})
        if self.disable_sliding_window:
            overridden = _without_window(overridden)
        if self.rope_scaling is None and self.rope_theta is None:
            return overridden
        held = dict(overridden.get("rope_parameters") or overridden.get("rope_scaling") or {})
        if self.rope_scaling is not None:
            held = {**{key: value for key, value in held.items() if key == "rope_theta"}, **self.rope_scaling}
        if self.rope_theta is not None:
            held["rope_theta"] = self.rope_theta
        return {**overridden, "rope_parameters": held}


def _in_order(cls: type[EngineArgs]) -> list[Field[Any]]:
    """The engine's own fields, then those without effect."""
    inherited = {field.name for field in fields(CompatibilityArgs)}
    return sorted(fields(cls), key=lambda field: field.name in inherited)


def _merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `update` put into it, dict by dict."""
    merged = dict(base)
    for key, value in update.items():
        held = merged.get(key)
        merged[key] = _merged(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_window(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model without a sliding window, its context no longer than the window was."""
    window = config.get("sliding_window")
    if type(window) is not int or config.get("use_sliding_window") is False:
        return dict(config)
    longest = min(window, config.get("max_position_embeddings") or window)
    return {**config, "sliding_window": None, "layer_types": None, "max_position_embeddings": longest}
